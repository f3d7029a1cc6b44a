"""Activations and logits against those of transformers' Llama at the paper's width, in three layers."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from llamita.memory.engine import Engine, Precision
from llamita.memory.passes import (
    PART,
    Loss,
    MicroBatch,
    backward,
    backward_copies,
    copies,
    evaluation,
    logits,
    stored,
)
from llamita.memory.shape import Shape
from llamita.sampling import output_layer

from ..helpers.peak_memory import passes

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 3,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
TOKENS = 4096


def engine_of(precision: Precision, *, caches_copies: bool = True) -> Engine:
    return Engine(1, 0 if precision == "bf16" else None, precision, caches_copies=caches_copies)


def predicted(config: dict[str, Any], loss: Any, engine: Engine, checkpointing: bool) -> tuple[int, int]:
    """Bytes when the backward pass begins (without logits), and at most, as `account_of` adds them up."""
    shape = Shape.from_config(config, scores=loss == "scores")
    batch = MicroBatch(TOKENS, loss, checkpointing, TOKENS // 2)
    held = stored(shape, engine, batch)
    copied = copies(shape, engine, loss, saved=not checkpointing)
    of_layer = backward(shape, engine, batch) + backward_copies(shape, engine, batch)
    gradient = (4 if engine.precision == "fp32" else 2) * shape.hidden_size * shape.intermediate_size
    most = max(held + copied + logits(shape, engine, batch), of_layer + gradient)
    return held + (0 if checkpointing else copied), most


@pytest.mark.parametrize("heads", [8, 32])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("loss", ["whole", "scores"])
def test_bytes_are_those_of_both_passes(
    loss: Loss, precision: Precision, checkpointing: bool, heads: int
) -> None:
    config = CONFIG | {"num_key_value_heads": heads}
    found = passes(config, TOKENS, loss=loss, precision=precision, checkpointing=checkpointing)
    held, peak = predicted(config, loss, engine_of(precision), checkpointing)
    if loss == "scores":  # otherwise log-probabilities are held as well
        assert held == pytest.approx(found.stored, rel=0.03)
    assert 0.95 * found.peak < peak < 1.1 * found.peak
    shape = Shape.from_config(config, scores=loss == "scores")
    evaluated = evaluation(shape, engine_of(precision), TOKENS, loss=loss)
    assert 0.95 * found.evaluation < evaluated < 1.1 * found.evaluation


def test_a_fused_head_holds_no_logits() -> None:
    """On a CPU its tiles are copied to fp32 several times, so its own peak is higher than on a GPU."""
    found = passes(CONFIG, TOKENS, loss="chunked", precision="bf16", checkpointing=False)
    held, peak = predicted(CONFIG, "chunked", engine_of("bf16"), False)
    assert held == pytest.approx(found.stored, rel=0.03)
    assert held < peak < found.peak


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_log_probabilities_of_answers_hold_a_part_of_the_logits(
    precision: Precision, checkpointing: bool
) -> None:
    """PPO's policy; half of the tokens are answers."""
    found = passes(CONFIG, TOKENS, loss="answers", precision=precision, checkpointing=checkpointing)
    held, peak = predicted(CONFIG, "answers", engine_of(precision), checkpointing)
    assert 0.99 * found.stored < held < 1.1 * found.stored  # the last norm counts all tokens, not the answers
    assert peak == pytest.approx(found.peak, rel=0.05)
    shape = Shape.from_config(CONFIG)
    evaluated = evaluation(shape, engine_of(precision), TOKENS, loss="answers")
    assert evaluated == pytest.approx(found.evaluation, rel=0.02)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("loss", ["answers", "scores"])
def test_ppo_without_deepspeed_caches_no_copies_of_weights(loss: Loss, checkpointing: bool) -> None:
    """As `model/precision.py: computing_in` casts."""
    found = passes(
        CONFIG, TOKENS, loss=loss, precision="autocast", checkpointing=checkpointing, caches_copies=False
    )
    engine = engine_of("autocast", caches_copies=False)
    held, peak = predicted(CONFIG, loss, engine, checkpointing)
    assert held == pytest.approx(found.stored, rel=0.1)
    assert peak == pytest.approx(found.peak, rel=0.1)
    shape = Shape.from_config(CONFIG, scores=loss == "scores")
    evaluated = evaluation(shape, engine, TOKENS, loss=loss)
    assert evaluated == pytest.approx(found.evaluation, rel=0.1)


def test_the_part_is_that_of_the_code() -> None:
    assert output_layer._PART == PART
