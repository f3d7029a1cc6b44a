"""Which models are compared, and from which of them each was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.errors import DataError
from llamita.evaluation.versions import Version, list_versions
from llamita.hashes import input_hash


def artifact(folder: Path, name: str, start: str | None = None, **more: Any) -> Path:
    """A finished stage's folder; its hash is its name."""
    inputs = {"start": {"path": "elsewhere", "hash": start}} if start else {}
    (folder / name).mkdir(parents=True)
    (folder / name / "manifest.json").write_text(json.dumps({"hash": name, "inputs": inputs} | more))
    return folder / name


def test_versions_are_the_listed_stages_and_manifests_show_their_starts(tmp_path: Path) -> None:
    sft = artifact(tmp_path, "sft")
    later = {
        "v1/rejection": artifact(tmp_path, "v1/rejection"),
        "v1/ppo": artifact(tmp_path, "v1/ppo", "v1/rejection"),
        "v2/ppo": artifact(tmp_path, "v2/ppo", "v1/ppo"),
        "v3/ppo": artifact(tmp_path, "v3/ppo", "sft"),
    }
    assert list_versions(sft, later) == [
        Version("sft", sft),
        Version("v1/rejection", later["v1/rejection"]),
        Version("v1/ppo", later["v1/ppo"], "v1/rejection"),
        Version("v2/ppo", later["v2/ppo"], "v1/ppo"),
        Version("v3/ppo", later["v3/ppo"], "sft"),
    ]


def test_a_start_is_identified_by_its_hash_not_its_path(tmp_path: Path) -> None:
    sft = tmp_path / "plain"
    sft.mkdir()
    (sft / "config.json").write_text("{}")
    moved = artifact(tmp_path, "ppo", input_hash(sft))
    assert list_versions(sft, {"tuned": moved})[1] == Version("tuned", moved, "sft")


def test_a_start_that_is_not_compared_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ppo = artifact(tmp_path, "v2/ppo", "v2/rejection")
    assert list_versions(artifact(tmp_path, "sft"), {"v2/ppo": ppo})[1].start is None
    assert "v2/ppo: kl_to_start is not measured" in " ".join(capsys.readouterr().out.split())


def test_a_model_of_the_hub_or_a_folder_is_a_version_under_its_name(tmp_path: Path) -> None:
    sft, other = artifact(tmp_path, "sft"), artifact(tmp_path, "SmolLM2-1.7B")
    names = ["SmolLM2-1.7B", "org/SmolLM2-1.7B@main"]
    assert [one.name for one in list_versions(sft, dict.fromkeys(names, other))] == ["sft", *names]


def test_sft_alone(tmp_path: Path) -> None:
    sft = artifact(tmp_path, "sft")
    assert list_versions(sft, {}) == [Version("sft", sft)]


@pytest.mark.parametrize(
    "names", [("../v1",), ("v1//ppo",), (".ppo",), ("v1 ppo",), ("sft",), ("v1", "v1/ppo"), ("sft/x",)]
)
def test_names_that_cannot_be_separate_folders(tmp_path: Path, names: tuple[str, ...]) -> None:
    sft = artifact(tmp_path, "sft")
    with pytest.raises(DataError, match=r"input versions: .*expected") as error:
        list_versions(sft, dict.fromkeys(names, sft))
    assert names[-1] in str(error.value)
