"""Verdicts, shares of wins with intervals, and agreement of raters."""

from __future__ import annotations

import pytest

from llamita.comparison.verdicts import LOSS, TIE, WIN, agreement, by_scores, compare, shares
from llamita.intervals import wilson
from llamita.judges.agreement import ac2


def test_scores_within_the_margin_are_a_tie() -> None:
    first, second = [0.5, 0.5, 0.75, 0.25, None, 0.1], [0.5, 0.25, 0.5, 0.75, 0.5, None]
    assert by_scores(first, second) == {0: TIE, 1: WIN, 2: WIN, 3: LOSS}
    assert by_scores(first, second, margin=0.25) == {0: TIE, 1: TIE, 2: TIE, 3: LOSS}


def test_swapping_the_models_swaps_wins_and_losses() -> None:
    first, second = [0.1, 0.9, 0.4, 0.4, 0.7], [0.3, 0.2, 0.4, 0.1, 0.1]
    one = shares(by_scores(first, second), range(5))
    other = shares(by_scores(second, first), range(5))
    assert (one["win"], one["tie"], one["loss"]) == (0.6, 0.2, 0.2)
    for end in ("", "_low", "_high"):
        assert one[f"win{end}"] == other[f"loss{end}"]
        assert one[f"tie{end}"] == other[f"tie{end}"]
    assert one["net"] == -other["net"] == pytest.approx(0.4)


def test_intervals_are_wilsons_for_independent_pairs() -> None:
    verdicts = dict(enumerate([WIN] * 36 + [TIE] * 32 + [LOSS] * 32))
    found = shares(verdicts, range(100))
    assert (found["win_low"], found["win_high"]) == pytest.approx(wilson(0.36, 100))
    assert (found["loss_low"], found["loss_high"]) == pytest.approx(wilson(0.32, 100))
    assert (found["pairs"], found["prompts"], found["undecided"]) == (100, 100, 0)


def test_pairs_of_one_prompt_are_dependent() -> None:
    """Four equal verdicts on each of 25 prompts are worth 25 verdicts, not 100."""
    by_prompt = [WIN] * 9 + [TIE] * 8 + [LOSS] * 8
    verdicts = dict(enumerate(verdict for verdict in by_prompt for _ in range(4)))
    groups = [prompt for prompt in range(25) for _ in range(4)]
    found = shares(verdicts, groups)
    assert found["prompts"] == 25
    width = found["win_high"] - found["win_low"]
    assert width == pytest.approx(wilson(0.36, 25)[1] - wilson(0.36, 25)[0], rel=0.03)
    assert width > 1.8 * (wilson(0.36, 100)[1] - wilson(0.36, 100)[0])


def test_undecided_pairs_are_counted_and_in_no_share() -> None:
    found = shares({3: WIN, 5: None, 6: LOSS, 9: None}, range(10))
    assert (found["win"], found["loss"], found["pairs"], found["undecided"]) == (0.5, 0.5, 2, 2)
    nothing = shares({3: None}, range(10))
    assert (nothing["win"], nothing["win_low"], nothing["net"], nothing["undecided"]) == (None, None, None, 1)


def test_agreement_is_gwets_ac2_on_the_scale_loss_tie_win() -> None:
    raters = {
        "helpfulness": {0: WIN, 1: WIN, 2: TIE, 3: LOSS},
        "gold": {0: WIN, 1: TIE, 2: TIE, 3: WIN, 4: WIN},
        "endpoint": {0: WIN, 1: None, 3: LOSS},
    }
    found = agreement(raters)
    rows = [[3, 3, 3], [3, 2], [2, 2], [1, 3, 1], [3]]
    assert found["ac2"] == ac2(rows, 3)
    assert found["pairs"] == 4
    assert found["between"] == {
        "helpfulness": {
            "gold": ac2([[3, 3], [3, 2], [2, 2], [1, 3], [3]], 3),
            "endpoint": ac2([[3, 3], [3], [2], [1, 1]], 3),
        },
        "gold": {"endpoint": ac2([[3, 3], [2], [2], [3, 1], [3]], 3)},
    }
    assert agreement({"gold": {0: WIN}})["ac2"] is None


def test_kinds_of_prompts_are_apart() -> None:
    raters = {"safety": {1: WIN, 3: LOSS}, "gold": {0: WIN, 1: WIN, 2: TIE}, "nobody": {}}
    found = compare(raters, ["ordinary", "harmful", "ordinary", "harmful", "borderline"], range(5))
    assert {kind: list(group["raters"]) for kind, group in found.items()} == {
        "ordinary": ["gold"],
        "harmful": ["safety", "gold"],
    }
    assert found["ordinary"]["raters"]["gold"]["win"] == 0.5
    assert found["harmful"]["raters"]["safety"]["loss"] == 0.5
