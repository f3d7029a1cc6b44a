"""When PPO stops, and which version is the best, by hand."""

from __future__ import annotations

import json

import pytest

from llamita.rlhf.ppo.early_stopping import EarlyStopping
from llamita.rlhf.ppo.held_out import Answer, Evaluation


def evaluation(*rewards: float, kl: float = 1.0) -> Evaluation:
    return Evaluation([Answer(reward, kl, 3, truncated=False) for reward in rewards])


def test_only_a_difference_above_its_error_is_an_improvement() -> None:
    rule = EarlyStopping(patience=2)
    rule.add(0, evaluation(0.1, 0.5))
    # differences 0.1 and 0.3: mean 0.2, standard error 0.1
    metrics = rule.add(10, evaluation(0.2, 0.8))
    assert rule.best == 10
    assert metrics["eval/reward"] == pytest.approx(0.5)
    assert metrics["eval/reward_difference"] == pytest.approx(0.2)
    assert metrics["eval/reward_difference_se"] == pytest.approx(0.1)
    # differences to the best 0.2 and -0.1: mean 0.05, standard error 0.15
    rule.add(20, evaluation(0.4, 0.7))
    assert (rule.best, rule.reason) == (10, None), "a higher mean within the error is none"
    assert rule.summary()["best_iteration"] == 10
    # equal shifts have no error, however small
    rule.add(30, evaluation(0.21, 0.81))
    assert rule.best == 30


def test_it_stops_after_evaluations_without_an_improvement() -> None:
    rule = EarlyStopping(patience=2)
    for iteration, reward in ((0, 0.5), (10, 0.4), (20, 0.6), (30, 0.6)):
        rule.add(iteration, evaluation(reward, reward))
        assert rule.reason is None
    rule.add(40, evaluation(0.5, 0.5))
    assert (rule.reason, rule.best) == ("reward", 20)
    summary = rule.summary()
    assert summary["stopped_by"] == "reward"
    assert summary["reward_difference"] == pytest.approx(0.1), "of the best version to the first"


def test_a_version_too_far_from_the_start_is_never_the_best() -> None:
    rule = EarlyStopping(patience=3, kl_limit=5.0)
    rule.add(0, evaluation(0.1, 0.1, kl=0))
    rule.add(10, evaluation(0.2, 0.2, kl=5.0))
    assert (rule.best, rule.reason) == (10, None)
    metrics = rule.add(20, evaluation(0.9, 0.9, kl=5.1))
    assert (rule.best, rule.reason) == (10, "kl")
    assert metrics["eval/kl"] == pytest.approx(5.1)


def test_the_state_survives_json() -> None:
    rule, resumed = EarlyStopping(patience=2), EarlyStopping(patience=2)
    rule.add(0, evaluation(0.1, 0.2 / 3))
    rule.add(10, evaluation(0.1, 0.2 / 3))
    resumed.load(json.loads(json.dumps(rule.state())))
    assert resumed == rule
    resumed.add(20, evaluation(0.1, 0.2 / 3))
    assert resumed.reason == "reward", "the count of evaluations continues"
