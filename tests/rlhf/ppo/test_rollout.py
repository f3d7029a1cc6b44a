"""Scores and rewards of a rollout, and its split over ranks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llamita.data.rows import Prompt
from llamita.errors import ConfigError
from llamita.model.reward_models import RewardModels
from llamita.rlhf.ppo.rollout import (
    Episodes,
    RankSizes,
    answer_tokens,
    check_longest_prompt,
    mini_batches,
    rank_share,
    score_episodes,
    sizes_per_rank,
)
from llamita.rlhf.prompts import EncodedPrompt
from llamita.sampling.interface import Samples

from ...helpers.rlhf import ppo
from ...helpers.rows import turn
from ...helpers.two_ranks import on_two_ranks

SAFETY = [0.9, 0.8, 0.7, 0.1, 0.9, 0.9]
HELPFULNESS = [0.5, 0.5, 0.5, 0.4, 0.3, 0.2]


def score(finished: Sequence[bool], penalty: float) -> Episodes:
    """Six answers, the first three to harmful prompts, whose scores are the higher ones."""
    prompts = [
        EncodedPrompt(Prompt(turn("?"), is_safety=harmful), [1, 5]) for harmful in [True] * 3 + [False] * 3
    ]
    samples = Samples(list(range(6)), [[7, 2]] * 6, [[-1.0, -1.0]] * 6, list(finished))

    def column(scores: Sequence[float]) -> Tensor:
        return torch.tensor(scores, dtype=torch.float64)

    models = RewardModels(helpfulness=lambda *_: column(HELPFULNESS), safety=lambda *_: column(SAFETY))
    return score_episodes(prompts, samples, reward_models=models, missing_eos_penalty=penalty)


def test_the_reward_is_the_whitened_logit_of_the_piecewise_score() -> None:
    episodes = score([True] * 6, penalty=1.0)
    assert episodes.score.tolist() == [0.9, 0.8, 0.7, 0.1, 0.3, 0.2], (
        "the safety score for unsafe answers too"
    )
    logits = torch.logit(episodes.score)
    expected = (logits - logits.mean()) / logits.std(correction=0)
    torch.testing.assert_close(episodes.whitened_reward, expected)


def test_a_truncated_answer_loses_the_same_for_every_prompt() -> None:
    whole, cut = score([True] * 6, penalty=0.5), score([False, True, True, True, False, True], penalty=0.5)
    lost = (whole.whitened_reward - cut.whitened_reward).tolist()
    assert lost == pytest.approx([0.5, 0, 0, 0, 0.5, 0])
    assert cut.score.tolist() == whole.score.tolist()


def test_reward_models_score_answers_without_their_eos() -> None:
    other_eos = 9
    samples = Samples([0, 0], [[7, other_eos], [7, 8]], [[-1.0, -1.0]] * 2, [True, False])
    seen = []

    def scores(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], _: object) -> Tensor:
        seen.append(answers)
        return torch.tensor([0.4, 0.6], dtype=torch.float64)

    score_episodes(
        [EncodedPrompt(Prompt(turn("?"), is_safety=False), [1, 5])],
        samples,
        reward_models=RewardModels(scores, scores),
        missing_eos_penalty=1.0,
    )
    assert seen == [[[7], [7, 8]]] * 2


def test_ranks_share_the_mini_batches_of_a_single_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = rank_share(24, 8, "a seed")
    assert sorted(alone) == list(range(24))
    assert alone != list(range(24))
    assert alone != rank_share(24, 8, "another seed")
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for number in range(2):
        monkeypatch.setenv("RANK", str(number))
        shares.append(rank_share(24, 8, "a seed"))
    for mini in range(3):
        whole = alone[mini * 8 : (mini + 1) * 8]
        parts = [share[mini * 4 : (mini + 1) * 4] for share in shares]
        assert sorted(parts[0] + parts[1]) == sorted(whole)


def answered(lengths: Sequence[int]) -> Episodes:
    """Answers to prompts of one token; the rows have these lengths in all."""
    rows = score([True] * 6, penalty=0)
    return replace(rows, prompts=[[1]] * len(lengths), answers=[[5] * (length - 1) for length in lengths])


def flat(parts: Sequence[list[Any]]) -> list[Any]:
    return [*chain(*parts)]


LENGTHS = [3, 9, 4, 4, 2, 8, 5, 30, 3, 3, 6, 2]


def test_micro_batches_hold_rows_of_similar_length_and_at_most_so_many_tokens() -> None:
    sizes = RankSizes(mini=6, micro=4, tokens=20)
    minis = mini_batches(answered(LENGTHS), sizes)
    assert [sorted(flat(mini)) for mini in minis] == [list(range(6)), list(range(6, 12))]
    lengths = [[[LENGTHS[row] for row in micro] for micro in mini] for mini in minis]
    assert lengths == [[[2, 3, 4, 4], [8, 9]], [[2, 3, 3, 5], [6], [30]]]


def test_without_a_limit_of_tokens_micro_batches_have_so_many_rows() -> None:
    minis = mini_batches(answered(LENGTHS), RankSizes(mini=12, micro=5, tokens=None))
    assert [len(micro) for micro in minis[0]] == [5, 5, 2]


def test_ranks_have_as_many_micro_batches_in_each_mini_batch(tmp_path: Path) -> None:
    lengths = [[10, 10, 10, 10, 2, 2, 2, 2], [5, 2, 2, 2, 8, 3, 3, 7]]

    def on_a_rank() -> tuple[list[list[list[int]]], list[int]]:
        episodes = answered(lengths[int(os.environ["RANK"])])
        return mini_batches(episodes, RankSizes(mini=4, micro=4, tokens=10)), answer_tokens(episodes, 4)

    (first, tokens), (second, other_tokens) = on_two_ranks(on_a_rank, tmp_path)
    assert [len(mini) for mini in first] == [len(mini) for mini in second] == [4, 3]
    for minis in (first, second):
        assert [sorted(flat(mini)) for mini in minis] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for minis, rows in ((first, lengths[0]), (second, lengths[1])):
        for micro in flat(minis):
            assert micro
            assert len(micro) * max(rows[row] for row in micro) <= 10
    assert (
        tokens
        == other_tokens
        == [sum(sum(rank[part]) - 4 for rank in lengths) for part in (slice(0, 4), slice(4, 8))]
    )


def test_a_limit_that_an_answer_can_exceed_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"max_tokens_per_micro_batch 20 .* the 21 of max_prompt_length"):
        ppo(max_prompt_length=9, max_new_tokens=12, max_tokens_per_micro_batch=20)
    chosen = ppo(max_new_tokens=12, max_tokens_per_micro_batch=20)
    prompts = [EncodedPrompt(Prompt(turn("?"), is_safety=False), [5] * length) for length in (3, 8)]
    check_longest_prompt(chosen, prompts)
    check_longest_prompt(ppo(), prompts)
    with pytest.raises(ConfigError, match=r"longest prompt's 9 tokens .* choose at least 21"):
        check_longest_prompt(chosen, [*prompts, replace(prompts[0], ids=[5] * 9)])


def test_engines_expect_several_micro_batches_if_there_may_be_several() -> None:
    sizes = [
        sizes_per_rank(ppo(mini_batch_size=6, episodes=6, **more))
        for more in ({}, {"micro_batch_size": 6}, {"micro_batch_size": 4}, {"max_tokens_per_micro_batch": 99})
    ]
    assert [one.accumulates for one in sizes] == [False, False, True, True]
    assert [one.micro for one in sizes] == [6, 6, 4, 6]
