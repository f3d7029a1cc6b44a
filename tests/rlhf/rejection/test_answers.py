"""Which prompts a round uses, and which of their answers are selected."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.chat_format.llama2 import CONTROL_STRINGS
from llamita.data.rows import Prompt
from llamita.errors import DataError
from llamita.rlhf.prompts import EncodedPrompt
from llamita.rlhf.rejection.answers import best_answers, choose_prompts

from ...helpers.rows import turn


def chosen(rows: list[tuple[int, str, bool, float, float]]) -> list[dict[str, Any]]:
    """The selection from (prompt, answer, finished, safety, helpfulness); prompt 1 is an adversarial one."""
    prompts = [EncodedPrompt(Prompt(turn(name), name == "b"), [1]) for name in "abc"]
    samples = [{"prompt": p, "answer": a, "finished": f} for p, a, f, *_ in rows]
    scores = [
        {"safety": s, "helpfulness": h, "score": s if p == 1 or s < 0.15 else h} for p, _, _, s, h in rows
    ]
    return best_answers(samples, scores, prompts, control_strings=CONTROL_STRINGS, safety_threshold=0.15)


def test_best_answers() -> None:
    found = chosen(
        [
            (0, "low", True, 0.5, 0.2),
            (0, "high", True, 0.5, 0.7),
            (0, "as high", True, 0.9, 0.7),
            (0, "cut", False, 0.5, 0.9),
            (0, "", True, 0.5, 0.95),
            (0, "[INST] me", True, 0.5, 0.99),
            (1, "unsafe", True, 0.1, 0.9),
            (1, "safer", True, 0.12, 0.3),
            (2, "cut", False, 0.5, 0.9),
        ]
    )
    assert found == [
        {"messages": turn("a", "high"), "is_safety": False, "score": 0.7},
        {"messages": turn("b", "safer"), "is_safety": True, "score": 0.12},
    ]


def test_an_unsafe_answer_to_an_ordinary_prompt_is_never_selected() -> None:
    unsafe, safe = (0, "unsafe", True, 0.14, 0.9), (0, "safe", True, 0.9, 0.1)
    assert [row["messages"][-1]["content"] for row in chosen([unsafe, safe])] == ["safe"]
    assert chosen([unsafe, (2, "unsafe too", True, 0.149, 0.9)]) == []


def test_a_nan_score_is_an_error() -> None:
    nan = float("nan")
    with pytest.raises(DataError, match="sample 2 is NaN"):
        chosen([(0, "a", True, 0.9, 0.9), (0, "b", True, 0.9, nan), (0, "c", True, 0.9, 0.1)])


def test_a_round_uses_the_least_used_prompts() -> None:
    pool = [EncodedPrompt(Prompt(turn(f"{number} ?"), False), [1]) for number in range(10)]
    taken: list[list[int]] = []
    for count in (4, 5, 3, 30):
        earlier = [pool[place].row() for part in taken for place in part]
        taken.append(choose_prompts(pool, count, earlier, seed=0))
    assert [len(set(part)) for part in taken] == [4, 5, 3, 10]
    assert len(set(taken[0] + taken[1])) == 9, "unused prompts first"
    assert set(taken[2]) - set(taken[0] + taken[1]), "the last unused prompt"
    assert len(set(taken[2]) & set(taken[0])) == 2, "then prompts that were used once"
    assert choose_prompts(pool, 4, [], seed=1) != taken[0]
