"""The stage `refusal_classifier`: trains a classifier of refusals and measures it beside the phrases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.held_out import split_held_out
from ..data.intake import Intake
from ..data.rows import LabelledAnswer
from ..data.sources import read_labelled_answers
from ..errors import DataError
from ..model.refusal import agreement, is_refusal
from ..statistics import measure
from .settings import RefusalClassifierSettings
from .training import cross_validate, train_classifier


def run(settings: RefusalClassifierSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Trains a classifier, which `model.refusal_classifier.load_refusal_classifier` loads from `out`.

    Metrics: `answers` and `refusals` (training answers, and refusals among them), `ngrams`, `penalty`;
    `held_out` and `cross_validation`, each with the figures of `compare`: on held-out answers, and on the
    training answers by fits that did not see them; `held_out_seen` (number of held-out answers that equal a
    training answer); `losses` (cross-validation by penalty); those of `data.intake.Intake`.

    Raises DataError for an invalid row, and if refusals or other answers are missing or too few.
    """
    intake = Intake(settings.max_bad_rows)
    training, held_out = _read(settings, inputs["data"], intake)
    intake.write(out)
    validation = cross_validate(training, settings.seed)
    classifier = train_classifier(training, validation.penalty)
    classifier.save(out)
    trained_on = {row.answer for row in training}
    return {
        "answers": len(training),
        "refusals": sum(row.refusal for row in training),
        "ngrams": len(classifier.weights),
        "penalty": validation.penalty,
        "losses": {str(penalty): loss for penalty, loss in validation.losses.items()},
        "held_out": compare(held_out, classifier([row.answer for row in held_out])),
        "held_out_seen": sum(row.answer in trained_on for row in held_out),
        "cross_validation": compare(training, [logit > 0 for logit in validation.logits]),
        **intake.metrics(),
    }


def compare(answers: Sequence[LabelledAnswer], verdicts: Sequence[bool]) -> dict[str, Any]:
    """Compares a classifier's verdicts and those of the phrases with the labels.

    Keys: `answers`, `refusals` (numbers of them); `classifier` and `phrases`, each with `accuracy`,
    `precision` and `recall` of refusals and their standard errors (null: undefined); `agreement` of the two
    (`model.refusal.agreement`). All standard errors are clustered by equal answers.
    """
    phrases = [is_refusal(row.answer) for row in answers]
    return {
        "answers": len(answers),
        "refusals": sum(row.refusal for row in answers),
        "classifier": _rates(answers, verdicts),
        "phrases": _rates(answers, phrases),
        "agreement": agreement(verdicts, phrases, [row.answer for row in answers]),
    }


def _rates(answers: Sequence[LabelledAnswer], verdicts: Sequence[bool]) -> dict[str, float | None]:
    rates: dict[str, float | None] = {}
    judged = list(zip(answers, verdicts, strict=True))
    for name, chosen in (
        ("accuracy", judged),
        ("precision", [(row, verdict) for row, verdict in judged if verdict]),
        ("recall", [(row, verdict) for row, verdict in judged if row.refusal]),
    ):
        correct = [float(row.refusal == verdict) for row, verdict in chosen]
        rates |= measure(name, correct, [row.answer for row, _ in chosen])
    return rates


def _read(
    settings: RefusalClassifierSettings, root: Path, intake: Intake
) -> tuple[list[LabelledAnswer], list[LabelledAnswer]]:
    """Training and held-out answers, both with refusals and others."""
    training = read_labelled_answers(settings.answers, root, intake)
    if settings.test:
        held_out = read_labelled_answers(settings.test, root, intake)
    else:
        training, held_out = split_held_out(
            training, settings.held_out, settings.seed, key=lambda row: row.answer
        )
    for name, rows in (("training", training), ("held-out", held_out)):
        refusals = len({row.answer for row in rows if row.refusal})
        others = len({row.answer for row in rows if not row.refusal})
        fewest = 2 if name == "training" else 1  # every fit of the cross-validation needs one of each
        if min(refusals, others) < fewest:
            raise DataError(
                f"{name} answers: {refusals} different refusals and {others} different other answers; "
                f"expected at least {fewest} of each; add labelled answers"
                + (", or lower held_out" if settings.held_out else "")
            )
    return training, held_out
