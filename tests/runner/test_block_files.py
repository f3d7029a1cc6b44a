"""What a pipeline with blocks says: `with:`, and wrong entries with their line, key and what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.errors import ConfigError
from llamita.runner import pipeline

from ..helpers.blocks import settings, steps
from ..helpers.text_pipeline import problem, replace

pytestmark = pytest.mark.usefixtures("blocks")

# ------------------------------------------------------------------------------------------- with


def test_with_replaces_settings_of_the_yaml_beside_it() -> None:
    ablation = (
        "{name: weaker, stage: tuner, config: rejection.yaml, with: {strength: 1}, inputs: {model: sft}}"
    )
    replace("configs/pipeline.yaml", "  - {name: report", f"  - {ablation}\n  - {{name: report")


@pytest.mark.parametrize("given", ["trainer: {max_steps: 7}", "trainer.max_steps: 7"])
def test_with_takes_sections_and_dotted_keys_and_keeps_what_they_do_not_name(given: str) -> None:
    Path("configs/base.yaml").write_text("trainer: {learning_rate: 0.5}\n")
    replace("configs/pipeline.yaml", "with: {words: 3}", f"config: base.yaml, with: {{{given}}}")
    (base, *_) = steps().values()
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
    assert settings(steps()["v2/rejection"]).deepspeed == str(tmp_path / "configs/zero.json")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("wrods: 3", "wrods: unknown key; did you mean 'words'"),
        ("words: many", 'words: expected a valid integer, found "many" (text)'),
        (
            "trainer.max_stepz: 1",
            "trainer.max_stepz: fake_maker.settings.FakeTrainerArguments has",
        ),
        ("words: 3, words.x: 1", "words is no section"),
        ("inputs: {text: sft}", "stages.0.with.inputs.text: 'inputs' is no setting"),
        ("words: 3}, wiht: {a: 1", "stages.0.wiht: unknown key; did you mean 'with'?"),
    ],
)
def test_what_is_wrong_in_with_is_told_with_the_line_of_the_pipeline(given: str, words: str) -> None:
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


def test_a_setting_without_default_is_missed_where_there_is_no_config() -> None:
    replace(
        "configs/pipeline.yaml", "  - {name: report, stage: gather}", "  - {name: tokens, stage: tokenizer}"
    )
    assert "configs/pipeline.yaml:16: documents: this key is missing" in problem()


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        (
            "{model: previous, judge: judge,",
            "{model: previous, judge: jugde,",
            13,
            "stages.2.stages.1.inputs.judge: 'jugde' is no earlier stage, no root and no folder; did you "
            "mean 'judge'?; expected one of judge, previous, base",
        ),
        ("{model: sft, earlier: all}", "{model: previous}", 15, "stages.3.inputs.model: `previous` has a"),
        ("{model: sft, earlier: all}", "{model: all.ppo}", 15, "this input takes one folder, found the list"),
        ("{model: sft, earlier: all}", "{model: [sft]}", 15, 'takes one folder, found the list ["sft"]'),
        ("earlier: all}", "earlir: all}", 15, "has no such input; did you mean 'earlier'?"),
        ("earlier: all}", "earlier: all.pop}", 15, "no stage 'pop'; did you mean 'ppo'?"),
        ("previous: sft", "previous: stf", 7, "stages.2.previous: 'stf' is no earlier stage, no root and no"),
        ("only: [v2, v3]", "only: [v2, v4]", 14, "stages.2.stages.2.only.1: no round 'v4' in this block"),
        ("rounds: [v1,", "rounds: [all,", 6, "stages.2.rounds.0: 'all' has a meaning in"),
        ("rounds: [v1,", "rounds: [v/1,", 6, "stages.2.rounds.0: 'v/1' becomes a folder"),
        ("previous: sft", "previuos: sft", 7, "stages.2.previuos: unknown key; did you mean 'previous'?"),
        ("rounds: [v1, v2, v3]", "round: [v1]", 6, "stages.2.round: unknown key; did you mean 'rounds'?"),
        ("only: [v2, v3]", "onyl: [v2]", 14, "stages.2.stages.2.onyl: unknown key; did you mean 'only'?"),
        ("name: rejection", "nmae: rejection", 10, "stages.2.stages.1.nmae: unknown key; did you mean"),
        ("stage: judge", "stage: jugde", 9, "stages.2.stages.0.stage: no such stage: 'jugde'"),
    ],
)
def test_wrong_blocks_name_their_line(old: str, new: str, line: int, words: str) -> None:
    replace("configs/pipeline.yaml", old, new)
    told = [one for one in problem().splitlines() if one.startswith(f"configs/pipeline.yaml:{line}: ")]
    assert any(words in one for one in told), problem()


def test_a_block_without_rounds() -> None:
    replace("configs/pipeline.yaml", "rounds: [v1, v2, v3]\n    previous: sft", "previous: sft")
    assert problem() == "configs/pipeline.yaml:6: stages.2.rounds: this key is missing"


def test_an_error_that_rounds_share_is_told_once() -> None:
    Path("configs/rejection.yaml").write_text("strenght: 2\n")
    assert problem().count("strenght: unknown key") == 1


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "v2/pop.strength=1",
            "'v2/pop' is no stage and no key of configs/pipeline.yaml; did you mean 'v2/",
        ),
        ("v1/ppo.strength=1", "no stage 'ppo' in round 'v1'; there are v2/ppo, v3/ppo"),
        ("v2/ppo=1", "expected stage.key=value"),
        ("v2/ppo.strenght=1", "override 'v2/ppo.strenght=1'"),
        ("v2/ppo.inputs.model=v3/ppo", "override 'v2/ppo.inputs.model=v3/ppo'"),
    ],
)
def test_wrong_overrides_of_a_round(override: str, words: str) -> None:
    assert words in problem(override)


def test_an_old_rlhf_stage_is_told_how_it_is_written_now() -> None:
    replace("configs/pipeline.yaml", "stage: gather}", "stage: rlhf, config: rlhf.yaml, inputs: {sft: sft}}")
    assert "configs/pipeline.yaml:16: stages.4.stage: there is no stage 'rlhf' any more" in problem()
    assert "  - rounds: [v1, v2]\n    previous: sft\n    stages:\n      - name: rejection\n" in problem()
