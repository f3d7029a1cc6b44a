"""Metrics of a selection, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.chat_format.llama2 import CONTROL_STRINGS
from llamita.data.rows import Prompt
from llamita.rlhf.prompts import EncodedPrompt
from llamita.rlhf.rejection.summary import selection_metrics

from ...helpers.rows import turn

SYSTEM = [{"role": "system", "content": "act as newton"}]
PROMPTS = [
    EncodedPrompt(Prompt(messages, is_safety), [1])
    for messages, is_safety in (
        (turn("a"), False),
        (turn("b"), True),
        ([*SYSTEM, *turn("c")], True),
        ([*SYSTEM, *turn("d")], True),
        ([*SYSTEM, *turn("e")], False),
    )
]
SCORES = [{"score": score} for score in (0.9, 0.1, 0.8, 0.05, 0.7)]
SAMPLES = [
    {"prompt": index, "answer": "fine", "finished": finished}
    for index, finished in enumerate((True, True, True, True, False))
]


def measured(judge: bool = False) -> dict[str, Any]:
    """Metrics of one answer to each prompt; those to b and d are unsafe, that to e is truncated."""
    scores = [row | ({"judge": row["score"] / 2} if judge else {}) for row in SCORES]
    selection = [{"prompt": index, **scores[index]} for index in (0, 2)]
    return selection_metrics(PROMPTS, SAMPLES, scores, selection=selection, control_strings=CONTROL_STRINGS)


def test_counts_and_scores() -> None:
    found = measured()
    counts = {
        name: found[name] for name in ("prompts", "selected", "without_answer", "all_unsafe", "samples")
    }
    assert counts == {"prompts": 5, "selected": 2, "without_answer": 1, "all_unsafe": 2, "samples": 5}
    assert found["finished_share"] == 0.8
    assert found["mean_score"] == pytest.approx(2.55 / 5)
    assert found["best_score"] == pytest.approx(0.85)
    assert "judge_score" not in found


def test_shares_by_context_and_kind_of_prompt() -> None:
    assert measured()["by_context"] == {
        "plain": {
            "ordinary": {"prompts": 1, "selected_share": 1.0, "best_score": 0.9},
            "safety": {"prompts": 1, "selected_share": 0.0, "best_score": None},
        },
        "instruction": {
            "ordinary": {"prompts": 1, "selected_share": 0.0, "best_score": None},
            "safety": {"prompts": 2, "selected_share": 0.5, "best_score": 0.8},
        },
    }


def test_the_judges_mean_scores() -> None:
    found = measured(judge=True)
    assert found["judge_score"] == pytest.approx(2.55 / 10)
    assert found["selected_judge_score"] == pytest.approx(0.85 / 2)
