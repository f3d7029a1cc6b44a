"""Samples many dialogues in parallel, in which the model's own answers become part of the history.

No history is computed twice: the key-value cache of a dialogue is kept until the dialogue ends. At every step
each row of the batch advances by one token, independently of the others: one row may still process the tokens
of its prompt while another samples its answer. So no row waits for the longest answer of a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from ..batches import batches_by_length
from ..console import progress
from ..processes import phase
from .cache import Room
from .decoding import Decoding, next_tokens
from .draws import uniforms
from .llama import FINISHED_SHARE, LlamaSampler, steps_per_check
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
        """See `Sampler.sample_dialogues`."""
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
        first, reported = turns.first_prompts, 0
        decoder = new_decoder(self._weights, Room(len(first), len(first), max(map(len, first)), steps))
        logits = decoder.add(first, list(range(len(first))))
        for step in range(1, steps + 1):
            sampled, _ = next_tokens(logits, turns.numbers(), self._pad, decoding=decoding)
            tokens = turns.advance(sampled)
            if step == steps:
                break
            if step % steps_per_check(sampled.device) == 0:
                unfinished = (~turns.over).nonzero().squeeze(-1)
                ended = turns.ended
                advance(ended - reported)
                reported = ended
                if len(unfinished) == 0:
                    return
                if len(unfinished) <= (1 - FINISHED_SHARE) * len(tokens):
                    decoder.keep(unfinished)
                    turns.keep(unfinished)
                    tokens = tokens[unfinished]
            logits = decoder.step(tokens)
        advance(turns.ended - reported)


def _first_length(prompts: Sequence[Sequence[int]]) -> int:
    return len(prompts[0]) if prompts else 0
