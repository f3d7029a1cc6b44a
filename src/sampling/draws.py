"""Randomness of sampling: every draw has a name, so none depends on its neighbours in the batch."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int | str, names: list[tuple[int, int]], steps: int) -> Tensor:
    """One number in [0, 1) for each (seed, name, step), from the counter-based Philox generator.

    Args:
        seed: any integer or text.
        names: (prompt key, sample number) of each row.
        steps: draws a row.

    Returns:
        `[rows, steps]` float64. A row depends on the seed and its own name only; longer rows begin alike.
    """
    key = int.from_bytes(hashlib.sha256(str(seed).encode()).digest()[:16], "little")
    table = np.empty((len(names), steps))
    for row, (prompt, sample) in enumerate(names):
        # The low words of the counter advance with the steps; the high words are ours to name the row.
        counter = (prompt % 2**64 << 192) | (sample % 2**64 << 128)
        table[row] = np.random.Generator(np.random.Philox(key=key, counter=counter)).random(steps)
    return torch.from_numpy(table)


def draw(logprobs: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-CDF sampling.

    Args:
        logprobs: `[rows, vocabulary]` fp32, normalised; a token at -inf is never drawn.
        uniform: `[rows]` float64 in [0, 1).

    Returns:
        `[rows]` int64 token ids.
    """
    # In double precision the sum over a whole vocabulary keeps the rare tokens' share.
    cumulative = logprobs.double().exp_().cumsum(-1)
    target = uniform[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)
