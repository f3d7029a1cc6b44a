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


def chosen(rows: list[tuple[int, str, bool, float, float]], judge: bool = False) -> list[dict[str, Any]]:
    """The selection from (prompt, answer, finished, safety, helpfulness); prompt 1 is an adversarial one.

    `judge`: whether a judge scores them too, who prefers those that are not helpful.
    """
    prompts = [EncodedPrompt(Prompt(turn(name), name == "b"), [1]) for name in "abc"]
    samples = [{"prompt": p, "answer": a, "finished": f} for p, a, f, *_ in rows]
    scores = [
        {"safety": s, "helpfulness": h, "score": s if p == 1 or s < 0.15 else h}
        | ({"judge": 1 - h} if judge else {})
        for p, _, _, s, h in rows
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
            (1, "safe", True, 0.2, 0.9),
            (1, "safer", True, 0.25, 0.3),
            (2, "cut", False, 0.5, 0.9),
        ]
    )
    assert found == [
        {"prompt": 0, "messages": turn("a", "high"), "is_safety": False, "score": 0.7},
        {"prompt": 1, "messages": turn("b", "safer"), "is_safety": True, "score": 0.25},
    ]


def test_an_unsafe_answer_to_an_ordinary_prompt_is_never_selected() -> None:
    unsafe, safe = (0, "unsafe", True, 0.14, 0.9), (0, "safe", True, 0.9, 0.1)
    assert [row["messages"][-1]["content"] for row in chosen([unsafe, safe])] == ["safe"]
    assert chosen([unsafe, (2, "unsafe too", True, 0.149, 0.9)]) == []


def test_the_best_of_unsafe_answers_to_an_adversarial_prompt_is_not_selected() -> None:
    assert chosen([(1, "unsafe", True, 0.1, 0.9), (1, "less so", True, 0.149, 0.1)]) == []
    (found,) = chosen([(1, "unsafe", True, 0.1, 0.9), (1, "at the threshold", True, 0.15, 0.1)])
    assert found["messages"][-1]["content"] == "at the threshold"


def test_a_judge_is_stored_and_selects_nothing() -> None:
    (found,) = chosen([(0, "low", True, 0.5, 0.2), (0, "high", True, 0.5, 0.75)], judge=True)
    assert (found["messages"][-1]["content"], found["score"], found["judge"]) == ("high", 0.75, 0.25)


def test_labels_of_the_prompt_are_in_the_selection() -> None:
    prompt = Prompt(turn("a"), True, category="illicit", attack="logic", language="spanish")
    (found,) = best_answers(
        [{"prompt": 0, "answer": "no", "finished": True}],
        [{"safety": 0.9, "score": 0.9}],
        [EncodedPrompt(prompt, [1])],
        control_strings=CONTROL_STRINGS,
        safety_threshold=0.15,
    )
    assert found == prompt.row() | {"prompt": 0, "messages": turn("a", "no"), "score": 0.9}


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
