"""The rehearsal has the longest rows, and changes nothing."""

from __future__ import annotations

import copy
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from llamita.errors import LlamitaError
from llamita.jsonl import read_rows
from llamita.rlhf.ppo import rehearsal, stage
from llamita.rlhf.ppo.loading import EngineConfigs
from llamita.rlhf.ppo.rehearsal import longest, rehearse
from llamita.rlhf.ppo.trainer import PpoTrainer
from llamita.training.engine import Engine

from ...helpers.ppo_trainer import trainer
from ...helpers.rlhf import inputs_of, make_inputs, ppo
from ...helpers.two_ranks import on_deepspeed_ranks, on_two_deepspeed_ranks

MOMENTS = "exp_avg", "exp_avg_sq"  # of Adam
OPTIONS: dict[str, Any] = {
    "critic_warmup_iterations": 1,
    "episodes": 32,
    "iterations": 3,
    "micro_batch_size": 2,
}


def state(ppo: PpoTrainer) -> list[object]:
    engines = [
        part
        for engine in (ppo.policy, ppo.critic)
        for part in (engine.module.state_dict(), engine._optimizer.state_dict())
    ]
    drawn = [torch.rand(4), random.random(), np.random.rand()]  # noqa: NPY002  # the global generator
    return [copy.deepcopy(part) for part in (*engines, *drawn)]


def seeded() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002  # the global generator


def run(*, rehearsed: bool) -> tuple[list[dict[str, float]], list[object]]:
    """Three iterations; a rehearsal before the first and before the third, as after resuming."""
    ppo, history = trainer(**OPTIONS), []
    for iteration in (1, 2, 3):
        if rehearsed and iteration != 2:
            rehearse(ppo)
        history.append(ppo.iterate(iteration))
    return [{n: v for n, v in row.items() if "second" not in n} for row in history], state(ppo)


def test_it_changes_nothing() -> None:
    ppo = trainer(**OPTIONS)
    for iteration in (1, 2):  # the optimizers have moments
        ppo.iterate(iteration)
    seeded()
    before = state(ppo)
    seeded()
    rehearse(ppo)
    torch.testing.assert_close(state(ppo), before, atol=0, rtol=0)
    assert all(p.grad is None for p in (*ppo.policy.module.parameters(), *ppo.critic.module.parameters()))
    assert all(engine.step.__self__ is engine for engine in (ppo.policy, ppo.critic)), "steps are taken again"
    (metrics, final), (expected, whole) = run(rehearsed=True), run(rehearsed=False)
    assert metrics == expected
    torch.testing.assert_close(final[:4], whole[:4], atol=0, rtol=0)


def test_rows_are_as_long_as_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = trainer(**OPTIONS)
    seen: dict[str, list[tuple[int, ...]]] = {"policy": [], "critic": []}
    for name in seen:
        engine = getattr(ppo, name)
        original = engine.backward

        def backward(loss: Any, *, last: bool, name: str = name, original: Any = original) -> None:
            seen[name].append((last,))
            original(loss, last=last)

        monkeypatch.setattr(engine, "backward", backward)
    shapes = []
    before_update = ppo._passes.before_update

    def passed(episodes: Any, rows: Any) -> Any:
        batch = before_update(episodes, rows)
        shapes.append((tuple(batch.ids.shape), int(batch.mask.sum())))
        return batch

    monkeypatch.setattr(ppo._passes, "before_update", passed)
    rehearse(ppo)
    chosen = longest(ppo.prompts, 32)
    lengths = [len(prompt.ids) for prompt in chosen]
    assert lengths[:20] == sorted((len(prompt.ids) for prompt in ppo.prompts), reverse=True)
    assert lengths[20:] == lengths[:12], "20 prompts fill 32 places"
    assert max(width for (_, width), _ in shapes) == max(lengths) + 6
    assert {tokens for _, tokens in shapes} == {2 * 6}, "every answer has max_new_tokens"
    assert [len(calls) for calls in seen.values()] == [8, 8], "a mini-batch of 16 in micro-batches of 2"


def test_the_first_steps_moments_are_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    reserved, held = list[int](), list[weakref.ref[torch.Tensor]]()
    original = rehearsal._reserve

    def reserve(engine: Engine) -> torch.Tensor:
        memory = original(engine)
        reserved.append(memory.numel())
        held.append(weakref.ref(memory))
        return memory

    def beside_both(name: str) -> Callable[..., Any]:
        work = getattr(ppo, name)

        def call(*args: Any, **options: Any) -> Any:
            assert [memory() is not None for memory in held] == [True, True], name
            return work(*args, **options)

        return call

    monkeypatch.setattr(rehearsal, "_reserve", reserve)
    ppo = trainer(**OPTIONS)
    with monkeypatch.context() as patch:
        for name in ("sample", "score", "first_passes", "update"):
            patch.setattr(ppo, name, beside_both(name))
        rehearse(ppo)
    sizes = [
        sum(parameter.numel() for parameter in engine.module.parameters())
        for engine in (ppo.policy, ppo.critic)
    ]
    assert reserved == [8 * size for size in sizes]
    ppo.iterate(1)  # only the critic takes steps
    rehearse(ppo)
    assert reserved[2:] == [8 * sizes[0], 0]


