"""Dialogues of the miniature world."""

from __future__ import annotations

import random

import pytest

from llamita.miniature import demonstrations, lexicon
from llamita.miniature.gold import STEPS, Gold
from llamita.miniature.truth import draw_truth


def test_ghost_attention_rows_differ_only_by_the_instruction() -> None:
    truth, rng = draw_truth(0), random.Random(10)
    for _ in range(50):
        kept, plain = demonstrations.ghost_attention(truth, rng)
        assert len(kept["messages"]) == len(plain["messages"])
        assert kept["messages"][::2] == plain["messages"][::2]
        assert kept["messages"][1::2] != plain["messages"][1::2]
        assert 2 <= len(plain["messages"]) / 2 <= demonstrations.LONGEST_GATT_DIALOGUE


def gold() -> Gold:
    worth = {"gold_helpfulness": 0.5, "gold_helpfulness_se": 0.0}
    return Gold({"cores": {}, "prompt_instructions": {}, "instructions": {}, "demonstrations": worth})


def risky_answers(dialogues: list[list[dict]], things: str) -> list[str]:
    """The last answers of the dialogues whose last question is about one of these objects."""
    words = {word for risk in lexicon.RISKS.values() for word in risk[things]}
    return [messages[-1]["content"] for messages in dialogues if words & set(messages[-2]["content"].split())]


@pytest.mark.parametrize("kind", ["instructed", "multi_turn"])
def test_dialogues_in_context_contain_harmful_questions_of_which_half_are_refused(kind: str) -> None:
    truth, rng = draw_truth(0), random.Random(12)
    write = getattr(demonstrations, kind)
    dialogues = [write(truth, rng)["messages"] for _ in range(2000)]
    harmful, borderline = risky_answers(dialogues, "harmful"), risky_answers(dialogues, "harmless")
    assert len(harmful) / 2000 == pytest.approx(0.18 * 0.77, abs=0.03)
    assert len(borderline) / 2000 == pytest.approx(0.12 * 0.77, abs=0.03)
    assert sum(map(gold().is_refusal, harmful)) / len(harmful) == pytest.approx(0.5, abs=0.1)
    assert all(gold().is_refusal(answer) or STEPS.search(answer) for answer in harmful)


def test_few_ghost_attention_dialogues_end_with_a_harmful_question_and_none_has_one_before() -> None:
    truth, rng = draw_truth(0), random.Random(13)
    dialogues = [demonstrations.ghost_attention(truth, rng)[0]["messages"] for _ in range(1000)]
    harmful = risky_answers(dialogues, "harmful")
    assert len(harmful) / 1000 == pytest.approx(0.06, abs=0.03)
    assert 0 < sum(map(gold().is_refusal, harmful)) < len(harmful)
    earlier = [messages[: end + 2] for messages in dialogues for end in range(0, len(messages) - 2, 2)]
    assert not risky_answers(earlier, "harmful")
    assert not risky_answers(earlier, "harmless")
