"""Two rounds of rejection sampling with models of random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llamita.artifact import RESUME
from llamita.errors import ConfigError, DataError
from llamita.jsonl import read_rows
from llamita.rlhf import models
from llamita.rlhf.rejection import stage
from llamita.tokenizer.bpe import train_bpe

from ...helpers.rlhf import inputs_of, make_inputs, rejection
from ...helpers.rows import turn
from ...helpers.tiny import save_tiny_model

STEPS = ["choose_prompts", "sample_answers", "score_answers", "best_answers", "finetune_on_dialogues"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    return inputs_of("rejection", make_inputs(tmp_path_factory.mktemp("inputs"), tokenizer))


@pytest.fixture(scope="module")
def first(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("v1")
    return out, stage.run(rejection(round="v1"), inputs, out)


@pytest.fixture(scope="module")
def second(
    inputs: dict[str, Path], first: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("v2")
    more = {"selections.v1/rejection": first[0], "model": first[0]}
    return out, stage.run(rejection(round="v2", num_generations=12), inputs | more, out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_the_output_files(first: tuple[Path, dict[str, Any]]) -> None:
    out, metrics = first
    samples, scores, best = (read_rows(out / f"{name}.jsonl") for name in ("samples", "scores", "selection"))
    assert len(samples) == len(scores) == metrics["samples"] == 12
    assert [row["prompt"] for row in samples] == [index for index in range(3) for _ in range(4)]
    assert metrics["prompts"] == 3
    assert metrics["selected"] == len(best)
    assert metrics["best_score"] == pytest.approx(sum(row["score"] for row in best) / len(best))
    assert metrics["without_answer"] + metrics["all_unsafe"] == 3 - len(best)
    assert AutoTokenizer.from_pretrained(out / "model").apply_chat_template(turn("how ?"), return_dict=False)
    speed, *training = read_rows(out / "metrics.jsonl")
    assert set(speed) == {"step", "sampling/answers_per_second", "sampling/tokens_per_second"}
    tokens = sum(len(row["answer_ids"]) for row in samples)
    rates = [speed[f"sampling/{name}_per_second"] for name in ("answers", "tokens")]
    assert rates[1] / rates[0] == pytest.approx(tokens / 12)
    assert speed["step"] == 0
    assert 1 <= training[-1]["step"] <= 3
    json.dumps(metrics)


def test_rounds_use_different_prompts_and_random_numbers(
    first: tuple[Path, Any], second: tuple[Path, Any], inputs: dict[str, Path], tmp_path: Path
) -> None:
    pools = [{row["pool"] for row in read_rows(out / "prompts.jsonl")} for out, _ in (first, second)]
    assert not pools[0] & pools[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "finetune_on_dialogues", lambda *_, **__: {})
        stage.run(rejection(round="another"), inputs, tmp_path)
    same, other = (
        [row["answer_ids"] for row in read_rows(out / "samples.jsonl")] for out in (first[0], tmp_path)
    )
    assert read_rows(tmp_path / "prompts.jsonl") == read_rows(first[0] / "prompts.jsonl")
    assert same != other


def test_every_round_trains_the_base_model_on_all_selections_so_far(
    first: tuple[Path, dict[str, Any]], second: tuple[Path, dict[str, Any]]
) -> None:
    best = [metrics["selected"] for _, metrics in (first, second)]
    assert min(best) > 0
    demonstrations = 32 + 1
    trained = [metrics["dialogues"] for _, metrics in (first, second)]
    assert trained == [demonstrations + best[0], demonstrations + sum(best)]
    assert first[1]["steps"] == second[1]["steps"] == 3


def test_sampling_and_scoring_in_half_precision(
    inputs: dict[str, Path], first: tuple[Path, Any], tmp_path: Path
) -> None:
    stage.run(rejection(round="v1", dtype="bfloat16"), inputs, tmp_path)
    for name, column in (("samples", "logprob"), ("scores", "safety")):
        exact, half = (read_rows(out / f"{name}.jsonl") for out in (first[0], tmp_path))
        assert half[0][column] != exact[0][column]
        assert half[0][column] == pytest.approx(exact[0][column], rel=0.05)
    assert weights(tmp_path / "model")["lm_head.weight"].dtype == torch.float32


def spy_on_steps(monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], bool]) -> list[str]:
    """Interrupts a step at its start if `fails(step)`; returns the list of called steps."""
    called: list[str] = []
    for name in STEPS:
        original = getattr(stage, name)

        def spy(*arguments: Any, name: str = name, original: Any = original, **keywords: Any) -> Any:
            called.append(name)
            if fails(name):
                raise KeyboardInterrupt
            return original(*arguments, **keywords)

        monkeypatch.setattr(stage, name, spy)
    return called


@pytest.mark.parametrize("killed", STEPS[1:])
def test_a_killed_stage_resumes_after_its_last_finished_step(
    inputs: dict[str, Path], first: tuple[Path, dict[str, Any]], tmp_path: Path, killed: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        before = spy_on_steps(patch, lambda step: step == killed)
        with pytest.raises(KeyboardInterrupt):
            stage.run(rejection(round="v1"), inputs, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        after = spy_on_steps(patch, lambda step: False)
        metrics = stage.run(rejection(round="v1"), inputs, tmp_path)
    assert before == STEPS[: len(before)]
    assert after == STEPS[len(before) - 1 :], "only the interrupted step and those after it run again"
    same = {"selected", "mean_score", "best_score", "train_loss", "dialogues"}
    assert {name: metrics[name] for name in same} == {name: first[1][name] for name in same}
    mine, theirs = weights(tmp_path / "model"), weights(first[0] / "model")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert not list((tmp_path / RESUME).glob("writing/*"))
    steps = [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")]
    assert steps.count(0) == 1, "the speed of sampling is logged once"


def test_it_reports_the_selection(
    inputs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "finetune_on_dialogues", lambda *_, **__: {})
    measured = stage.run(rejection(safety_threshold=1.0), inputs, tmp_path)
    assert measured["selected"] == 0, "an unsafe answer is never selected"
    assert measured["all_unsafe"] + measured["without_answer"] == 3
    output = capsys.readouterr().out
    assert "answers selected for 0 of 3 prompts" in output
    assert "no answer was selected" in output


def test_a_judge_scores_all_answers_and_changes_nothing(
    inputs: dict[str, Path], first: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    judge = inputs["data"] / "judge"
    metrics = stage.run(rejection(round="v1"), inputs | {"judge": judge}, tmp_path)
    scores, selection = (read_rows(tmp_path / f"{name}.jsonl") for name in ("scores", "selection"))
    assert metrics["judge_score"] == pytest.approx(sum(row["judge"] for row in scores) / 12)
    assert metrics["selected_judge_score"] == pytest.approx(
        sum(row["judge"] for row in selection) / len(selection)
    )
    for name, rows in (("scores", scores), ("selection", selection)):
        assert [{**row, "judge": None} for row in rows] == [
            {**row, "judge": None} for row in read_rows(first[0] / f"{name}.jsonl")
        ]
    assert "judge_score" not in first[1]


@pytest.mark.parametrize("name", ["base", "helpfulness", "judge"])
def test_models_with_different_tokenizers_are_an_error(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    other = save_tiny_model(tmp_path / "other", train_bpe(["some other words"] * 50, 300))
    for module in (stage, models):
        for load in ("load_causal_lm", "load_reward_model"):
            monkeypatch.setattr(module, load, lambda *_: pytest.fail("weights were read"), raising=False)
    with pytest.raises(DataError, match="other: its tokenizer differs from that of"):
        stage.run(rejection(), {**inputs, name: other}, tmp_path)


def test_rows_above_the_context_are_an_error_before_sampling(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_length: 129 is above the model's context of 128"):
        stage.run(rejection(max_length=129), inputs, tmp_path)
    assert not list(tmp_path.iterdir())


def test_selections_must_be_outputs_of_rejection_sampling(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"selections: .*start has no prompts\.jsonl .*`all\.` and its name"):
        stage.run(rejection(), inputs | {"selections.v1/ppo": tmp_path / "start"}, tmp_path / "out")


def test_max_steps_is_required() -> None:
    with pytest.raises(ValueError, match="max_steps"):
        rejection(trainer={})


def test_skipped_rows_are_counted_by_reason(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Both long prompts and dialogues too long for a packed row are counted."""
    metrics = stage.run(rejection(max_length=14, max_prompt_length=7), inputs, tmp_path)
    assert {reason.split(" than ")[0] for reason in metrics["skipped"]} == {"prompt longer", "longer"}
