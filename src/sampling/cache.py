"""The key-value cache of answers that are decoded together; the answers to one prompt share its keys.

Decoding reads the whole cache for each token, which limits its speed. So K answers to a prompt attend to one
copy of the prompt's keys and values: their queries are the rows of one matrix product.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .weights import LlamaWeights


class Room(NamedTuple):
    """What a cache has room for.

    Attributes:
        rows: number of answers.
        prompts: number of prompts.
        longest: tokens of a prompt.
        new_tokens: tokens of an answer.
    """

    rows: int
    prompts: int
    longest: int
    new_tokens: int


class Cache:
    """Keys and values of prompts, `[layers, prompts, kv_heads, longest, head_dim]`, and of answers,
    `[layers, rows, kv_heads, new_tokens, head_dim]`.

    Prompts are padded on the right. All answers write their next token to the same slot, also those that
    started later: `starts` has the slot of each answer's first token.

    Attributes:
        filled: number of slots that are filled.
        starts: first slot of each row.
        lengths: number of tokens of each prompt.
        prompt_of: index of each row's prompt.
        mask: additive mask of the answers' slots, `[rows * kv_heads, 1, new_tokens]`.
    """

    def __init__(self, weights: LlamaWeights, room: Room) -> None:
        self.room, self._weights = room, weights
        layers, heads, width = len(weights.layers), weights.kv_heads, weights.head_dim
        # Slots that are not written yet are multiplied by 0, so they must be finite.
        self.prompt_keys, self.prompt_values = (
            weights.embedding.new_zeros(layers, room.prompts, heads, room.longest, width) for _ in range(2)
        )
        self.keys, self.values = (
            weights.embedding.new_zeros(layers, room.rows, heads, room.new_tokens, width) for _ in range(2)
        )
        self.filled = 0
        self.starts: list[int] = []
        self.prompt_of: list[int] = []
        self.lengths: list[int] = []
        self._arrange()

    def add(self, lengths: list[int], prompt_of: list[int]) -> slice:
        """Adds rows behind the others; returns the places of their prompts, whose keys are to be written.

        Args:
            lengths: number of tokens of each new prompt.
            prompt_of: index of each new row's prompt, among the new ones.
        """
        first = len(self.lengths)
        self.lengths += lengths
        self.prompt_of += [first + prompt for prompt in prompt_of]
        self.starts += [self.filled] * len(prompt_of)
        self._arrange()
        return slice(first, len(self.lengths))

    def keep(self, rows: list[int]) -> None:
        """Keeps only these rows (ascending), and the prompts and slots that they need.

        They move up inside the cache layer by layer: a copy of the whole cache may not fit beside it.
        """
        starts, prompt_of = ([of_row[row] for row in rows] for of_row in (self.starts, self.prompt_of))
        first, prompts = min(starts, default=self.filled), sorted(set(prompt_of))
        _move((self.keys, self.values), rows, slice(first, self.filled))
        if len(prompts) < len(self.lengths):
            _move((self.prompt_keys, self.prompt_values), prompts, slice(0, self.room.longest))
        places = {prompt: place for place, prompt in enumerate(prompts)}
        self.lengths = [self.lengths[prompt] for prompt in prompts]
        self.prompt_of = [places[prompt] for prompt in prompt_of]
        self.starts = [start - first for start in starts]
        self.filled -= first
        self._arrange()

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Stores keys and values of the rows' new tokens, `[rows, kv_heads, head_dim]`, in the next slot."""
        self.keys[layer, : len(keys), :, self.filled] = keys
        self.values[layer, : len(keys), :, self.filled] = values

    def attend(self, layer: int, queries: Tensor, slots: int) -> Tensor:
        """Attention of `[rows, heads, head_dim]` to the prompts and the first `slots` of the answers.

        Query heads that share a key head are further rows of its matrix products, so no key is repeated.
        """
        heads, width = self._weights.kv_heads, self._weights.head_dim
        flat = queries.reshape(len(queries) * heads, -1, width)
        prompts, longest = len(self.lengths), max(self.lengths)
        prompt_keys, prompt_values = (
            cache[layer, :prompts].flatten(0, 1)[:, :longest]
            for cache in (self.prompt_keys, self.prompt_values)
        )
        keys, values = (
            cache[layer, : len(queries)].flatten(0, 1)[:, :slots] for cache in (self.keys, self.values)
        )
        scale = width**-0.5
        to_prompt = torch.baddbmm(
            self._prompt_mask, self._by_prompt(flat), prompt_keys.transpose(1, 2), alpha=scale
        )
        to_answer = torch.baddbmm(self.mask[..., :slots], flat, keys.transpose(1, 2), alpha=scale)
        scores = torch.cat((self._by_row(to_prompt), to_answer), -1)
        weights = scores.softmax(-1, dtype=torch.float32).to(scores.dtype)
        from_prompt = torch.bmm(self._by_prompt(weights[..., :longest]), prompt_values)
        return torch.baddbmm(self._by_row(from_prompt), weights[..., longest:], values).view_as(queries)

    def _by_prompt(self, per_row: Tensor) -> Tensor:
        """`[rows * kv_heads, group, n]` -> `[prompts * kv_heads, most rows of a prompt * group, n]`."""
        if self._row_at is None:
            return per_row
        return per_row.index_select(0, self._row_at).view(len(self._prompt_mask), -1, per_row.shape[-1])

    def _by_row(self, per_prompt: Tensor) -> Tensor:
        """The inverse of `_by_prompt`."""
        if self._row_at is None:
            return per_prompt
        split = per_prompt.view(len(self._row_at), -1, per_prompt.shape[-1])
        return split.index_select(0, self._place_of)

    def _arrange(self) -> None:
        """Computes masks, and the places of rows beside those with the same prompt."""
        device, dtype, heads = self.keys.device, self.keys.dtype, self._weights.kv_heads
        lengths, starts, prompt_of = (
            torch.tensor(values, device=device, dtype=torch.long)
            for values in (self.lengths, self.starts, self.prompt_of)
        )
        slots = torch.arange(max(self.room.longest, self.room.new_tokens), device=device)
        pads = slots[: max(self.lengths, default=0)] >= lengths[:, None]
        self._prompt_mask = _mask(pads, heads, dtype)
        self.mask = _mask(slots[: self.room.new_tokens] < starts[:, None], heads, dtype)

        self._row_at: Tensor | None = None
        if self.prompt_of == list(range(len(self.lengths))):
            return
        seen: dict[int, int] = {}
        rank = []  # number of earlier rows with the same prompt
        for prompt in self.prompt_of:
            rank.append(seen.get(prompt, 0))
            seen[prompt] = rank[-1] + 1
        most = max(seen.values())
        head = torch.arange(heads, device=device)
        place = (prompt_of[:, None] * heads + head) * most + torch.tensor(rank, device=device)[:, None]
        self._place_of = place.flatten()
        # A prompt with fewer rows repeats row 0, whose results there are not read.
        self._row_at = torch.zeros(len(self.lengths) * heads * most, dtype=torch.long, device=device)
        self._row_at[self._place_of] = torch.arange(len(self._place_of), device=device)


def _move(caches: tuple[Tensor, Tensor], rows: list[int], slots: slice) -> None:
    """Moves these slots of these rows, in every layer, to the first places."""
    index = torch.tensor(rows, dtype=torch.long, device=caches[0].device)
    for cache in caches:
        for layer in cache:
            layer[: len(rows), :, : slots.stop - slots.start] = layer[index, :, slots]


def _mask(hidden: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """Additive mask `[n * heads, 1, slots]` from `[n, slots]` bool."""
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return mask.masked_fill_(hidden, float("-inf")).repeat_interleave(heads, 0)[:, None]
