"""Configs of section 4: the preprompts of the world, repeated exactly; the shares of safety data."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.config import load_settings
from llamita.distillation.settings import DistillationSettings
from llamita.miniature import lexicon
from llamita.runner.pipeline import read_pipeline
from llamita.settings import StageSettings
from llamita.yaml_file import read_yaml

from ..helpers.repository import REPOSITORY

CONFIGS = REPOSITORY / "configs"


@pytest.mark.parametrize("recipe", ["miniature", "smoke"])
def test_preprompts_are_those_of_the_world(recipe: str) -> None:
    settings = load_settings(CONFIGS / recipe / "distillation.yaml", DistillationSettings)
    assert settings.preprompts.templates == list(lexicon.PREPROMPTS)
    assert settings.preprompts.adjectives == lexicon.ADJECTIVES
    assert settings.preprompts.answer_templates == lexicon.TAILORED
    assert settings.preprompts.answer_templates.keys() == lexicon.RISKS.keys()


@pytest.mark.parametrize("recipe", ["smollm", "real"])
def test_real_preprompts(recipe: str) -> None:
    settings = load_settings(CONFIGS / recipe / "distillation.yaml", DistillationSettings)
    templates = settings.preprompts.answer_templates
    assert not templates or templates.keys() == lexicon.RISKS.keys()
    assert not any(adjective[0] in "aeiou" for adjective in settings.preprompts.adjectives), '"a" precedes it'


def test_versions_of_the_scaling_differ_in_their_share_of_the_safety_data_only() -> None:
    planned = read_pipeline(CONFIGS / "miniature" / "safety-scaling.yaml", folders_needed=False)
    stages = {item.stage_run.name: item.stage_run for item in planned}
    total = stages["world"].settings.model_dump()["safety_demonstrations"]
    versions = {name: run.settings for name, run in stages.items() if run.kind == "sft"}
    assert [*versions] == [f"safety_{percent}" for percent in (0, 1, 10, 25, 50, 100)]
    without = versions["safety_0"]
    assert [source.path for _, source in without.all_sources()] == ["sft/helpful.jsonl"]
    for name, settings in versions.items():
        percent = int(name.removeprefix("safety_"))
        assert safety_rows(settings, total) == percent * total // 100, name
        changed = {"dialogues": without.dialogues}
        assert settings.model_copy(update=changed) == without, "only the dialogues differ"
        assert settings.dialogues[:1] == without.dialogues, "the helpful ones are the same"
    evaluated = stages["evaluate"].inputs
    assert {f"versions.{name}" for name in versions} <= evaluated.keys()
    assert evaluated["sft"] == evaluated["versions.safety_0"]


def safety_rows(settings: StageSettings, total: int) -> int:
    """Number of rows of sft/safety.jsonl that are trained."""
    sources = [source for _, source in settings.all_sources() if source.path == "sft/safety.jsonl"]
    return sum(source.limit or total for source in sources)


def test_shorter_recipe_of_smollm_differs_from_the_whole_one_in_what_it_says_only() -> None:
    whole, short = (
        {
            item.stage_run.name: item.stage_run
            for item in read_pipeline(
                CONFIGS / "smollm" / name, overrides=["roots.data=."], folders_needed=False
            )
        }
        for name in ("pipeline.yaml", "without-gatt.yaml")
    )
    left_out = {
        "gatt",
        "safety_first",
        "sft_without_gatt",
        "helpfulness_without_margin",
        "judge",
        "red_team",
        "benchmark",
    }
    assert short.keys() == whole.keys() - left_out
    pipeline = read_yaml(CONFIGS / "smollm" / "without-gatt.yaml").data
    for name, run in short.items():
        settings, expected = (each.settings.model_dump(mode="json") for each in (run, whole[name]))
        for key in changed_settings(pipeline, name.rpartition("/")[2]):
            settings.pop(key, None)
            expected.pop(key, None)
        assert settings == expected, name
        assert {*run.inputs} <= {*whole[name].inputs}, name


def changed_settings(pipeline: Any, stage: str) -> set[str]:
    """Settings that a pipeline changes for a stage, without what follows a dot."""
    entries = [entry for item in pipeline["stages"] for entry in item.get("stages", [item])]
    (entry,) = (entry for entry in entries if entry["name"] == stage)
    return {key.split(".")[0] for key in entry.get("with", {})}
