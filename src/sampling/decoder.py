"""A Llama's forward pass for sampling with a key-value cache: a prefill, then one token per row and step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..batches import tokens_at_once
from ..model.padding import pad_right
from .beginnings import clusters
from .weights import LayerWeights, LlamaWeights


class Decoder:
    """Caches keys and values of a batch of sequences; every `step` extends each of them by one token.

    A long beginning that prompts have in common, such as worked examples, is processed once.

    Prompts are padded on the right, so the prefill needs only a causal mask: no real token attends to a pad.
    The new tokens of all rows are written to the same slot of the cache, after the longest prompt. Each row
    has its own *position* for the rotary embedding, and `_mask` hides the pads between a shorter prompt and
    the new tokens.
    """

    def __init__(self, weights: LlamaWeights) -> None:
        self.weights = weights

    @torch.no_grad()
    def prefill(self, prompts: list[list[int]], copies: Tensor, new_tokens: int) -> Tensor:
        """Runs the forward pass of each prompt once; row i then continues prompt `copies[i]`.

        Args:
            prompts: token ids, none empty.
            copies: `[rows]` int64, index of the prompt that each row continues.
            new_tokens: number of cache slots to reserve for `step`.

        Returns:
            `[rows, vocabulary]` logits (fp32) of the first new token.
        """
        weights = self.weights
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=weights.device)
        longest = int(lengths.max())
        copies = copies.to(weights.device)
        shape = (len(weights.layers), len(copies), weights.kv_heads, longest + new_tokens, weights.head_dim)
        self._keys = torch.empty(shape, dtype=weights.dtype, device=weights.device)
        self._values = torch.empty_like(self._keys)
        self._filled = longest
        self._positions = lengths[copies]
        self._mask = self._padding_mask(self._positions, shape[3])

        groups = clusters(prompts, [len(prompt) - 1 for prompt in prompts])
        parts = [
            (rows[start : start + at_once], shared)
            for shared, rows in groups
            for at_once in [max(1, tokens_at_once(weights.device) // (longest - shared))]
            for start in range(0, len(rows), at_once)
        ]
        if len(parts) > 1:  # shorter parts leave slots unwritten: masked ones too must be finite
            self._keys[..., :longest, :] = self._values[..., :longest, :] = 0
        for shared, rows in groups:
            if shared:
                members = torch.isin(copies, torch.tensor(rows, device=weights.device))
                self._prefill_part([prompts[rows[0]][:shared]], members.long() - 1)
        order = torch.tensor([row for rows, _ in parts for row in rows], device=weights.device)
        places = order.argsort()[copies]
        last, done = [], 0
        for rows, shared in parts:
            last.append(self._prefill_part([prompts[row][shared:] for row in rows], places - done, shared))
            done += len(rows)
        return self._logits(torch.cat(last))[places]

    def _prefill_part(self, prompts: list[list[int]], copies: Tensor, start: int = 0) -> Tensor:
        """Fills the cache of the rows that continue these prompts; returns `[prompts, width]` last states.

        The first `start` slots of the rows are filled already, with the same tokens in every row.
        """
        weights = self.weights
        rows = ((copies >= 0) & (copies < len(prompts))).nonzero().squeeze(-1)
        sources = copies[rows]
        ids, last = pad_right(prompts)
        slots = slice(start, start + ids.shape[1])
        mask = _causal_mask(ids.shape[1], start, weights.device) if start else None

        rotation = self._rotation(torch.arange(start, slots.stop, device=weights.device))
        hidden = weights.embedding[ids.to(weights.device)]
        for index, layer in enumerate(weights.layers):
            queries, keys, values = self._project(layer, hidden, rotation)
            keys, values = keys.transpose(1, 2), values.transpose(1, 2)
            self._keys[index, rows, :, slots] = keys[sources]
            self._values[index, rows, :, slots] = values[sources]
            if start:
                first = self._keys[index, rows[:1], :, :start], self._values[index, rows[:1], :, :start]
                keys, values = (
                    torch.cat((old.expand(len(prompts), -1, -1, -1), new), dim=2)
                    for old, new in zip(first, (keys, values), strict=True)
                )
            attended = F.scaled_dot_product_attention(
                queries.transpose(1, 2),
                keys,
                values,
                attn_mask=mask,
                is_causal=mask is None,
                enable_gqa=weights.heads != weights.kv_heads,
            )
            hidden = self._finish_layer(layer, hidden, attended.transpose(1, 2))
        return hidden[torch.arange(len(prompts)), last]

    @torch.no_grad()
    def step(self, tokens: Tensor) -> Tensor:
        """Appends `tokens` (`[rows]` int64); returns the next token's fp32 logits, `[rows, vocabulary]`."""
        slots = self._filled + 1
        logits = self._forward(tokens, slots, None if self._mask is None else self._mask[..., :slots])
        self._filled = slots
        self._positions = self._positions + 1
        return logits

    def _forward(self, tokens: Tensor, slots: int, mask: Tensor | None) -> Tensor:
        """The forward pass of one token per row, which attends to the first `slots` of the cache."""
        weights = self.weights
        rotation = self._rotation(self._positions)
        hidden = weights.embedding[tokens]
        for index, layer in enumerate(weights.layers):
            queries, keys, values = self._project(layer, hidden, rotation)
            self._write(index, keys, values)
            # Query heads that share a key head become the time dimension of the query, so no key is repeated.
            attended = F.scaled_dot_product_attention(
                queries.view(len(tokens), weights.kv_heads, -1, weights.head_dim),
                self._keys[index, :, :, :slots],
                self._values[index, :, :, :slots],
                attn_mask=mask,
            )
            hidden = self._finish_layer(layer, hidden, attended)
        return self._logits(hidden)

    def _write(self, index: int, keys: Tensor, values: Tensor) -> None:
        """Stores keys and values of the new tokens, `[rows, kv_heads, head_dim]`, in the next slot."""
        self._keys[index, :, :, self._filled] = keys
        self._values[index, :, :, self._filled] = values

    def keep(self, rows: Tensor) -> None:
        """Keeps only these rows (`[kept]` int64, ascending indices into the current rows).

        They move up inside the cache layer by layer: a copy of the whole cache may not fit beside it.
        """
        for cache in (self._keys, self._values):
            for layer in cache[..., : self._filled, :]:
                layer[: len(rows)] = layer[rows]
        self._keys, self._values = self._keys[:, : len(rows)], self._values[:, : len(rows)]
        self._positions = self._positions[rows]
        if self._mask is not None:
            self._mask = self._mask[rows]

    def _padding_mask(self, lengths: Tensor, slots: int) -> Tensor | None:
        """Additive mask `[rows, 1, 1, slots]`, or None if all prompts have the same length."""
        if bool((lengths == self._filled).all()):
            return None
        slot = torch.arange(slots, device=lengths.device)
        padded = (slot >= lengths[:, None]) & (slot < self._filled)
        mask = torch.zeros(padded.shape, dtype=self.weights.dtype, device=lengths.device)
        return mask.masked_fill_(padded, float("-inf"))[:, None, None]

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


def _causal_mask(tokens: int, before: int, device: torch.device) -> Tensor:
    """`[tokens, before + tokens]` bool: each token attends to the `before` earlier ones, and causally."""
    whole = torch.ones(tokens, before + tokens, dtype=torch.bool, device=device)
    return whole.tril(before)


def _linear(inputs: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    product = inputs @ matrix
    return product if bias is None else product + bias


def _add_linear(residual: Tensor, inputs: Tensor, matrix: Tensor, *, bias: Tensor | None) -> Tensor:
    total = torch.addmm(residual, inputs, matrix)
    return total if bias is None else total + bias
