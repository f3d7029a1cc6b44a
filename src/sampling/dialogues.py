"""Samples many dialogues in parallel, in which the model's own answers become part of the history.

No history is computed twice: the key-value cache of a dialogue is kept until the dialogue ends. At every step
each row of the batch advances by one token, independently of the others: one row may still process the tokens
of its prompt while another samples its answer. So no row waits for the longest answer of a turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..batches import batches
from ..console import progress
from ..processes import phase
from .decoder import Decoder
from .decoding import Decoding, next_tokens
from .draws import uniforms
from .sampler import FINISHED_SHARE, LlamaSampler


class DialogueSampler(LlamaSampler):
    """A `LlamaSampler` that also samples whole dialogues."""

    @phase("sampling")
    def sample_dialogues(
        self,
        prompts: Sequence[Sequence[Sequence[int]]],
        max_new_tokens: int,
        context: int,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | str = 0,
        label: str | None = None,
    ) -> list[list[list[int]]]:
        """Answers the prompts of each dialogue in turn; `temperature` and `top_p` as in `sample`.

        An answer depends only on the seed, the dialogue's index, its history and the turn. In the history
        every answer ends with EOS, also one that was truncated at `max_new_tokens`.

        Args:
            prompts: `[dialogues][turns]` token ids, each from its BOS to [/INST].
            context: maximum number of tokens of a dialogue. A dialogue ends before a turn whose prompt and
                longest possible answer would exceed it.
            label: text of a progress bar; None: no progress bar.

        Returns:
            `[dialogues][turns]` answers, EOS included if they are finished; fewer answers than prompts if
            the dialogue reached `context`.
        """
        dialogues = [_DialogueState(turns, max_new_tokens, context, eos=self.eos) for turns in prompts]
        longest = max(map(len, prompts), default=0)
        names = [(row, turn) for row in range(len(prompts)) for turn in range(longest)]
        uniform = uniforms(seed, names, max_new_tokens).view(len(prompts), longest, max_new_tokens)
        started = [row for row, dialogue in enumerate(dialogues) if not dialogue.over]
        with progress(label, sum(map(len, prompts)), "answers") as advance:
            for rows in batches(started, self.batch_size):
                self._decode_dialogues(
                    [dialogues[row] for row in rows],
                    uniform[rows],
                    Decoding(temperature, top_p),
                    advance=advance,
                )
        return [dialogue.answers for dialogue in dialogues]

    def _decode_dialogues(
        self,
        dialogues: Sequence[_DialogueState],
        uniform: Tensor,
        decoding: Decoding,
        *,
        advance: Callable[[float], None],
    ) -> None:
        """Decodes one batch of dialogues to their ends.

        Args:
            uniform: `[dialogues, turns, tokens]` random numbers in [0, 1).
            advance: called at every step with the number of answers that have ended since the last call.
        """
        active, reported = list(range(len(dialogues))), 0  # rows in the decoder; some may be over
        decoder = Decoder(self._weights)
        device = self._weights.device
        first_prompts = [dialogues[row].first_prompt() for row in active]
        new_tokens = max(dialogues[row].max_length for row in active)
        logits = decoder.prefill(first_prompts, torch.arange(len(active)), new_tokens)
        while True:
            turns, indices = zip(*(dialogues[row].next_draw() for row in active), strict=True)
            numbers = uniform[active, turns, indices].to(device)
            sampled, _ = next_tokens(logits, numbers, self._pad, decoding=decoding)
            tokens = [
                dialogues[row].advance(token) for row, token in zip(active, sampled.tolist(), strict=True)
            ]
            ended = sum(dialogue.ended for dialogue in dialogues)
            advance(ended - reported)
            reported = ended
            unfinished = [index for index, row in enumerate(active) if not dialogues[row].over]
            if not unfinished:
                return
            if len(unfinished) <= (1 - FINISHED_SHARE) * len(active):
                decoder.keep(torch.tensor(unfinished, device=device))
                active = [active[index] for index in unfinished]
                tokens = [tokens[index] for index in unfinished]
            logits = decoder.step(torch.tensor(tokens, device=device))


class _DialogueState:
    """Progress of one dialogue: processing a prompt, sampling an answer, or over."""

    def __init__(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, context: int, *, eos: Sequence[int]
    ) -> None:
        self.prompts, self.max_new_tokens, self.context, self.eos = prompts, max_new_tokens, context, eos
        self.answers: list[list[int]] = []
        self.over = False
        self.length = 0
        self._pending: deque[int] = deque()  # tokens that are given, not sampled
        self._begin_turn()

    @property
    def max_length(self) -> int:
        """Upper limit of the tokens of the whole dialogue."""
        given = sum(map(len, self.prompts))
        return min(self.context, given + len(self.prompts) * (self.max_new_tokens + 1))

    @property
    def ended(self) -> int:
        """Number of answers that have ended."""
        return len(self.answers) - (not self.over)

    def first_prompt(self) -> list[int]:
        """The first prompt, which the prefill processes at once."""
        prompt = list(self._pending)
        self._pending.clear()
        return prompt

    def next_draw(self) -> tuple[int, int]:
        """Turn and index of the next random number, which is ignored unless an answer is being sampled."""
        return len(self.answers) - 1, 0 if self.over or self._pending else len(self.answers[-1])

    def advance(self, sampled: int) -> int:
        """Appends `sampled` to the answer if one is being sampled; returns the dialogue's next token."""
        if self.over or self._pending:
            return self._pending.popleft() if self._pending else sampled
        answer = self.answers[-1]
        answer.append(sampled)
        self.length += 1
        if sampled in self.eos or len(answer) == self.max_new_tokens:
            if sampled not in self.eos:
                self._pending.append(self.eos[0])
                self.length += 1
            self._begin_turn()
        return sampled

    def _begin_turn(self) -> None:
        turn = len(self.answers)
        if turn == len(self.prompts):
            self.over = True
            return
        self.length += len(self.prompts[turn])
        self.over = self.length + self.max_new_tokens > self.context
        if not self.over:
            self._pending.extend(self.prompts[turn])
            self.answers.append([])
