"""When the warning about the judge's score is printed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from llamita.rlhf.ppo.early_warning import EarlyWarning

NOISE = (0.01, -0.01, 0.0, 0.01, -0.01)
RISING = [0.5 + noise for noise in NOISE] + [0.6 + noise for noise in NOISE]
FALLING = [1 - score for score in RISING]
FLAT = [0.5 + noise for noise in NOISE] * 2


def rows(reward: Sequence[float], judge: Sequence[float]) -> list[dict[str, float]]:
    return [
        {"step": step, "ppo/reward": score, "ppo/judge_score": judged}
        for step, (score, judged) in enumerate(zip(reward, judge, strict=True), start=1)
    ]


def warned_at(reward: Sequence[float], judge: Sequence[float]) -> int | None:
    warning = EarlyWarning()
    for row in rows(reward, judge):
        warning.check(row, int(row["step"]))
    return warning.iteration


@pytest.mark.parametrize(
    ("reward", "judge", "expected"),
    [
        (RISING, FALLING, 10),
        (RISING, RISING, None),
        (FALLING, FALLING, None),
        (RISING, FLAT, None),
        (FLAT, FALLING, None),
        (RISING[1:], FALLING[1:], None),  # too few iterations
        ([0.5] * 5 + [0.6] * 5, [0.5] * 5 + [0.4] * 5, 10),  # no spread within the windows
        (FLAT[:5] + RISING, FLAT[:5] + FALLING, 14),  # only the last ten iterations count
    ],
)
def test_it_needs_a_rise_and_a_fall(
    reward: Sequence[float], judge: Sequence[float], expected: int | None
) -> None:
    assert warned_at(reward, judge) == expected


def test_a_constant_judge_causes_few_false_warnings() -> None:
    """While the reward rises from iteration to iteration, as in PPO; every iteration is tested."""
    warned = 0
    for seed in range(40):
        rng = random.Random(seed)
        reward = [0.3 * step + rng.gauss(0, 1) for step in range(100)]
        warned += warned_at(reward, [rng.gauss(0, 1) for _ in reward]) is not None
    assert warned <= 1


def test_a_steady_fall_of_the_judge_is_found() -> None:
    warned = 0
    for seed in range(40):
        rng = random.Random(seed)
        reward = [0.3 * step + rng.gauss(0, 1) for step in range(25)]
        warned += warned_at(reward, [-0.6 * step + rng.gauss(0, 1) for step in range(25)]) is not None
    assert warned >= 35


def test_it_warns_once_also_after_a_resume(capsys: pytest.CaptureFixture[str]) -> None:
    history = rows(RISING + [0.7] * 5, FALLING + [0.2] * 5)
    warning = EarlyWarning(history[:8])
    for row in history[8:]:
        warning.check(row, int(row["step"]))
    assert warning.iteration == 10
    assert capsys.readouterr().out.count("the reward rose while the judge's score fell") == 1
    resumed = EarlyWarning(history[:12])
    for row in history[12:]:
        resumed.check(row, int(row["step"]))
    assert resumed.iteration == 10
    assert "warning" not in capsys.readouterr().out


def test_without_a_judge_nothing_happens() -> None:
    warning = EarlyWarning([{"step": 1, "ppo/reward": 0.5}])
    warning.check({"ppo/reward": 0.5}, 2)
    assert warning.iteration is None
