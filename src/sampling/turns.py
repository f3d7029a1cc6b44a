"""Where each dialogue of a batch is, on the device: no step waits for what the last one sampled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def max_length(prompts: Sequence[Sequence[int]], max_new_tokens: int, context: int) -> int:
    """Upper limit of the tokens of a dialogue; an answer that is truncated is followed by an EOS."""
    return min(context, sum(map(len, prompts)) + len(prompts) * (max_new_tokens + 1))


class Turns:
    """Progress of a batch of dialogues: each is processing a prompt, sampling an answer, or over.

    Args:
        prompts: `[rows][turns]` token ids; the first ones have already been processed.
        uniform: `[rows, turns, max_new_tokens]` random numbers in [0, 1).
        context: maximum number of tokens of a dialogue. A dialogue is over before a turn whose prompt and
            longest possible answer would exceed it.
        eos: `[...]` token ids that end an answer; the first one follows an answer that is truncated.

    Attributes:
        first_prompts: the rows' first prompts.
        over: `[rows]` bool.
    """

    def __init__(
        self, prompts: Sequence[Sequence[Sequence[int]]], uniform: Tensor, context: int, *, eos: Tensor
    ) -> None:
        rows, turns, self._limit = uniform.shape
        self.first_prompts = [list(dialogue[0]) for dialogue in prompts]
        self._context, self._eos = context, eos
        # Every table has one turn more, at which the rows are that have had all of theirs.
        self._uniform = torch.cat((uniform, uniform.new_zeros(rows, 1, self._limit)), dim=1).to(eos.device)
        self._rows = torch.arange(rows, device=eos.device)
        # Given tokens of each turn: an EOS, skipped unless the last answer was truncated, and the prompt.
        longest = max(len(prompt) for row in prompts for prompt in row)
        given = torch.zeros(rows, turns + 1, longest + 2, dtype=torch.long)
        # A turn that doesn't exist has the length of a prompt that fits no context: it is never begun.
        lengths = torch.full((rows, turns + 1), context)
        for row, dialogue in enumerate(prompts):
            for turn, prompt in enumerate(dialogue):
                given[row, turn, 1 : 1 + len(prompt)] = torch.tensor(prompt)
                lengths[row, turn] = len(prompt)
        self._given, self._lengths = given.to(eos.device), lengths.to(eos.device)
        self._given[..., 0] = eos[0]
        # -1: not sampled. The last column takes what is sampled while a row has no use for it.
        self._ids = torch.full((rows, turns + 1, self._limit + 1), -1, device=eos.device)

        self._total = self._lengths[:, 0].clone()  # tokens of each dialogue, the prompt of its turn included
        self._turn = torch.zeros_like(self._rows)
        self._length = self._lengths[:, 0]  # of the turn's prompt
        self._place = 1 + self._length  # of the next given token
        self._answered = torch.zeros_like(self._rows)  # tokens of the answer so far
        self.over = torch.zeros_like(self._rows, dtype=torch.bool)

    @property
    def ended(self) -> int:
        """Number of answers that have ended."""
        return int(self._turn.sum())

    def answers(self) -> list[list[list[int]]]:
        """`[rows][turns]` the answers so far, EOS included if they are finished."""
        rows = self._ids[:, :-1, :-1].tolist()
        return [[[token for token in ids if token >= 0] for ids in turns if ids[0] >= 0] for turns in rows]

    def numbers(self, rows: Tensor) -> Tensor:
        """`[len(rows)]` float64: the next random numbers; only rows that sample an answer use them."""
        return self._uniform[self._rows, self._turn, self._answered][rows]

    def advance(self, rows: Tensor, sampled: Tensor) -> Tensor:
        """Takes the tokens sampled for some rows; all other rows must be over.

        Args:
            rows: `[count]` int64.
            sampled: `[count]` int64, to be ignored in rows that are processing a prompt or over.

        Returns:
            `[count]` int64: the next token of each row's dialogue.
        """
        sampled = torch.zeros_like(self._rows).index_copy_(0, rows, sampled)
        reading = ~self.over & (self._place <= self._length)
        answering = ~(reading | self.over)
        given = self._given[self._rows, self._turn, self._place]
        self._ids[self._rows, self._turn, torch.where(answering, self._answered, self._limit)] = sampled

        self._answered += answering
        self._total += answering
        self._place += reading
        is_eos = (sampled[:, None] == self._eos).any(-1)
        self._begin_turns(answering & (is_eos | (self._answered == self._limit)), ~is_eos)
        return torch.where(answering, sampled, given)[rows]

    def _begin_turns(self, ended: Tensor, truncated: Tensor) -> None:
        """Begins the next turn of rows whose answer has ended, if it fits (both `[rows]` bool)."""
        self._turn += ended
        self._answered *= ~ended
        self._place = torch.where(ended, 1 - truncated.long(), self._place)
        self._length = self._lengths[self._rows, self._turn]
        self._total += ended * (truncated + self._length)
        self.over |= ended & (self._total + self._limit > self._context)
