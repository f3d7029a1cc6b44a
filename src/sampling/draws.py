"""Random numbers of sampling: each is determined by a name, so it doesn't depend on the rest of the batch."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int | str, names: list[tuple[int, int]], steps: int) -> Tensor:
    """One uniform number in [0, 1) per (seed, name, step), from the counter-based Philox generator.

    Args:
        seed: any integer or text.
        names: (prompt key, sample number) of each row.
        steps: number of draws per row.

    Returns:
        `[rows, steps]` float64. A row depends only on the seed and its name; more steps extend it.
    """
    key = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:16], "little")
    table = np.empty((len(names), steps))
    for row, (prompt, sample) in enumerate(names):
        # The generator increments the low words of the counter; the high words hold the row's name.
        counter = (prompt % 2**64 << 192) | (sample % 2**64 << 128)
        table[row] = np.random.Generator(np.random.Philox(key=key, counter=counter)).random(steps)
    return torch.from_numpy(table)


def draw(logprobs: Tensor, uniform: Tensor) -> Tensor:
    """Samples one token per row by inverting the cumulative distribution.

    Args:
        logprobs: `[rows, vocabulary]` fp32, normalised; a token at -inf is never sampled.
        uniform: `[rows]` float64 in [0, 1).

    Returns:
        `[rows]` int64 token ids.
    """
    # In double precision the cumulative sum over the vocabulary preserves small probabilities.
    cumulative = logprobs.double().exp_().cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)
