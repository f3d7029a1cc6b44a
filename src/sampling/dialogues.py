"""Samples many dialogues in parallel, in which the model's own answers become part of the history.

No history is computed twice: the key-value cache of a dialogue is kept until the dialogue ends. At every step
each row of the batch advances by one token, independently of the others: one row may still process the tokens
of its prompt while another samples its answer. So no row waits for the longest answer of a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch

from ..batches import batches_by_length
from ..console import progress
from ..processes import phase
from .decoding import Decoding, next_tokens
from .draws import uniforms
from .sampler import FINISHED_SHARE, LlamaSampler, steps_per_check
from .static import new_decoder
from .turns import Turns, max_length


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
        answers: list[list[list[int]]] = [[] for _ in prompts]
        started = [
            row for row, turns in enumerate(prompts) if turns and len(turns[0]) + max_new_tokens <= context
        ]
        # The cache has room for the longest first prompt, and then for all that follows a first prompt.
        first, longest = (max(map(size, prompts), default=0) for size in (_first_length, len))
        room = [
            first + max_length(prompts[row], max_new_tokens, context) - len(prompts[row][0])
            for row in started
        ]
        with progress(label, sum(map(len, prompts)), "answers") as advance:
            for batch in batches_by_length(room, None, self.cache_tokens):
                rows = [started[index] for index in batch]
                numbers = uniforms(seed, list(product(rows, range(longest))), max_new_tokens)
                turns = Turns(
                    [prompts[row] for row in rows],
                    numbers.view(len(rows), longest, max_new_tokens),
                    context,
                    eos=self._eos,
                )
                steps = max(room[index] for index in batch) - first
                self._decode_dialogues(turns, steps, Decoding(temperature, top_p), advance=advance)
                for row, found in zip(rows, turns.answers(), strict=True):
                    answers[row] = found
        return answers

    def _decode_dialogues(
        self, turns: Turns, steps: int, decoding: Decoding, *, advance: Callable[[float], None]
    ) -> None:
        """Decodes one batch of dialogues to their ends, which all of them reach within `steps`.

        Args:
            advance: called with the number of answers that have ended since the last call.
        """
        decoder, reported = new_decoder(self._weights), 0
        active = torch.arange(len(turns.first_prompts), device=self._weights.device)  # rows in the decoder
        logits = decoder.prefill(turns.first_prompts, active, steps)
        for step in range(1, steps + 1):
            sampled, _ = next_tokens(logits, turns.numbers(active), self._pad, decoding=decoding)
            tokens = turns.advance(active, sampled)
            if step == steps:
                break
            if step % steps_per_check(active.device) == 0:
                unfinished = (~turns.over[active]).nonzero().squeeze(-1)
                ended = turns.ended
                advance(ended - reported)
                reported = ended
                if len(unfinished) == 0:
                    return
                if len(unfinished) <= (1 - FINISHED_SHARE) * len(active):
                    decoder.keep(unfinished)
                    active, tokens = active[unfinished], tokens[unfinished]
            logits = decoder.step(tokens)
        advance(turns.ended - reported)


def _first_length(prompts: Sequence[Sequence[int]]) -> int:
    return len(prompts[0]) if prompts else 0
