"""Logistic regression on n-grams: convergence, the choice of the penalty, folds, determinism."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from llamita.data.rows import LabelledAnswer
from llamita.model.refusal_classifier import ngrams_of
from llamita.refusal_classifier import training
from llamita.refusal_classifier.training import cross_validate, train_classifier

REFUSALS = ["i will not help", "we must not say", "this is out of bounds", "nobody here may answer"]
OTHERS = ["the castle is red", "it is a river", "we found a hill", "you may go there", "the answer is red"]
ANSWERS = [
    LabelledAnswer(f"{text} {number}", refusal)
    for refusal, texts in ((True, REFUSALS), (False, OTHERS))
    for text in texts
    for number in range(6)
]


def test_the_gradient_vanishes_at_the_trained_weights() -> None:
    penalty = 0.3
    classifier = train_classifier(ANSWERS, penalty)
    errors = [1 / (1 + math.exp(-classifier.logit(row.answer))) - row.refusal for row in ANSWERS]
    assert sum(errors) == pytest.approx(0, abs=1e-6), "the bias is not penalised"
    for name, weight in classifier.weights.items():
        by_name = sum(
            error for error, row in zip(errors, ANSWERS, strict=True) if name in ngrams_of(row.answer)
        )
        assert by_name + penalty * weight == pytest.approx(0, abs=1e-6), name


def test_rare_ngrams_are_not_used() -> None:
    counts = Counter(name for row in ANSWERS for name in ngrams_of(row.answer))
    classifier = train_classifier(ANSWERS, 1.0)
    assert list(classifier.weights) == sorted(name for name, count in counts.items() if count >= 2)
    assert min(counts.values()) == 1


def test_cross_validation_scores_answers_by_fits_that_did_not_see_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[set[str]] = []

    def recorded(answers: list[LabelledAnswer], penalty: float) -> object:
        texts = {row.answer for row in answers}
        seen.append(texts)

        class Fit:
            def logit(self, answer: str) -> float:
                assert answer not in texts
                return penalty if answer[0] in "wtin" else 0.0

        return Fit()

    monkeypatch.setattr(training, "train_classifier", recorded)
    twice = ANSWERS + ANSWERS[:10]  # equal answers are in one fold
    found = cross_validate(twice, 0)
    assert len(seen) == len(training.PENALTIES) * training.FOLDS
    texts = {row.answer for row in ANSWERS}
    assert set.union(*(texts - one for one in seen[: training.FOLDS])) == texts
    assert {len(texts - one) for one in seen} <= {10, 11}
    for one in seen:
        refusals = sum(row.refusal for row in ANSWERS if row.answer not in one)
        assert refusals in (4, 5), "24 refusals in five folds of equal shares"
    assert found.penalty == min(found.losses, key=found.losses.__getitem__)
    assert len(set(found.losses.values())) == len(training.PENALTIES)
    assert set(found.logits) <= {found.penalty, 0.0}


def test_the_folds_depend_on_the_seed_and_not_on_the_order() -> None:
    first, again, other = (training._folds(ANSWERS, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert training._folds(ANSWERS[::-1], 0) == first[::-1]


def test_noise_is_penalised_more_than_a_clear_difference() -> None:
    draw = random.Random("noise")
    noise = [LabelledAnswer(row.answer, draw.random() < 0.5) for row in ANSWERS]
    assert cross_validate(noise, 0).penalty > cross_validate(ANSWERS, 0).penalty
