"""What sampling and scoring hold on each GPU: sampler, key-value cache and models that wait.

Counted in `sampling/decoder.py`, `sampling/weights.py` and `rlhf/rejection/stage.py`. Every rank has whole
models: sampling does not use ZeRO.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..rlhf.rejection.settings import RejectionSettings
from . import passes
from .account import Account, account
from .engine import BF16, FP32, Engine
from .shape import Shape

# Share of a batch's rows that remain when finished ones are first dropped: their cache moves, layer by layer.
REMAINING = 0.8  # 1 - FINISHED_SHARE of sampling/sampler.py


class Batch(NamedTuple):
    """Answers that are decoded together.

    Attributes:
        rows: number of answers.
        prompt: tokens of the longest prompt.
        new: maximum number of tokens of an answer.
    """

    rows: int
    prompt: int
    new: int


def cache(shape: Shape, width: int, batch: Batch) -> int:
    """Keys and values of all layers; `width`: bytes of a number."""
    slots = batch.rows * (batch.prompt + batch.new)
    return 2 * width * shape.num_hidden_layers * slots * shape.keys


def sampler(shape: Shape, width: int) -> int:
    """The sampler's copy of a model's weights, in which tied embeddings are stored twice."""
    return width * (shape.parameters + (shape.embeddings if shape.tie_word_embeddings else 0))


def sampling(shape: Shape, width: int, batch: Batch) -> dict[str, int]:
    """Parts while answers are sampled, at most.

    `idle`: the loaded model, from which the sampler has copied; `sampler`; `cache`, with a copy of
    one layer's keys of the remaining rows; `activations` of prompts that are read at once; `logits` of one
    token, fp32: logits, log-probabilities, probabilities.
    """
    held = cache(shape, width, batch)
    tokens = max(batch.prompt, passes.SCORED_AT_ONCE)
    return {
        "idle": width * shape.parameters,
        "sampler": sampler(shape, width),
        "cache": held + int(REMAINING * held) // (2 * shape.num_hidden_layers),
        "activations": width * tokens * (3 * shape.hidden_size + 3 * shape.intermediate_size),
        "logits": 3 * FP32 * batch.rows * shape.vocab_size,
    }


def scoring(shape: Shape, models: int, longest: int, *, bf16: bool) -> dict[str, int]:
    """Parts while reward models score answers one after the other: `weights` of one, `idle` of the others.

    Weights are in fp32. With `bf16`, autocast copies a matrix only for its product.
    """
    engine = Engine.plain(1, bf16=False)
    tokens = max(longest, passes.SCORED_AT_ONCE)
    width = BF16 if bf16 else FP32
    activations = tokens * (4 * FP32 * shape.hidden_size + 3 * width * shape.intermediate_size)
    return {
        "weights": engine.width * shape.parameters,
        "idle": engine.width * shape.parameters * (models - 1),
        "activations": activations,
    }


def rejection(
    settings: RejectionSettings, config: Mapping[str, Any], ranks: int, *, judge: bool = False
) -> dict[str, Account]:
    """What a rank of `rejection` holds on a GPU while it samples, scores and trains, one after the other.

    Without `lora`. The reward models, and with `judge` a third one, have the policy's shape.

    Raises as `account`.
    """
    width = BF16 if settings.dtype == "bfloat16" else FP32
    policy = Shape.from_config(config)
    prompts = -(-settings.prompts_per_round // ranks)
    new = settings.max_new_tokens
    prompt = settings.max_prompt_length or int(config["max_position_embeddings"]) - new
    fitting = max(1, settings.sampling_cache_tokens // (prompt + new))
    batch = Batch(min(fitting, settings.num_generations * prompts), prompt, new)
    scored = scoring(
        Shape.from_config(config, scores=True),
        3 if judge else 2,
        batch.prompt + batch.new,
        bf16=width == BF16,
    )
    return {
        "sampling": Account(sampling(policy, width, batch), {}, "sampling"),
        "scoring": Account(scored, {}, "scoring"),
        "training": account(settings, config, ranks),
    }
