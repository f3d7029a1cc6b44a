"""K answers to each prompt of a round, their scores, and the best of each (section 3.2.3)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ...chat_format.encoding import remove_control_strings
from ...distributed.group import gather_rows
from ...errors import DataError
from ...jsonl import Row
from ...model.reward_models import RewardModels
from ...processes import rank, world_size
from ...sampling.sampler import without_end
from ...training.permutation import Permutation
from ..prompts import EncodedPrompt
from .settings import RejectionSettings


def choose_prompts(
    pool: Sequence[EncodedPrompt], count: int, earlier: Iterable[Row], *, seed: int
) -> list[int]:
    """Places in `pool` of the prompts of a round: those that earlier rounds took least often, in one shuffle.

    A round gets no prompt twice, so never more than there are.

    Args:
        earlier: rows of the prompts that all earlier rounds took.
    """
    taken = Counter(_key(row["messages"]) for row in earlier)
    order = Permutation(len(pool), f"{seed}/prompts")
    shuffled = [order[place] for place in range(len(pool))]
    return sorted(shuffled, key=lambda place: taken[_key(pool[place].prompt.messages)])[:count]


def _key(messages: Any) -> str:
    return json.dumps(messages, sort_keys=True)


def sample_answers(
    sampler: Any, tokenizer: Any, prompts: Sequence[EncodedPrompt], *, settings: RejectionSettings
) -> list[Row]:
    """K answers to each prompt, by all ranks together; rows in the order of the prompts.

    A row: `prompt` (its index), `answer` (text), `answer_ids`, `finished`, `logprob` (of the whole answer).
    """
    mine = _share(len(prompts))
    samples = sampler.sample(
        [prompts[place].ids for place in mine],
        settings.max_new_tokens,
        settings.num_generations,
        temperature=settings.temperature,
        seed=f"{settings.seed}/{settings.round}/samples",
        keys=mine,
        label="sampling",
    )
    rows: list[Row] = [
        {
            "prompt": mine[samples.prompts[place]],
            "answer": tokenizer.decode(without_end(ids, finished)).strip(),
            "answer_ids": ids,
            "finished": finished,
            "logprob": sum(samples.logprobs[place]),
        }
        for place, (ids, finished) in enumerate(zip(samples.answer_ids, samples.finished, strict=True))
    ]
    return gather_rows(rows)


def score_answers(
    reward_models: RewardModels, samples: Sequence[Row], prompts: Sequence[EncodedPrompt]
) -> list[Row]:
    """The scores of each answer, in (0, 1): `safety`, `helpfulness` and the piecewise `score`."""
    mine = [samples[place] for place in _share(len(samples))]
    asked = [prompts[row["prompt"]] for row in mine]
    judged = reward_models.score_answers(
        [prompt.ids for prompt in asked],
        [without_end(row["answer_ids"], row["finished"]) for row in mine],
        [prompt.prompt.is_safety for prompt in asked],
        label="answers",
    )
    values = zip(*(column.tolist() for column in judged), strict=True)
    return gather_rows([dict(zip(judged._fields, row, strict=True)) for row in values])


def best_answers(
    samples: Sequence[Row],
    scores: Sequence[Row],
    prompts: Sequence[EncodedPrompt],
    *,
    marks: Sequence[str],
    safety_threshold: float,
) -> list[Row]:
    """The best-scored answer of each prompt as a row of SFT; the first of equal ones.

    An unusable answer (see `is_usable`) is never chosen, nor is an unsafe one to an ordinary prompt: the
    piecewise score of an unsafe answer is its safety, which says nothing beside the helpfulness of the
    others. A prompt without any other answer is left out. Adversarial prompts rank by safety.

    Args:
        marks: control strings of the chat format.
        safety_threshold: answers to ordinary prompts whose safety score is below it are unsafe.

    Raises:
        DataError: a score is NaN.
    """
    best: dict[int, tuple[float, str]] = {}
    for number, (sample, score) in enumerate(zip(samples, scores, strict=True), start=1):
        prompt, text, value = sample["prompt"], sample["answer"], score["score"]
        if math.isnan(value):
            raise DataError(f"the score of sample {number} is NaN; expected a number in (0, 1)")
        if not is_usable(sample, marks):
            continue
        if score["safety"] < safety_threshold and not prompts[prompt].prompt.is_safety:
            continue
        if prompt not in best or value > best[prompt][0]:
            best[prompt] = (value, text)
    return [
        {
            "messages": [*prompts[index].prompt.messages, {"role": "assistant", "content": text}],
            "is_safety": prompts[index].prompt.is_safety,
            "score": value,
        }
        for index, (value, text) in sorted(best.items())
    ]


def is_usable(sample: Row, marks: Sequence[str]) -> bool:
    """Whether an answer can be trained: it ended by itself, is not empty and holds no control string."""
    text = sample["answer"]
    return bool(sample["finished"] and text and remove_control_strings(text, marks) == text)


def _share(count: int) -> range:
    """This rank's share of `count` indices; shares are contiguous, in the order of ranks."""
    start, end = (count * place // world_size() for place in (rank(), rank() + 1))
    return range(start, end)
