"""YAML of a pipeline with blocks: `with:`, and errors with line, key and what is expected."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.errors import ConfigError
from llamita.runner import pipeline

from ..helpers.blocks import settings, stage_runs
from ..helpers.text_pipeline import problem, replace

pytestmark = pytest.mark.usefixtures("blocks")

# ------------------------------------------------------------------------------------------- with


def test_with_replaces_settings_of_the_yaml_beside_it() -> None:
    ablation = (
        "{name: weaker, stage: tuner, config: rejection.yaml, with: {strength: 1}, inputs: {model: sft}}"
    )
    replace("configs/pipeline.yaml", "  - {name: report", f"  - {ablation}\n  - {{name: report")
    found = stage_runs()
    assert [settings(found[name]).strength for name in ("v1/rejection", "weaker")] == [2, 1]


@pytest.mark.parametrize("given", ["trainer: {max_steps: 7}", "trainer.max_steps: 7"])
def test_with_takes_sections_and_dotted_keys_and_keeps_what_they_do_not_name(given: str) -> None:
    Path("configs/base.yaml").write_text("trainer: {learning_rate: 0.5}\n")
    replace("configs/pipeline.yaml", "with: {words: 3}", f"config: base.yaml, with: {{{given}}}")
    (base, *_) = stage_runs().values()
    assert base.settings.trainer == {"learning_rate": 0.5, "max_steps": 7}


def test_paths_in_with_are_relative_to_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "configs/elsewhere").mkdir()
    (tmp_path / "configs/elsewhere/rejection.yaml").write_text("strength: 2\n")
    (tmp_path / "configs/zero.json").write_text("{}")
    replace(
        "configs/pipeline.yaml", "rejection.yaml", "elsewhere/rejection.yaml, with: {deepspeed: zero.json}"
    )
    replace(
        "configs/pipeline.yaml",
        "config: elsewhere/rejection.yaml, with:",
        "config: elsewhere/rejection.yaml\n        with:",
    )
    assert settings(stage_runs()["v2/rejection"]).deepspeed == str(tmp_path / "configs/zero.json")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("wrods: 3", "wrods: unknown key; did you mean 'words'"),
        ("words: many", 'words: expected a valid integer, found "many" (text)'),
        (
            "trainer.max_stepz: 1",
            "trainer.max_stepz: fake_maker.settings.FakeTrainerArguments has no such",
        ),
        ("words: 3, words.x: 1", "words is not a section"),
        ("inputs: {text: sft}", "stages.0.with.inputs.text: 'inputs' is not a setting"),
        ("words: 3}, wiht: {a: 1", "stages.0.wiht: unknown key; did you mean 'with'?"),
    ],
)
def test_errors_in_with_name_the_line_of_the_pipeline(given: str, words: str) -> None:
    replace("configs/pipeline.yaml", "with: {words: 3}", f"with: {{{given}}}")
    with pytest.raises(ConfigError) as caught:
        pipeline.check_trainers(pipeline.read_pipeline("configs/pipeline.yaml"))
    assert str(caught.value).startswith("configs/pipeline.yaml:4: ")
    assert words in str(caught.value)


def test_former_names_in_with_and_in_overrides() -> None:
    tokens = (
        "{name: tokens, stage: tokenizer, with: {documents: [], vocabulary_size: 320}, inputs: {data: data}}"
    )
    replace("configs/pipeline.yaml", "  - {name: report, stage: gather}", f"  - {tokens}")
    assert "configs/pipeline.yaml:16: vocabulary_size: renamed to vocab_size" in problem()
    override = "override 'tokens.refuse_at_most=3' (configs/pipeline.yaml)"
    assert f"{override}: refuse_at_most: renamed to max_bad_rows" in problem("tokens.refuse_at_most=3")


def test_a_required_setting_without_config() -> None:
    replace(
        "configs/pipeline.yaml", "  - {name: report, stage: gather}", "  - {name: tokens, stage: tokenizer}"
    )
    assert "configs/pipeline.yaml:16: documents: this key is required" in problem()


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        (
            "{model: previous, judge: judge,",
            "{model: previous, judge: jugde,",
            13,
            "stages.2.stages.1.inputs.judge: 'jugde' is not an earlier stage, a root or an existing folder; "
            "did you mean 'judge'?; expected one of judge, previous, base",
        ),
        ("{model: sft, earlier: all}", "{model: previous}", 15, "stages.3.inputs.model: `previous` is only"),
        ("{model: sft, earlier: all}", "{model: all.ppo}", 15, "this input takes one folder, found list"),
        ("{model: sft, earlier: all}", "{model: [sft]}", 15, 'takes one folder, found list ["sft"]'),
        ("earlier: all}", "earlir: all}", 15, "has no such input; did you mean 'earlier'?"),
        ("earlier: all}", "earlier: all.pop}", 15, "no stage 'pop' before this one; did you mean 'ppo'?"),
        ("previous: sft", "previous: stf", 7, "stages.2.previous: 'stf' is not an earlier stage, a root or"),
        ("only: [v2, v3]", "only: [v2, v4]", 14, "stages.2.stages.2.only.1: no round 'v4' in this block"),
        ("rounds: [v1,", "rounds: [all,", 6, "stages.2.rounds.0: 'all' has a special meaning in"),
        ("rounds: [v1,", "rounds: [v/1,", 6, "stages.2.rounds.0: 'v/1' is not a valid folder name"),
        ("previous: sft", "previuos: sft", 7, "stages.2.previuos: unknown key; did you mean 'previous'?"),
        ("rounds: [v1, v2, v3]", "round: [v1]", 6, "stages.2.round: unknown key; did you mean 'rounds'?"),
        ("only: [v2, v3]", "onyl: [v2]", 14, "stages.2.stages.2.onyl: unknown key; did you mean 'only'?"),
        ("name: rejection", "nmae: rejection", 10, "stages.2.stages.1.nmae: unknown key; did you mean"),
        ("stage: judge", "stage: jugde", 9, "stages.2.stages.0.stage: unknown kind of stage 'jugde'"),
    ],
)
def test_wrong_blocks_name_their_line(old: str, new: str, line: int, words: str) -> None:
    replace("configs/pipeline.yaml", old, new)
    errors = [
        error for error in problem().splitlines() if error.startswith(f"configs/pipeline.yaml:{line}: ")
    ]
    assert any(words in error for error in errors), problem()


def test_a_block_without_rounds() -> None:
    replace("configs/pipeline.yaml", "rounds: [v1, v2, v3]\n    previous: sft", "previous: sft")
    assert problem() == "configs/pipeline.yaml:6: stages.2.rounds: this key is required"


def test_an_error_that_rounds_share_is_reported_once() -> None:
    Path("configs/rejection.yaml").write_text("strenght: 2\n")
    assert problem().count("strenght: unknown key") == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "v2/pop.strength=1",
            "'v2/pop' is neither a stage nor a key of configs/pipeline.yaml; did you mean 'v2/",
        ),
        ("v1/ppo.strength=1", "no stage 'ppo' in round 'v1'; expected one of v2/ppo, v3/ppo"),
        ("v2/ppo=1", "'v2/ppo' is a stage; expected v2/ppo.KEY=VALUE"),
        ("v2/ppo.strenght=1", "override 'v2/ppo.strenght=1'"),
        ("v2/ppo.inputs.model=v3/ppo", "override 'v2/ppo.inputs.model=v3/ppo'"),
    ],
)
def test_wrong_overrides_of_a_round(override: str, words: str) -> None:
    assert words in problem(override)


def test_a_stage_of_the_removed_kind_rlhf() -> None:
    replace("configs/pipeline.yaml", "stage: gather}", "stage: rlhf, config: rlhf.yaml, inputs: {sft: sft}}")
    assert "configs/pipeline.yaml:16: stages.4.stage: stage 'rlhf' was removed" in problem()
    assert "  - rounds: [v1, v2]\n    previous: sft\n    stages:\n      - name: rejection\n" in problem()
