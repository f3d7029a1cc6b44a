"""Answers that are decoded: on the device, so that no step waits for what the last one sampled."""

from __future__ import annotations

import torch
from torch import Tensor


class Answers:
    """Tokens of all answers of a queue; some are being decoded, some are waiting, some have been dropped.

    Args:
        uniform: `[answers, steps]` random numbers in [0, 1).
        eos: `[...]` token ids that end an answer.

    Attributes:
        waiting: number of answers that no row decodes yet, the last ones.
        unfinished: `[rows]` bool, whether each row's answer may have further tokens.
    """

    def __init__(self, uniform: Tensor, eos: Tensor) -> None:
        count, self._steps = uniform.shape
        self._eos, self._uniform = eos, uniform.flatten().to(eos.device)
        self._ids = torch.zeros(count * self._steps, dtype=torch.long, device=eos.device)
        self._logprobs = torch.zeros(count * self._steps, device=eos.device)
        self.waiting = count
        self._next = torch.zeros(0, dtype=torch.long, device=eos.device)  # place of each row's next token
        self._end = self._next
        self.unfinished = self._next.bool()

    def start(self, count: int) -> None:
        """Adds rows for the next `count` answers, behind the others."""
        first = len(self._uniform) // self._steps - self.waiting
        places = torch.arange(first, first + count, device=self._eos.device) * self._steps
        self._next = torch.cat((self._next, places))
        self._end = torch.cat((self._end, places + self._steps))
        self.unfinished = torch.cat((self.unfinished, torch.ones_like(places, dtype=torch.bool)))
        self.waiting -= count

    def numbers(self) -> Tensor:
        """The random number of each row's next token, `[rows]`."""
        return self._uniform[self._next]

    def append(self, tokens: Tensor, logprobs: Tensor) -> None:
        """Stores the rows' next tokens, `[rows]`; what follows the end of an answer is ignored later."""
        self._ids[self._next], self._logprobs[self._next] = tokens, logprobs
        self._next = self._next + 1
        self.unfinished &= ~self._is_eos(tokens) & (self._next < self._end)

    def keep(self, rows: Tensor) -> None:
        """Keeps only these rows (`[kept]` int64)."""
        self._next, self._end, self.unfinished = self._next[rows], self._end[rows], self.unfinished[rows]

    def results(self) -> list[tuple[list[int], list[float], bool]]:
        """Token ids up to the first EOS, log-probabilities, and whether there is an EOS, of each answer."""
        ids, logprobs = self._ids.view(-1, self._steps), self._logprobs.view(-1, self._steps)
        ends = self._is_eos(ids)
        finished = ends.any(-1)
        lengths = torch.where(finished, ends.int().argmax(-1) + 1, self._steps)
        return [
            (answer[:length], values[:length], ended)
            for length, ended, answer, values in zip(
                lengths.tolist(), finished.tolist(), ids.tolist(), logprobs.tolist(), strict=True
            )
        ]

    def _is_eos(self, tokens: Tensor) -> Tensor:
        return (tokens[..., None] == self._eos).any(-1)
