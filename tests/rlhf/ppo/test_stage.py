"""PPO as a stage, with models of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from llamita.errors import ConfigError
from llamita.jsonl import read_rows
from llamita.rlhf.ppo import loop, stage
from llamita.rlhf.ppo.trainer import PpoTrainer
from llamita.runner import pipeline, stages

from ...helpers.rlhf import inputs_of, make_inputs, ppo

TRAINED_POLICY = {
    f"ppo/{name}"
    for name in ("policy_loss", "policy_gradient_norm", "approx_kl", "clip_fraction", "first_ratio_deviation")
}
METRICS = {
    "step",
    "ppo/reward",
    "ppo/whitened_reward",
    "ppo/helpfulness_score",
    "ppo/safety_score",
    "ppo/adversarial_safety_score_plain",
    "ppo/truncated_share",
    "ppo/answer_length",
    "ppo/kl",
    "ppo/entropy",
    "ppo/sampler_deviation",
    "ppo/sampler_deviation_p95",
    "ppo/sampler_clip_fraction",
    "ppo/safety_branch_share",
    "ppo/reward_safety_branch",
    "ppo/reward_helpfulness_branch",
    "ppo/advantage_mean",
    "ppo/advantage_std",
    *(
        f"ppo/advantage_{part}_{branch}_branch"
        for part in ("mean", "std")
        for branch in ("safety", "helpfulness")
    ),
    "ppo/explained_variance",
    "ppo/value_loss",
    "ppo/critic_gradient_norm",
    *TRAINED_POLICY,
    "sampling/answers_per_second",
    "sampling/tokens_per_second",
    "time/sampling_seconds",
    "time/scoring_seconds",
    "time/advantages_seconds",
    "time/update_seconds",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    return inputs_of("ppo", make_inputs(tmp_path_factory.mktemp("inputs"), tokenizer))


@pytest.fixture(scope="module")
def undisturbed(
    inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("undisturbed")
    return out, stage.run(ppo(), inputs, out)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_model_and_metrics(undisturbed: tuple[Path, dict[str, Any]], inputs: dict[str, Path]) -> None:
    out, metrics = undisturbed
    trained, start = weights(out / "model"), weights(inputs["start"] / "model")
    assert not torch.equal(trained["lm_head.weight"], start["lm_head.weight"])
    rows = read_rows(out / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert (metrics["first"], metrics["last"]) == tuple(rows)
    assert set(rows[0]) == METRICS - TRAINED_POLICY, "the first iteration only trains the critic"
    assert set(rows[1]) == METRICS
    for row in rows:
        phases = [value for name, value in row.items() if name.startswith("time/")]
        assert min(phases) > 0
        answers = row["sampling/answers_per_second"] * row["time/sampling_seconds"]
        tokens = row["sampling/tokens_per_second"] * row["time/sampling_seconds"]
        assert answers == pytest.approx(8)
        assert tokens == pytest.approx(8 * row["ppo/answer_length"])
    assert metrics["prompts"] == 8
    json.dumps(metrics)


def test_half_precision(inputs: dict[str, Path], tmp_path: Path) -> None:
    measured = stage.run(ppo(dtype="bfloat16"), inputs, tmp_path)
    assert measured["last"]["ppo/sampler_deviation"] > 1e-4
    assert weights(tmp_path / "model")["lm_head.weight"].dtype == torch.float32


def test_a_judge_is_logged_and_changes_nothing(
    undisturbed: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path
) -> None:
    measured = stage.run(ppo(), inputs | {"judge": inputs["data"] / "judge"}, tmp_path)
    assert "judge_warning" not in undisturbed[1]
    assert measured["judge_warning"] is None
    assert set(read_rows(tmp_path / "metrics.jsonl")[1]) == METRICS | {"ppo/judge_score"}
    with_judge, without = weights(tmp_path / "model"), weights(undisturbed[0] / "model")
    assert all(torch.equal(with_judge[name], without[name]) for name in without)


def test_the_warning_covers_iterations_before_a_resume(inputs: dict[str, Path], tmp_path: Path) -> None:
    given: list[int] = []

    class Recorded(loop.EarlyWarning):
        def __init__(self, rows: Any) -> None:
            given.append(len(list(rows)))
            super().__init__(())

    original = PpoTrainer.iterate

    def iterate(self: PpoTrainer, iteration: int) -> dict[str, float]:
        if iteration == 2 and len(given) == 1:
            raise KeyboardInterrupt
        return original(self, iteration)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "EarlyWarning", Recorded)
        patch.setattr(PpoTrainer, "iterate", iterate)
        with pytest.raises(KeyboardInterrupt):
            stage.run(ppo(save_iterations=1), inputs, tmp_path)
        stage.run(ppo(save_iterations=1), inputs, tmp_path)
    assert given == [0, 1]


def test_rounds_sample_differently(
    undisturbed: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path
) -> None:
    measured = stage.run(ppo(round="v7", iterations=1), inputs, tmp_path)
    assert measured["first"]["ppo/reward"] != undisturbed[1]["first"]["ppo/reward"]


@pytest.mark.parametrize("saved", [0, 1, 2])
def test_it_resumes_after_the_last_saved_iteration(
    undisturbed: tuple[Path, dict[str, Any]], inputs: dict[str, Path], tmp_path: Path, saved: int
) -> None:
    chosen = ppo(save_iterations={0: 10, 1: 1, 2: 2}[saved])
    original, made = PpoTrainer.iterate, []

    def iterate(self: PpoTrainer, iteration: int) -> dict[str, float]:
        if killed and iteration > max(1, saved):
            raise KeyboardInterrupt
        made.append(iteration)
        return original(self, iteration)

    def interrupting(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PpoTrainer, "iterate", iterate)
        if saved == 2:
            patch.setattr(stage, "save_model", interrupting)
        killed = True
        with pytest.raises(KeyboardInterrupt):
            stage.run(chosen, inputs, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PpoTrainer, "iterate", iterate)
        killed = False
        del made[:]
        stage.run(chosen, inputs, tmp_path)
    assert made == list(range(saved + 1, 3))
    final, theirs = weights(tmp_path / "model"), weights(undisturbed[0] / "model")
    assert all(torch.equal(final[name], theirs[name]) for name in theirs)
    keys = [[row["step"] for row in read_rows(out / "metrics.jsonl")] for out in (tmp_path, undisturbed[0])]
    assert keys[0] == keys[1]


def test_invalid_settings_are_errors_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mini_batch_size 5"):
        ppo(mini_batch_size=5)
    file = tmp_path / "zero.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.group, "setup", lambda _: None)
        file.write_text('{"zero_optimization": {"stage": 2}, "bf16": {"enabled": true}}')
        with pytest.raises(ConfigError, match="several micro-batches in bf16"):
            stage.run(ppo(deepspeed=str(file), micro_batch_size=2), {}, tmp_path)


def test_a_mini_batch_that_the_ranks_cannot_share_is_an_error_of_the_plan(tmp_path: Path) -> None:
    (tmp_path / "zero.json").write_text("{}")
    entry = {
        "name": "ppo",
        "stage": "ppo",
        "processes": 3,
        "with": {
            "prompts": [{"path": "prompts.jsonl", "format": "prompts"}],
            "max_new_tokens": 8,
            "deepspeed": "zero.json",
        },
        "inputs": dict.fromkeys(("start", "helpfulness", "safety", "data"), "data"),
    }
    config = tmp_path / "pipeline.yaml"
    config.write_text(json.dumps({"name": "run", "roots": {"data": None}, "stages": [entry]}))
    with pytest.raises(ConfigError, match=r"stages\.0\.processes: mini_batch_size 64 .* a multiple of 3"):
        pipeline.read_pipeline(config, folders_needed=False)
    fitting = pipeline.read_pipeline(
        config, ["ppo.mini_batch_size=32", "ppo.processes=4"], folders_needed=False
    )
    assert stages.check_processes("ppo", fitting[0].stage_run.settings, 4) is None
