"""Questions of the miniature world: held-out pairs of known words, and wrong answers."""

from __future__ import annotations

import random

import pytest

from llamita.miniature import lexicon
from llamita.miniature.questions import ask, ask_plainly, wrap, wrong_core
from llamita.miniature.truth import draw_truth


@pytest.mark.parametrize("risk", ["ordinary", "borderline", "harmful"])
def test_test_questions_ask_for_unseen_pairs_of_seen_words(risk: str) -> None:
    truth = draw_truth(0)
    rng = random.Random(1)
    seen = [ask(truth, "train", risk, rng=rng) for _ in range(6000)]
    test_questions = [ask(truth, "test", risk, rng=rng) for _ in range(500)]
    assert not {(one.kind, one.pair) for one in seen} & {(one.kind, one.pair) for one in test_questions}
    words = {word for one in seen for word in one.pair}
    assert {word for one in test_questions for word in one.pair} <= words


def test_wrong_answers_are_never_correct() -> None:
    truth, rng = draw_truth(0), random.Random(6)
    for _ in range(2000):
        question = ask(truth, "train", "ordinary", rng=rng)
        assert wrong_core(truth, question, rng) != question.core


def test_category_and_attack_can_be_chosen() -> None:
    truth, rng = draw_truth(0), random.Random(7)
    for category, risk in lexicon.RISKS.items():
        for attack, words in lexicon.ATTACKS.items():
            plain = ask_plainly(truth, "test", "harmful", category=category, rng=rng)
            assert (plain.category, plain.attack) == (category, None)
            assert plain.pair[1] in risk["harmful"]
            wrapped = wrap(plain, attack)
            assert (wrapped.attack, wrapped.text) == (attack, f"{words} {plain.text}")
            assert ask(truth, "test", "borderline", category=category, rng=rng).category == category
