"""`llamita schema`: editors accept the shipped YAMLs, refuse wrong keys; the committed files are current."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from llamita import cli
from llamita.commands.schema import KINDS, descriptions, own_descriptions, schema_text
from llamita.data.settings import DialogueSettings
from llamita.pretrain.settings import PretrainSettings
from llamita.runner.stages import settings_class
from llamita.sft.settings import SftSettings
from llamita.training.settings import RESERVED
from llamita.yaml_file import read_yaml

from ..helpers.repository import REPOSITORY

CONFIGS = REPOSITORY / "configs"
YAMLS = sorted(CONFIGS.rglob("*.yaml"))
SMOKE_SFT = CONFIGS / "smoke" / "sft.yaml"


def schema_of(kind: str) -> Any:
    return json.loads(schema_text(kind))


def problems(kind: str, data: dict[str, Any]) -> list[str]:
    return [error.message for error in jsonschema.Draft7Validator(schema_of(kind)).iter_errors(data)]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.relative_to(CONFIGS).as_posix())
def test_a_shipped_yaml_names_its_schema_and_satisfies_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    beginning, _, reference = first.partition("=")
    assert beginning == "# yaml-language-server: $schema"
    schema = json.loads((path.parent / reference).read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    data = read_yaml(path).data
    jsonschema.Draft7Validator(schema).validate(data)
    stem = Path(reference).stem
    assert "stages" in data if stem == "pipeline" else settings_class(stem)


def pinned_versions_are_installed() -> bool:
    """Whether schemas and names below `trainer:` come from the versions that the files were written with."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    libraries = ("pydantic", "transformers", "trl")
    return {f"{name}=={metadata.version(name)}" for name in libraries} <= set(lines)


@pytest.mark.parametrize("kind", KINDS)
def test_the_committed_schemas_are_current(kind: str) -> None:
    if not pinned_versions_are_installed():
        pytest.skip("other versions of pydantic, transformers or trl than in constraints.txt")
    committed = (CONFIGS / "schemas" / f"{kind}.json").read_text(encoding="utf-8")
    assert committed == schema_text(kind), "run `.venv/bin/python docs/make_settings.py`"


def test_no_schema_is_left_over() -> None:
    assert {path.stem for path in (CONFIGS / "schemas").iterdir()} == set(KINDS)


def test_wrong_keys_types_and_choices_are_refused() -> None:
    data = read_yaml(SMOKE_SFT).data
    assert problems("sft", data) == []
    for key, value, words in (
        ("dialoges", [], "'dialoges' was unexpected"),
        ("max_length", "long", "'long' is not of type 'integer'"),
        ("max_length", 1, "1 is less than or equal to the minimum of 1"),
        ("chat_format", "chatml", "'chatml' is not one of ['own', 'llama2']"),
        ("trainer", {"learning_rat": 1}, "'learning_rat' was unexpected"),
        ("trainer", {"seed": 1}, "'seed' was unexpected"),
        ("trainer", {"max_steps": "x"}, "'x' is not of type 'integer'"),
        ("dialogues", [{"path": "a"}], "'format' is a required property"),
    ):
        assert any(words in problem for problem in problems("sft", {**data, key: value})), (key, value)


def test_names_below_trainer_are_those_of_its_class_without_the_reserved_ones() -> None:
    trainer = schema_of("sft")["properties"]["trainer"]
    assert trainer["additionalProperties"] is False
    assert not RESERVED.keys() & trainer["properties"].keys()
    assert not SftSettings.trainer_reserved.keys() & trainer["properties"].keys()
    assert trainer["properties"]["learning_rate"] == {"type": "number", "default": 2e-5}
    assert trainer["properties"]["adam_beta2"]["default"] == 0.95
    assert trainer["properties"]["max_steps"] == {"type": "integer"}
    assert "cosine_with_min_lr" in trainer["properties"]["lr_scheduler_type"]["enum"]
    assert "additionalProperties" not in schema_of("world")["properties"].get("trainer", {})


def test_descriptions_are_the_strings_below_the_fields() -> None:
    schema = schema_of("sft")
    for section in (schema, *schema["$defs"].values()):
        described = {key for key, value in section["properties"].items() if value.get("description")}
        assert section["properties"].keys() - described <= {"path"}
    for kind, settings in (("sft", SftSettings), ("pretrain", PretrainSettings)):
        for key, text in descriptions(settings).items():
            assert schema_of(kind)["properties"][key].get("description", "") == " ".join(text.split()), key
    assert list(own_descriptions(SftSettings)) == ["chat_format"]
    assert list(own_descriptions(DialogueSettings)) == ["dialogues", "ghost_attention", "distillation"]
    assert own_descriptions(PretrainSettings)["loss_spike"]  # declared again, with other words or the same
    entry = schema_of("pipeline")["$defs"]["StageEntry"]["properties"]
    assert "settings" in entry["with"]["description"]  # `with_` in Python


def test_a_pipeline() -> None:
    stage = {"name": "a", "stage": "sft", "with": {"max_length": 9}, "inputs": {"data": ["x"]}}
    block = {"rounds": ["v1"], "previous": "a", "stages": [stage]}
    assert problems("pipeline", {"name": "n", "stages": [stage, block]}) == []
    assert problems("pipeline", {"name": "n", "stages": [{**stage, "stage": "stf"}]})
    assert problems("pipeline", {"name": "n", "stages": [{**stage, "confg": "sft.yaml"}]})


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(cli.app, ["schema", "world"])
    assert result.exit_code == 0
    assert result.stdout == schema_text("world")
    wrong = CliRunner().invoke(cli.app, ["schema", "wrld"])
    assert wrong.exit_code == 2
    assert "unknown kind 'wrld'; did you mean 'world'?; expected one of pipeline, world" in wrong.stderr
