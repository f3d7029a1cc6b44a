"""PPO and rejection sampling on DeepSpeed ranks give the results of one process, with any ZeRO stage."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from llamita.jsonl import read_rows
from llamita.rlhf.ppo import stage as ppo_stage
from llamita.rlhf.ppo.trainer import PpoTrainer
from llamita.rlhf.rejection import stage as rejection_stage

from ..helpers.repository import zero_file
from ..helpers.rlhf import inputs_of, make_inputs, ppo, rejection
from ..helpers.two_ranks import on_deepspeed_ranks

pytestmark = pytest.mark.usefixtures("without_wandb")

SECONDS = 900  # for ranks on a busy machine
EXACT = 1e-5  # largest difference of a weight in fp32; steps have a learning rate of 1e-3
COMMON: dict[str, Any] = {"critic_warmup_iterations": 0, "iterations": 3, "save_iterations": 1}
Case = tuple[int, int]  # number of ranks, ZeRO stage


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("inputs") / "models", tokenizer)


@pytest.fixture(scope="module")
def alone(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Folder and metrics of PPO in this process, without DeepSpeed."""
    out = tmp_path_factory.mktemp("alone")
    return out, ppo_stage.run(ppo(**COMMON), inputs_of("ppo", inputs), out)


def weights(out: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(out / "model" / "model.safetensors")
    return found


def difference(one: Path, other: Path) -> float:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def check_equal(alone: tuple[Path, dict[str, Any]], out: Path, metrics: dict[str, Any]) -> None:
    folder, expected = alone
    assert difference(folder, out) < EXACT
    for row in ("first", "last"):
        logged = {name: value for name, value in metrics[row].items() if name.startswith("ppo/")}
        assert logged == pytest.approx({name: expected[row][name] for name in logged}, rel=1e-3, abs=1e-4)


def test_the_weights_move_much_further_than_they_may_differ(
    inputs: dict[str, Path], alone: tuple[Path, dict[str, Any]]
) -> None:
    assert difference(alone[0], inputs["start"]) > 100 * EXACT


def check_ranks(
    inputs: dict[str, Path], alone: tuple[Path, dict[str, Any]], tmp_path: Path, **changes: Any
) -> None:
    settings = ppo(**COMMON | changes)
    out = tmp_path / "out"
    out.mkdir()
    first, _ = on_deepspeed_ranks(
        2, lambda: ppo_stage.run(settings, inputs_of("ppo", inputs), out), tmp_path, SECONDS
    )
    check_equal(alone, out, first)


@pytest.mark.long
def test_two_ranks_under_zero_3_with_sharded_frozen_models(
    inputs: dict[str, Path], alone: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Ranks need different numbers of micro-batches, and must make the same number of passes."""
    limits = {"max_tokens_per_micro_batch": 94}  # two rows of 47 tokens, but not of 47 and 48
    check_ranks(inputs, alone, tmp_path, deepspeed=zero_file(3), frozen_models="sharded", **limits)


@pytest.mark.matrix
@pytest.mark.parametrize("frozen_models", ["whole", "sharded", "offloaded"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("critic", [1, 2, 3])
@pytest.mark.parametrize("policy", [1, 2, 3])
def test_two_ranks(
    inputs: dict[str, Path],
    alone: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    *,
    policy: int,
    critic: int,
    checkpointing: bool,
    frozen_models: str,
) -> None:
    check_ranks(
        inputs,
        alone,
        tmp_path,
        deepspeed=zero_file(policy),
        critic_deepspeed=zero_file(critic),
        gradient_checkpointing=checkpointing,
        frozen_models=frozen_models,
    )


@pytest.mark.matrix
@pytest.mark.parametrize("frozen_models", ["whole", "sharded", "offloaded"])
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_in_bf16_ratios_start_at_one_and_the_kl_at_zero(
    inputs: dict[str, Path], tmp_path: Path, zero: int, *, frozen_models: str
) -> None:
    """Policy and reference compute the same to the last bit, whatever holds them."""
    content = json.loads(Path(zero_file(zero)).read_text()) | {"bf16": {"enabled": True}}
    (file := tmp_path / "zero.json").write_text(json.dumps(content))
    settings = ppo(**COMMON | {"deepspeed": str(file), "frozen_models": frozen_models})
    (out := tmp_path / "out").mkdir()
    first, _ = on_deepspeed_ranks(
        2, lambda: ppo_stage.run(settings, inputs_of("ppo", inputs), out), tmp_path, SECONDS
    )
    row = first["first"]
    assert row["ppo/first_ratio_deviation"] == row["ppo/kl"] == 0
    assert 0 < row["ppo/sampler_deviation"] < 0.05


class Killed(BaseException):
    """Ends a run as a kill does: nothing catches it."""


PHASES = ("sample", "score", "first_passes", "update")  # methods in which a run is killed


def check_resuming(
    inputs: dict[str, Path],
    alone: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    *,
    cases: tuple[Case, Case],
    phase: str,
) -> None:
    """Kills a run in a phase of its second iteration; it ends on other ranks or with another ZeRO stage."""
    out = tmp_path / "out"
    out.mkdir()

    def run(zero: int, kills: bool) -> Any:
        settings = ppo(**COMMON | {"deepspeed": zero_file(zero), "frozen_models": "sharded"})
        if kills:
            kill_in(phase)
        with suppress(Killed):
            return ppo_stage.run(settings, inputs_of("ppo", inputs), out)

    for number, (ranks, zero) in enumerate(cases):
        (meeting := tmp_path / str(number)).mkdir()
        first, *_ = on_deepspeed_ranks(
            ranks, lambda zero=zero, kills=number == 0: run(zero, kills), meeting, SECONDS
        )
    assert [row["step"] for row in read_rows(out / "metrics.jsonl")] == [1, 2, 3]
    check_equal(alone, out, first)


def kill_in(phase: str) -> None:
    """Makes a method of the trainer raise `Killed` in the second iteration, in this process."""
    unhampered, iterate = getattr(PpoTrainer, phase), PpoTrainer.iterate

    def counting(self: PpoTrainer, iteration: int) -> Any:
        self.__dict__["now"] = iteration
        return iterate(self, iteration)

    def killing(self: PpoTrainer, *args: Any, **options: Any) -> Any:
        result = unhampered(self, *args, **options)
        if self.__dict__["now"] == 2:
            raise Killed
        return result

    PpoTrainer.iterate = counting  # type: ignore[method-assign]  # in a forked rank, which ends
    setattr(PpoTrainer, phase, killing)


@pytest.mark.long
def test_a_run_killed_on_two_ranks_under_zero_3_ends_on_one(
    inputs: dict[str, Path], alone: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    check_resuming(inputs, alone, tmp_path, cases=((2, 3), (1, 3)), phase="update")


@pytest.mark.matrix
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(
    "cases",
    [
        *(((2, zero), (2, zero)) for zero in (1, 2, 3)),
        ((2, 3), (1, 2)),
        ((2, 3), (2, 1)),
        ((1, 2), (2, 3)),
        ((2, 1), (2, 3)),
    ],
    ids=str,
)
def test_resuming(
    inputs: dict[str, Path],
    alone: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    *,
    cases: tuple[Case, Case],
    phase: str,
) -> None:
    check_resuming(inputs, alone, tmp_path, cases=cases, phase=phase)


def check_rejection(inputs: dict[str, Path], tmp_path: Path, **changes: Any) -> None:
    folders = inputs_of("rejection", inputs)
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    rejection_stage.run(rejection(), folders, one)
    trainer = rejection().trainer | {"per_device_train_batch_size": 2}
    settings = rejection(trainer=trainer, **changes)
    on_deepspeed_ranks(2, lambda: rejection_stage.run(settings, folders, two), tmp_path, SECONDS)
    for name in ("samples.jsonl", "selection.jsonl"):
        ours, theirs = read_rows(two / name), read_rows(one / name)
        assert [row["prompt"] for row in ours] == [row["prompt"] for row in theirs]
    assert [row["answer_ids"] for row in read_rows(two / "samples.jsonl")] == [
        row["answer_ids"] for row in read_rows(one / "samples.jsonl")
    ]
    assert difference(one, two) < EXACT


@pytest.mark.long
def test_rejection_sampling_under_zero_3_with_sharded_reward_models(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    check_rejection(inputs, tmp_path, deepspeed=zero_file(3), frozen_models="sharded")


@pytest.mark.matrix
@pytest.mark.parametrize("frozen_models", ["whole", "sharded", "offloaded"])
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_rejection_sampling(
    inputs: dict[str, Path], tmp_path: Path, zero: int, *, frozen_models: str
) -> None:
    check_rejection(inputs, tmp_path, deepspeed=zero_file(zero), frozen_models=frozen_models)
