"""A decoding step of constant shape, which CUDA can capture as a graph and replay.

A plain step attends to one more slot of the cache each time, so it can't be replayed: Python launches every
kernel of every step, which takes longer than the kernels of a small model.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .decoder import Decoder
from .weights import LlamaWeights

# The number of slots that a step attends to is a multiple of this, so a graph serves that many steps at most.
SLOTS = 128

# Whether samplers replay graphs on CUDA. Off until the tests marked `gpu` have passed on one: the capture has
# never run on a GPU.
CUDA_GRAPHS = False


def new_decoder(weights: LlamaWeights) -> Decoder:
    """The decoder that samplers use: on CUDA with `CUDA_GRAPHS` the static one."""
    return StaticDecoder(weights) if CUDA_GRAPHS and weights.device.type == "cuda" else Decoder(weights)


class StaticDecoder(Decoder):
    """A `Decoder` with steps of the same shapes, memory addresses and kernels for `SLOTS` steps.

    The slot to write, the positions and the mask are tensors that each step changes in place. A step attends
    to whole blocks of slots, of which the mask hides those that are not filled yet.
    """

    def prefill(self, prompts: list[list[int]], copies: Tensor, new_tokens: int) -> Tensor:
        """See `Decoder.prefill`."""
        logits = super().prefill(prompts, copies, new_tokens)
        # Masked slots get the weight 0, which makes NaN of an infinite value: unwritten ones must be finite.
        self._keys[..., self._filled :, :] = self._values[..., self._filled :, :] = 0
        if self._mask is None:
            self._mask = self._keys.new_zeros(len(copies), 1, 1, self._keys.shape[3])
        self._mask[..., self._filled :] = float("-inf")
        self._slot = torch.tensor([self._filled], device=self.weights.device)
        self._graph: _Graph | None = None
        self._attended = 0  # slots that the last step with these rows attended to
        return logits

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder.step`; the next step overwrites the logits.

        The first step of a shape runs as it is, which initialises the libraries; the second is captured.
        """
        slots = min(-(-(self._filled + 1) // SLOTS) * SLOTS, self._keys.shape[3])
        self._filled += 1
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
        self._graph, self._attended = None, 0

    def _static_step(self, tokens: Tensor) -> Tensor:
        assert self._mask is not None
        self._mask.index_fill_(-1, self._slot, 0.0)
        logits = self._forward(tokens, self._attended, self._mask[..., : self._attended])
        self._slot += 1
        self._positions += 1
        return logits

    def _write(self, index: int, keys: Tensor, values: Tensor) -> None:
        self._keys[index].index_copy_(2, self._slot, keys.unsqueeze(2))
        self._values[index].index_copy_(2, self._slot, values.unsqueeze(2))


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
