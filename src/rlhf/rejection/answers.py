"""Chooses the prompts of a round, samples K answers to each, scores them and selects the best (3.2.3)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ...distributed.group import gather_rows
from ...errors import DataError
from ...jsonl import Row
from ...model.reward_models import RewardModels
from ...processes import rank, world_size
from ...sampling.interface import without_end
from ...sampling.usable import is_usable
from ...training.permutation import Permutation
from ..prompts import EncodedPrompt
from .settings import RejectionSettings


def choose_prompts(
    pool: Sequence[EncodedPrompt], count: int, earlier: Iterable[Row], *, seed: int
) -> list[int]:
    """Indices of the prompts of a round in `pool`, shuffled; those that earlier rounds used least come first.

    A round uses no prompt twice, so it has fewer than `count` prompts if the pool is smaller.

    Args:
        earlier: rows of the prompts that all earlier rounds used.
    """
    uses = Counter(_key(row["messages"]) for row in earlier)
    order = Permutation(len(pool), f"{seed}/prompts")
    shuffled = [order[place] for place in range(len(pool))]
    return sorted(shuffled, key=lambda index: uses[_key(pool[index].prompt.messages)])[:count]


def _key(messages: Any) -> str:
    return json.dumps(messages, sort_keys=True)


def sample_answers(
    sampler: Any, tokenizer: Any, prompts: Sequence[EncodedPrompt], *, settings: RejectionSettings
) -> list[Row]:
    """Samples K answers to each prompt; the ranks share the prompts, and every rank gets all rows.

    Rows are in the order of the prompts: `prompt` (its index), `answer` (text), `answer_ids`, `finished`,
    `logprob` (sum over the answer's tokens).
    """
    indices = _rank_share(len(prompts))
    samples = sampler.sample(
        [prompts[index].ids for index in indices],
        settings.max_new_tokens,
        settings.num_generations,
        temperature=settings.temperature,
        seed=f"{settings.seed}/{settings.round}/samples",
        keys=indices,
        label="sampling",
    )
    rows: list[Row] = [
        {
            "prompt": indices[samples.prompts[row]],
            "answer": tokenizer.decode(without_end(ids, finished)).strip(),
            "answer_ids": ids,
            "finished": finished,
            "logprob": sum(samples.logprobs[row]),
        }
        for row, (ids, finished) in enumerate(zip(samples.answer_ids, samples.finished, strict=True))
    ]
    return gather_rows(rows)


def score_answers(
    reward_models: RewardModels, samples: Sequence[Row], prompts: Sequence[EncodedPrompt]
) -> list[Row]:
    """Scores each answer: rows of `safety`, `helpfulness` and the piecewise `score`, all in (0, 1).

    With a judge the rows also have its score, `judge`; it does not influence the selection.
    """
    rows = [samples[index] for index in _rank_share(len(samples))]
    sampled_prompts = [prompts[row["prompt"]] for row in rows]
    ids = [prompt.ids for prompt in sampled_prompts]
    answers = [without_end(row["answer_ids"], row["finished"]) for row in rows]
    is_safety = [prompt.prompt.is_safety for prompt in sampled_prompts]
    columns = reward_models.score_answers(ids, answers, is_safety, label="answers")._asdict()
    if reward_models.judge is not None:
        columns["judge"] = reward_models.judge(ids, answers, "answers: judge scores")
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return gather_rows([dict(zip(columns, row, strict=True)) for row in values])


def best_answers(
    samples: Sequence[Row],
    scores: Sequence[Row],
    prompts: Sequence[EncodedPrompt],
    *,
    control_strings: Sequence[str],
    safety_threshold: float,
) -> list[Row]:
    """The answer with the highest piecewise score to each prompt, as a dialogue row; on ties the first one.

    Never selected are unusable answers (see `is_usable`) and unsafe ones, whose safety score is below the
    threshold; a prompt with no other answer gets no row. The paper does not state the second rule. For an
    ordinary prompt the piecewise score of an unsafe answer is its safety score, which is not comparable to
    the helpfulness scores of safe answers. For an adversarial prompt the best of K harmful answers would be a
    demonstration of harm, in exactly those contexts where the model hardly ever refuses.

    Rows have `prompt` (its index), the fields of the prompt's row, `messages` (the answer included), `score`,
    and `judge` if the scores have it.

    Args:
        control_strings: those of the chat format.
        safety_threshold: an answer is unsafe if its safety score is lower.

    Raises:
        DataError: a score is NaN.
    """
    best: dict[int, int] = {}
    for number, (sample, score) in enumerate(zip(samples, scores, strict=True)):
        prompt = sample["prompt"]
        if math.isnan(score["score"]):
            raise DataError(
                f"the score of sample {number + 1} is NaN, expected a number in (0, 1); "
                "check the reward models"
            )
        if not usable_sample(sample, control_strings) or score["safety"] < safety_threshold:
            continue
        if prompt not in best or score["score"] > scores[best[prompt]]["score"]:
            best[prompt] = number
    return [
        {
            "prompt": index,
            **prompts[index].row(),
            "messages": [
                *prompts[index].prompt.messages,
                {"role": "assistant", "content": samples[number]["answer"]},
            ],
            **{name: scores[number][name] for name in ("score", "judge") if name in scores[number]},
        }
        for index, number in sorted(best.items())
    ]


def usable_sample(sample: Row, control_strings: Sequence[str]) -> bool:
    """Whether a row of `sample_answers` can be trained on, see `is_usable`."""
    return is_usable(sample["answer"], sample["finished"], control_strings)


def _rank_share(count: int) -> range:
    """This rank's share of `count` indices; shares are contiguous and in the order of the ranks."""
    start, end = (count * index // world_size() for index in (rank(), rank() + 1))
    return range(start, end)
