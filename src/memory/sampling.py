"""What sampling holds on each GPU: the sampler's weights and the key-value cache.

Counted in `sampling/decoder.py` and `sampling/weights.py`. Every rank has whole weights: sampling does not
use ZeRO.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import DataError
from ..rlhf.settings import RlhfSettings
from . import passes
from .engine import FP32
from .moments import Parts
from .shape import Shape

# Share of a batch's rows that remain when finished ones are first dropped: their cache moves, layer by layer.
REMAINING = 0.8  # 1 - FINISHED_SHARE of sampling/llama.py


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

    @classmethod
    def of(cls, settings: RlhfSettings, config: Mapping[str, Any], answers: int) -> Batch:
        """The largest batch of a rank that samples so many answers; `config`: content of `config.json`.

        Raises DataError if `config` has no context length, or one that is too short for an answer.
        """
        new, prompt = settings.max_new_tokens, settings.max_prompt_length
        if prompt is None:
            context = config.get("max_position_embeddings")
            if not context:
                raise DataError(
                    "config.json: max_position_embeddings: missing; add it, or set max_prompt_length in the "
                    "stage's YAML"
                )
            if context <= new + 1:
                raise DataError(
                    f"max_new_tokens {new} leaves no room for a prompt in max_position_embeddings {context} "
                    "of config.json; choose a lower one"
                )
            prompt = int(context) - new - 1  # `rlhf/prompts.py: read_pool`
        return cls(max(1, min(answers, settings.sampling_cache_tokens // (prompt + new))), prompt, new)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with its answer."""
        return self.prompt + self.new


def cache(shape: Shape, width: int, batch: Batch) -> int:
    """Keys and values of all layers; `width`: bytes of a number."""
    return 2 * width * shape.num_hidden_layers * batch.rows * batch.longest * shape.keys


def sampler(shape: Shape, width: int) -> int:
    """The sampler's copy of a model's weights, in which tied embeddings are stored twice."""
    return width * (shape.parameters + (shape.embeddings if shape.tie_word_embeddings else 0))


def sampling(shape: Shape, width: int, batch: Batch) -> Parts:
    """Parts while answers are sampled, at most.

    `sampler`; `cache`, with a copy of one layer's keys of the remaining rows; `activations` of prompts that
    are read at once; `logits` of one token, fp32: logits, log-probabilities, probabilities.
    """
    held = cache(shape, width, batch)
    tokens = min(batch.rows * batch.prompt, max(batch.prompt, passes.SCORED_AT_ONCE))
    return {
        "sampler": sampler(shape, width),
        "cache": held + int(REMAINING * held) // (2 * shape.num_hidden_layers),
        "activations": width * tokens * (3 * shape.hidden_size + 3 * shape.intermediate_size),
        "logits": 3 * FP32 * batch.rows * shape.vocab_size,
    }
