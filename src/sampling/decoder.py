"""A Llama's forward pass for sampling with a key-value cache: a prefill, then one token per row and step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..batches import tokens_at_once
from ..model.padding import pad_right
from .cache import Cache, Room
from .weights import LayerWeights, LlamaWeights


class Decoder:
    """Decodes answers to prompts: every `step` extends each of them by one token.

    Prompts are padded on the right, so their forward pass needs only a causal mask: no real token attends to
    a pad. Each row has its own *position* for the rotary embedding; `Cache` hides pads, and slots that are
    older than a row.
    """

    def __init__(self, weights: LlamaWeights, room: Room) -> None:
        self.weights, self.room = weights, room
        self._cache = Cache(weights, room)
        self._positions = torch.zeros(0, dtype=torch.long, device=weights.device)

    @property
    def is_full(self) -> bool:
        """Whether `keep` must drop the oldest rows before the next `step`."""
        return self._cache.filled == self.room.new_tokens

    @property
    def prompts(self) -> int:
        """Number of prompts in the cache."""
        return len(self._cache.lengths)

    @property
    def has_room(self) -> bool:
        """Whether `add` can add a row with a further prompt."""
        return self.prompts < self.room.prompts and len(self._positions) < self.room.rows

    @torch.no_grad()
    def add(self, prompts: list[list[int]], copies: list[int]) -> Tensor:
        """Runs the forward pass of each prompt once, and adds rows behind the others.

        Args:
            prompts: token ids, none empty.
            copies: index, in `prompts`, of the prompt that each new row continues.

        Returns:
            `[new rows, vocabulary]` logits (fp32) of the first new token.
        """
        device = self.weights.device
        lengths = [len(prompt) for prompt in prompts]
        places = self._cache.add(lengths, copies)
        index = torch.tensor(copies, device=device)
        self._positions = torch.cat((self._positions, torch.tensor(lengths, device=device)[index]))
        at_once = max(1, tokens_at_once(device) // max(lengths))
        last = [
            self._prefill(prompts[start : start + at_once], places.start + start)
            for start in range(0, len(prompts), at_once)
        ]
        return self._logits(torch.cat(last))[index]

    def _prefill(self, prompts: list[list[int]], first: int) -> Tensor:
        """Fills the cache of the prompts from place `first` on; returns `[prompts, width]` last states."""
        weights = self.weights
        ids, last = pad_right(prompts)
        places = slice(first, first + len(prompts)), slice(None), slice(0, ids.shape[1])

        rotation = self._rotation(torch.arange(ids.shape[1], device=weights.device))
        hidden = weights.embedding[ids.to(weights.device)]
        for index, layer in enumerate(weights.layers):
            queries, keys, values = (part.transpose(1, 2) for part in self._project(layer, hidden, rotation))
            self._cache.prompt_keys[index][places] = keys
            self._cache.prompt_values[index][places] = values
            attended = F.scaled_dot_product_attention(
                queries, keys, values, is_causal=True, enable_gqa=weights.heads != weights.kv_heads
            )
            hidden = self._finish_layer(layer, hidden, attended.transpose(1, 2))
        return hidden[torch.arange(len(prompts)), last]

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Appends `tokens` (`[rows]` int64); returns the next token's fp32 logits, `[rows, vocabulary]`."""
        logits = self._forward(tokens, self._cache.filled + 1)
        self._cache.filled += 1
        self._positions = self._positions + 1
        return logits

    def _forward(self, tokens: Tensor, slots: int) -> Tensor:
        """The forward pass of one token per row, which attends to the first `slots` of the answers."""
        rotation = self._rotation(self._positions)
        hidden = self.weights.embedding[tokens]
        for index, layer in enumerate(self.weights.layers):
            queries, keys, values = self._project(layer, hidden, rotation)
            self._write(index, keys, values)
            hidden = self._finish_layer(layer, hidden, self._cache.attend(index, queries, slots))
        return self._logits(hidden)

    def _write(self, index: int, keys: Tensor, values: Tensor) -> None:
        self._cache.write(index, keys, values)

    def keep(self, rows: Tensor) -> None:
        """Keeps only these rows (`[kept]` int64, ascending indices into the current rows)."""
        self._cache.keep(rows.tolist())
        self._positions = self._positions[rows]

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, `[positions, 1, head_dim]` each; the first half of the sine is negated."""
        angles = positions[:, None].float() * self.weights.rotary_frequencies
        cos, sin = (angles.cos() * self.weights.rotary_scale, angles.sin() * self.weights.rotary_scale)
        rotation = torch.cat((cos, cos), -1)[:, None], torch.cat((-sin, sin), -1)[:, None]
        return rotation[0].to(self.weights.dtype), rotation[1].to(self.weights.dtype)

    def _project(
        self, layer: LayerWeights, hidden: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries `[..., heads, head_dim]`, rotated keys and values `[..., kv_heads, head_dim]`."""
        weights = self.weights
        normed = F.rms_norm(hidden, (hidden.shape[-1],), layer.attention_norm, weights.norm_eps)
        joined = _linear(normed, layer.qkv, layer.qkv_bias).unflatten(-1, (-1, weights.head_dim))
        unrotated, values = joined.split((weights.heads + weights.kv_heads, weights.kv_heads), dim=-2)
        cos, sin = rotation
        rotated = torch.addcmul(unrotated * cos, unrotated.roll(weights.head_dim // 2, -1), sin)
        queries, keys = rotated.split((weights.heads, weights.kv_heads), dim=-2)
        return queries, keys, values

    def _finish_layer(self, layer: LayerWeights, hidden: Tensor, attended: Tensor) -> Tensor:
        """Output projection and feed-forward with their residuals; `attended` is `[..., heads, head_dim]`."""
        width = hidden.shape[-1]
        flat = hidden.reshape(-1, width)
        flat = _add_linear(flat, attended.reshape(len(flat), -1), layer.output, bias=layer.output_bias)
        normed = F.rms_norm(flat, (width,), layer.mlp_norm, self.weights.norm_eps)
        gate, up = _linear(normed, layer.gate_up, layer.gate_up_bias).chunk(2, dim=-1)
        flat = _add_linear(flat, F.silu(gate).mul_(up), layer.down, bias=layer.down_bias)
        return flat.view(hidden.shape)

    def _logits(self, hidden: Tensor) -> Tensor:
        normed = F.rms_norm(hidden, (hidden.shape[-1],), self.weights.norm, self.weights.norm_eps)
        return (normed @ self.weights.head).float()


def _linear(inputs: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    product = inputs @ matrix
    return product if bias is None else product + bias


def _add_linear(residual: Tensor, inputs: Tensor, matrix: Tensor, *, bias: Tensor | None) -> Tensor:
    total = torch.addmm(residual, inputs, matrix)
    return total if bias is None else total + bias
