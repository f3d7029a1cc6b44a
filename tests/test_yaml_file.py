"""Values in YAML, JSON and overrides: read completely, or an error with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita import artifact
from llamita.config import load_settings
from llamita.errors import ConfigError, DataError
from llamita.runner import pipeline
from llamita.yaml_file import parse_json, read_yaml

from .helpers.text_pipeline import replace
from .helpers.text_stages import FakeStages, MakerSettings

DIGITS = "9" * 5000


def overridden(value: str, tmp_path: Path) -> Any:
    path = tmp_path / "any.yaml"
    path.write_text("data: null\n")
    return read_yaml(path, [f"data={value}"]).data["data"]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("set #2", "set #2"),
        ("#2", "#2"),
        ("runs/# 3", "runs/# 3"),
        ("1 #2", "1 #2"),
        ("a#b", "a#b"),
        ('"set #2"', "set #2"),
        ("[1, 'b #2']", [1, "b #2"]),
        ("{a: 'b #2'}", {"a": "b #2"}),
        ("1e-3", 1e-3),
        ("null", None),
        ("", None),
    ],
)
def test_an_override_keeps_its_whole_text(tmp_path: Path, value: str, kept: Any) -> None:
    assert overridden(value, tmp_path) == kept


@pytest.mark.parametrize("value", ["[a, b] #c", "- a #b", "a: b #c", "'a' #b", "[a #b, c]"])
def test_a_comment_in_a_structured_override_is_an_error(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="override 'data=") as caught:
        overridden(value, tmp_path)
    assert "in quotes" in str(caught.value) or "invalid YAML" in str(caught.value)


def test_a_comment_in_a_yaml_is_one(tmp_path: Path) -> None:
    (tmp_path / "any.yaml").write_text("data: set #2\n")
    assert read_yaml(tmp_path / "any.yaml").data == {"data": "set"}


def test_a_root_with_a_hash_in_its_name(project: Path, fake: FakeStages, tmp_path: Path) -> None:
    (tmp_path / "set #2").mkdir()
    replace("configs/pipeline.yaml", "{model: base}", "{model: base, data: data}")
    planned = pipeline.read_pipeline("configs/pipeline.yaml", ["roots.data=set #2"])
    assert planned[1].stage_run.inputs["data"] == tmp_path / "set #2"


@pytest.mark.parametrize(
    "value",
    [DIGITS, f"-{DIGITS}", f"0x{'f' * 5000}", str(2**63), "2024-13-45", f"[1, {{a: {DIGITS}}}]"],
)
def test_impossible_values_are_reported_with_their_line(tmp_path: Path, value: str) -> None:
    path = tmp_path / "maker.yaml"
    path.write_text(f"seed: 1\nwords: {value}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path, MakerSettings)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert len(str(caught.value)) < 300
    path.write_text("seed: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path, MakerSettings, [f"words={value}"])
    assert str(caught.value).startswith("override 'words=")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "maker.yaml"
    path.write_text("seed: 1\n")
    with pytest.raises(ConfigError, match=r"override 'trainer\.learning_rate=.*is not a finite number"):
        load_settings(path, MakerSettings, [f"trainer.learning_rate={value}"])


@pytest.mark.parametrize("place", [DIGITS, "²"])
def test_an_invalid_position_in_an_override(tmp_path: Path, place: str) -> None:
    path = tmp_path / "maker.yaml"
    path.write_text("words: [1]\n")
    with pytest.raises(ConfigError, match=r"override 'words\..*does not exist"):
        read_yaml(path, [f"words.{place}=1"])


def test_brackets_that_are_nested_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "maker.yaml"
    path.write_text("seed: 1\n")
    with pytest.raises(ConfigError, match=r"override 'words=\[.*nested too deep"):
        load_settings(path, MakerSettings, ["words=" + "[" * 5000])
    path.write_text("words: " + "[" * 5000)
    with pytest.raises(ConfigError, match=r"maker\.yaml: .*nested too deep"):
        load_settings(path, MakerSettings)


def test_numbers_of_5000_digits_in_json(tmp_path: Path) -> None:
    zero = tmp_path / "zero.json"
    zero.write_text('{\n "a": 1,\n "b": ' + DIGITS + "}")
    (tmp_path / "maker.yaml").write_text("seed: 1\ndeepspeed: zero.json\n")
    with pytest.raises(ConfigError, match=r"maker\.yaml:2: .*zero\.json: line 3: a whole number of 5,000"):
        load_settings(tmp_path / "maker.yaml", MakerSettings)
    (tmp_path / artifact.MANIFEST).write_text('{"metrics": ' + DIGITS + "}")
    with pytest.raises(DataError, match=r"manifest\.json: .*line 1: a whole number of 5,000 digits"):
        artifact.read_manifest(tmp_path)
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json("[" * 100_000)
    fine = {"a": 2**70, "b": [1.5, None]}
    assert parse_json(json.dumps(fine)) == fine
