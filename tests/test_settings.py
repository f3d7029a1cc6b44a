"""Settings of all stages: strict types, settings that affect the result, and sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
from pydantic import ValidationError

from llamita.runner import stages
from llamita.settings import Settings, Source, StageSettings

from .helpers.sources import source, source_setting


class Batch(Settings):
    rows: int = 4
    micro_rows: int = 4


class Trained(StageSettings):
    no_effect: ClassVar[frozenset[str]] = frozenset({"batch.micro_rows", "logging"})
    resumes_with: ClassVar[frozenset[str]] = frozenset({"limit"})
    below: ClassVar[dict[str, str]] = {"ghost": "gatt"}
    deepspeed_files: ClassVar[tuple[str, ...]] = ("deepspeed",)

    batch: Batch = Batch()
    logging: dict[str, int] = {}
    limit: int = 1
    dialogues: list[Source] = []
    ghost: list[Source] = []
    kinds: dict[str, int] = {}
    deepspeed: str | None = None


class Refined(Trained):
    no_effect: ClassVar[frozenset[str]] = frozenset({"kinds"})


@pytest.mark.parametrize("values", [{"rows": "4"}, {"rows": 4.0}, {"rows": True}, {"row": 4}])
def test_unknown_keys_and_values_of_another_type_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Batch.model_validate(values)


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Batch().rows = 5  # type: ignore[misc]  # that it is refused is what is tested


def test_settings_that_affect_the_result() -> None:
    settings = Refined(batch=Batch(rows=8), logging={"steps": 3}, limit=2, kinds={"a": 1}, seed=5)
    everything = settings.fingerprinted()
    found = Refined.decisive(everything)
    assert found["batch.rows"] == 8
    assert found["seed"] == 5
    assert found["limit"] == 2
    assert not {"batch.micro_rows", "logging.steps", "kinds.a", "inputs", "output"} & found.keys()
    assert Refined.decisive(everything, resuming=True).keys() == found.keys() - {"limit"}
    assert "kinds.a" in Trained.decisive(everything), "its parent keeps its own"


def test_a_deepspeed_file_counts_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "zero.json"
    file.write_text('{"zero_optimization": {"stage": 2}}')
    settings = Trained(deepspeed=str(file), inputs={"data": "d"}, output="o")
    assert settings.fingerprinted()["deepspeed"] == {"zero_optimization": {"stage": 2}}
    assert not {"inputs", "output"} & settings.fingerprinted().keys()


def test_sources_are_found_with_the_input_that_they_are_below() -> None:
    settings = Trained(dialogues=source("messages", "a.jsonl"), ghost=source("messages", "b.jsonl"))
    assert [(name, one.path) for name, one in settings.all_sources()] == [
        ("dialogues", "a.jsonl"),
        ("ghost", "b.jsonl"),
    ]
    data, gatt = Path("data"), Path("gatt")
    assert settings.data_read({"data": data}) == {"data": settings.dialogues + settings.ghost}
    assert settings.data_read({"data": data, "gatt": gatt, "model": data}) == {
        "data": settings.dialogues,
        "gatt": settings.ghost,
    }


class Sections(StageSettings):
    below: ClassVar[dict[str, str]] = {"section.ghost": "gatt"}

    section: Trained = Trained()


def test_sources_in_a_section_are_found_by_both_names() -> None:
    section = Trained(dialogues=source("messages", "a.jsonl"), ghost=source("messages", "b.jsonl"))
    settings = Sections(section=section)
    assert [name for name, _ in settings.all_sources()] == ["section.dialogues", "section.ghost"]
    assert settings.data_read({"data": Path("data"), "gatt": Path("gatt")}) == {
        "data": section.dialogues,
        "gatt": section.ghost,
    }


ROWS = source_setting("rows", "messages")
REJECTION = {
    "dialogues": ROWS,
    "prompts": ROWS,
    "prompts_per_round": 1,
    "max_new_tokens": 1,
    "trainer": {"max_steps": 1},
}
REWARD = {"kind": "helpfulness", "comparisons": ROWS, "held_out": 1}
EVALUATE = {"gold": False, "prompts": {"ordinary": ROWS}, "max_new_tokens": 1}


@pytest.mark.parametrize(
    ("kind", "settings", "more", "inputs"),
    [
        ("sft", {"dialogues": ROWS}, {"ghost_attention": ROWS}, {"gatt"}),
        ("sft", {"dialogues": ROWS}, {"distillation": ROWS}, {"distillation"}),
        ("rejection", REJECTION, {"ghost_attention": ROWS, "distillation": ROWS}, {"gatt", "distillation"}),
        ("reward", REWARD, {"evasions": {"dialogues": ROWS, "answers": ROWS, "count": 1}}, {"refusals"}),
        ("evaluate", EVALUATE, {"retention": {"trained": "test.jsonl"}}, {"gatt", "sft_without_gatt"}),
    ],
)
def test_an_input_that_no_setting_reads_is_refused(
    kind: str, settings: dict[str, Any], more: dict[str, Any], inputs: set[str]
) -> None:
    """It would be hashed, and rerun the stage for nothing."""
    without, reading = (stages.settings_class(kind)(**one) for one in (settings, settings | more))
    for name in inputs:
        given = {*without.required_inputs, name}
        assert stages.check_inputs(kind, reading, given) is None
        refused = stages.check_inputs(kind, without, given)
        assert refused is not None
        assert refused[0] == name
        assert name not in refused[1].partition("with these settings it takes ")[2].split(", ")


@pytest.mark.parametrize("kind", stages.REGISTRY)
def test_names_without_effect_are_settings(kind: str) -> None:
    schema = stages.settings_class(kind)
    for name in schema.declared("no_effect") | schema.declared("resumes_with"):
        first, *inner = name.split(".")
        annotations = [schema.model_fields[first].annotation]
        for part in [] if first == "trainer" else inner:
            sections = [one for annotation in annotations for one in get_args(annotation) or (annotation,)]
            fields = [getattr(section, "model_fields", {}) for section in sections]  # several: of a union
            annotations = [found[part].annotation for found in fields if part in found]
            assert annotations, name
