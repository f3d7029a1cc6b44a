"""A decoding step of constant shape, which CUDA can capture as a graph and replay.

A plain step attends to one more slot of the cache each time, so it can't be replayed: Python launches every
kernel of every step, which takes longer than the kernels of a small model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .cache import Room
from .decoder import Decoder
from .weights import LlamaWeights

# The number of slots that a step attends to is a multiple of this, so a graph serves that many steps at most.
SLOTS = 128

# Whether samplers replay graphs on CUDA. Off until the tests marked `gpu` have passed on one: the capture has
# never run on a GPU.
CUDA_GRAPHS = False


def new_decoder(weights: LlamaWeights, room: Room) -> Decoder:
    """The decoder that samplers use: on CUDA with `CUDA_GRAPHS` the static one."""
    static = CUDA_GRAPHS and weights.device.type == "cuda"
    return (StaticDecoder if static else Decoder)(weights, room)


class StaticDecoder(Decoder):
    """A `Decoder` with steps of the same shapes, memory addresses and kernels for `SLOTS` steps.

    The slot to write, the positions and the mask are tensors that each step changes in place. A step attends
    to whole blocks of slots, of which the mask hides those that are not filled yet.
    """

    def __init__(self, weights: LlamaWeights, room: Room) -> None:
        super().__init__(weights, room)
        self._slot = torch.zeros(1, dtype=torch.long, device=weights.device)
        self._graph: _Graph | None = None
        self._attended = 0  # slots that the last step with these rows attended to

    def add(self, prompts: list[list[int]], copies: list[int]) -> Tensor:
        """See `Decoder.add`."""
        logits = super().add(prompts, copies)
        self._reset()
        return logits

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder.step`; the next step overwrites the logits.

        The first step of a shape runs as it is, which initialises the libraries; the second is captured.
        """
        cache = self._cache
        slots = min(-(-(cache.filled + 1) // SLOTS) * SLOTS, cache.room.new_tokens)
        cache.filled += 1
        is_new = slots != self._attended
        if is_new:
            self._graph, self._attended = None, slots
        if is_new or tokens.device.type != "cuda":
            return self._static_step(tokens)
        if self._graph is None:
            self._graph = _Graph(self, tokens)
        return self._graph.replay(tokens)

    def keep(self, rows: Tensor) -> None:
        """See `Decoder.keep`."""
        super().keep(rows)
        self._reset()

    def _reset(self) -> None:
        """Prepares steps with other rows: hides the slots that are not filled."""
        self._graph, self._attended = None, 0
        self._slot.fill_(self._cache.filled)
        self._cache.mask[..., self._cache.filled :] = float("-inf")

    def _static_step(self, tokens: Tensor) -> Tensor:
        self._cache.mask.index_fill_(-1, self._slot, 0.0)
        logits = self._forward(tokens, self._attended)
        self._slot += 1
        self._positions += 1
        return logits

    def _write(self, index: int, keys: Tensor, values: Tensor) -> None:
        rows = slice(0, len(keys))
        self._cache.keys[index, rows].index_copy_(2, self._slot, keys.unsqueeze(2))
        self._cache.values[index, rows].index_copy_(2, self._slot, values.unsqueeze(2))


class _Graph:
    """The kernels of one static step, captured without being run. Never run on a GPU yet."""

    def __init__(self, decoder: StaticDecoder, tokens: Tensor) -> None:
        self._tokens = tokens.clone()
        self._graph = torch.cuda.CUDAGraph()
        # thread_local: what other threads call, such as NCCL's watchdog, does not end the capture
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._logits = decoder._static_step(self._tokens)

    def replay(self, tokens: Tensor) -> Tensor:
        self._tokens.copy_(tokens)
        self._graph.replay()
        return self._logits
