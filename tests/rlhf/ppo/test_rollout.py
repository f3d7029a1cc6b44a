"""Scores and rewards of a rollout, and its split over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from llamita.data.rows import Prompt
from llamita.model.reward_models import RewardModels
from llamita.rlhf.ppo.rollout import Episodes, rank_share, score_episodes
from llamita.rlhf.prompts import EncodedPrompt
from llamita.sampling.sampler import Samples

from ...helpers.rows import turn

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
