"""A model holds many dialogues side by side, its own answers in their histories.

No history is read twice: the key-value cache of a dialogue lives as long as the dialogue. All rows of the
batch advance by a token at a time, each at its own place: where one row's question is being read, another
row's answer is being drawn, and nobody waits for the longest answer of a turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..batches import batches
from ..console import progress
from .decoder import Decoder
from .draws import uniforms
from .sampler import FINISHED_SHARE, LlamaSampler


class DialogueSampler(LlamaSampler):
    """Samples the answers of whole dialogues, where `LlamaSampler` samples those of single prompts."""

    def converse(
        self,
        questions: Sequence[Sequence[Sequence[int]]],
        max_new_tokens: int,
        context: int,
        *,
        temperature: float = 1.0,
        seed: int | str = 0,
        label: str | None = None,
    ) -> list[list[list[int]]]:
        """Answers the questions of each dialogue in turn, without top-k or top-p; temperature 0 is greedy.

        An answer depends on the seed, the dialogue's index, its history and the turn alone. In the history
        every answer ends with EOS, also one that was cut at `max_new_tokens`.

        Args:
            questions: `[dialogues][turns]` token ids, each from its BOS to [/INST].
            context: the most tokens a dialogue may have; it ends before a turn whose question and longest
                answer would not fit.
            label: of a progress bar; None shows none.

        Returns:
            `[dialogues][turns]` answers, EOS included where they ended by themselves; fewer turns than
            questions for a dialogue that outgrew the context.
        """
        dialogues = [_Dialogue(turns, max_new_tokens, context, ends=self.eos) for turns in questions]
        longest = max(map(len, questions), default=0)
        names = [(row, turn) for row in range(len(questions)) for turn in range(longest)]
        table = uniforms(seed, names, max_new_tokens).view(len(questions), longest, max_new_tokens)
        held = [row for row, dialogue in enumerate(dialogues) if not dialogue.over]
        with progress(label, sum(map(len, questions)), "answers") as ended:
            for rows in batches(held, self.batch_size):
                self._hold([dialogues[row] for row in rows], table[rows], temperature, ended=ended)
        return [dialogue.answers for dialogue in dialogues]

    def _hold(
        self,
        dialogues: Sequence[_Dialogue],
        table: Tensor,
        temperature: float,
        *,
        ended: Callable[[float], None],
    ) -> None:
        """Holds dialogues side by side; `table` is `[dialogues, turns, tokens]`.

        `ended` is called with how many answers have ended, step by step.
        """
        live, before = list(range(len(dialogues))), 0
        decoder = Decoder(self._weights)
        device = self._weights.device
        opened = [dialogues[row].opening() for row in live]
        logits = decoder.prefill(opened, torch.arange(len(live)), max(dialogues[row].most for row in live))
        while True:
            turns, places = zip(*(dialogues[row].place() for row in live), strict=True)
            tokens, _ = self._choose(logits, table[live, turns, places].to(device), temperature)
            fed = [dialogues[row].advance(drawn) for row, drawn in zip(live, tokens.tolist(), strict=True)]
            now = sum(dialogue.ended for dialogue in dialogues)
            ended(now - before)
            before = now
            going = [index for index, row in enumerate(live) if not dialogues[row].over]
            if not going:
                return
            if len(going) <= (1 - FINISHED_SHARE) * len(live):
                decoder.keep(torch.tensor(going, device=device))
                live, fed = [live[index] for index in going], [fed[index] for index in going]
            logits = decoder.step(torch.tensor(fed, device=device))


class _Dialogue:
    """Where one dialogue stands: reading a question, drawing an answer, or over."""

    def __init__(
        self, questions: Sequence[Sequence[int]], max_new_tokens: int, context: int, *, ends: Sequence[int]
    ) -> None:
        self.questions, self.max_new_tokens, self.context, self.ends = (
            questions,
            max_new_tokens,
            context,
            ends,
        )
        self.answers: list[list[int]] = []
        self.over = False
        self.length = 0
        self._unread: deque[int] = deque()
        self._begin_turn()

    @property
    def most(self) -> int:
        """Tokens that the whole dialogue may have at most."""
        read = sum(map(len, self.questions))
        return min(self.context, read + len(self.questions) * (self.max_new_tokens + 1))

    @property
    def ended(self) -> int:
        """How many answers have ended."""
        return len(self.answers) - (not self.over)

    def opening(self) -> list[int]:
        """The first question, read at once."""
        opening = list(self._unread)
        self._unread.clear()
        return opening

    def place(self) -> tuple[int, int]:
        """Turn and place of the next draw, which counts only while an answer is being drawn."""
        return len(self.answers) - 1, 0 if self.over or self._unread else len(self.answers[-1])

    def advance(self, drawn: int) -> int:
        """Takes the drawn token if an answer is being drawn; returns the token that comes next."""
        if self.over or self._unread:
            return self._unread.popleft() if self._unread else drawn
        answer = self.answers[-1]
        answer.append(drawn)
        self.length += 1
        if drawn in self.ends or len(answer) == self.max_new_tokens:
            if drawn not in self.ends:
                self._unread.append(self.ends[0])
                self.length += 1
            self._begin_turn()
        return drawn

    def _begin_turn(self) -> None:
        turn = len(self.answers)
        if turn == len(self.questions):
            self.over = True
            return
        self.length += len(self.questions[turn])
        self.over = self.length + self.max_new_tokens > self.context
        if not self.over:
            self._unread.extend(self.questions[turn])
            self.answers.append([])