def test_memory_that_runs_out_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = trainer(**OPTIONS)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")

    monkeypatch.setattr(ppo.policy, "backward", full)
    with pytest.raises(LlamitaError, match=r"the rehearsal of PPO.*\(updating\).*max_tokens_per_micro"):
        rehearse(ppo)


def test_a_stage_rehearses_at_every_start(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_of("ppo", make_inputs(tmp_path / "inputs", tokenizer))
    chosen = ppo(save_iterations=1, max_new_tokens=6, held_out=2, eval_iterations=1)
    stage.run(chosen, inputs, tmp_path / "without")
    ran: list[int] = []
    iterate, rehearse = PpoTrainer.iterate, rehearsal.rehearse

    def killed(self: PpoTrainer, iteration: int) -> dict[str, float]:
        ran.append(iteration)
        if ran == [0, 1, 2]:
            raise KeyboardInterrupt
        return iterate(self, iteration)

    def counted(trainer: PpoTrainer) -> None:
        ran.append(0)
        rehearse(trainer)

    monkeypatch.setattr(PpoTrainer, "iterate", killed)
    monkeypatch.setattr(rehearsal, "is_due", lambda: True)
    monkeypatch.setattr(rehearsal, "rehearse", counted)
    with pytest.raises(KeyboardInterrupt):
        stage.run(chosen, inputs, tmp_path / "with")
    stage.run(chosen, inputs, tmp_path / "with")
    stage.run(chosen, inputs, tmp_path / "with")
    assert ran == [0, 1, 2, 0, 2], "a finished run rehearses nothing"
    rows = [
        [{name: value for name, value in row.items() if "second" not in name} for row in read_rows(path)]
        for path in (tmp_path / "with" / "metrics.jsonl", tmp_path / "without" / "metrics.jsonl")
    ]
    assert rows[0] == rows[1]


def under_zero(stage: int, ranks: int) -> EngineConfigs:
    sizes = {
        "train_micro_batch_size_per_gpu": 8,
        "gradient_accumulation_steps": 1,
        "train_batch_size": 8 * ranks,
    }
    config: dict[str, Any] = {"zero_optimization": {"stage": stage}, **sizes}
    return EngineConfigs(config, config)


@pytest.mark.parametrize("stage", [2, 3])
def test_what_is_reserved_is_what_the_first_step_allocates_under_zero(tmp_path: Path, stage: int) -> None:
    def work() -> list[tuple[int, int, int]]:
        one = trainer(
            **OPTIONS | {"deepspeed": "unread", "micro_batch_size": 8, "episodes": 8, "mini_batch_size": 8},
            configs=under_zero(stage, 1),
        )
        engines = one.policy, one.critic
        before = [engine.unallocated_state for engine in engines]
        for iteration in (1, 2, 3):  # the policy is trained after the critic's warm-up
            one.iterate(iteration)
        moments = [
            sum(state[name].nbytes for state in engine._optimizer.state.values() for name in MOMENTS)
            for engine in engines
        ]
        return list(zip(before, moments, [engine.unallocated_state for engine in engines], strict=True))

    (found,) = on_deepspeed_ranks(1, work, tmp_path)
    for before, moments, after in found:
        assert (before, after) == (moments, 0)
        assert moments > 0


@pytest.mark.long
@pytest.mark.parametrize("stage", [2, 3])
def test_it_changes_nothing_under_zero(tmp_path: Path, stage: int) -> None:
    configs = under_zero(stage, 2)

    def work() -> list[Any]:
        found = []
        for rehearsed in (False, True):
            one = trainer(
                **OPTIONS | {"deepspeed": "unread", "micro_batch_size": 8, "episodes": 16}, configs=configs
            )
            history = []
            for iteration in (1, 2):
                if rehearsed:
                    rehearse(one)
                history.append({n: v for n, v in one.iterate(iteration).items() if "second" not in n})
            found.append((history, [weight.detach() for weight in one.policy.module.parameters()]))
        return found

    for (history, weights), (others, rehearsed) in on_two_deepspeed_ranks(work, tmp_path):
        assert others == history
        assert all(torch.equal(one, other) for one, other in zip(weights, rehearsed, strict=True))
