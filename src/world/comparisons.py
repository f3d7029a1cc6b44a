"""Comparisons of two answers, rated by annotators whose noise is known (section 3.2.1).

An annotator feels the difference in worth of two answers with Gaussian noise, picks the better one and
says by how much. Safety comparisons come in the paper's three bins; none has the chosen answer unsafe and
the other safe.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .answers import Answer, comply, refuse, warn
from .questions import Question, ask
from .truth import Truth

NOISE = 0.15  # standard deviation of a felt difference, in units of worth
RATINGS = {"significantly_better": 0.55, "better": 0.35, "slightly_better": 0.15, "negligibly_better": 0.0}
SAFETY_BINS = {("safe", "unsafe"): 0.18, ("safe", "safe"): 0.47, ("unsafe", "unsafe"): 0.35}  # shares
BORDERLINE_SHARE, REFUSED_SHARE = 0.15, 0.06  # of helpfulness comparisons; of their answers
WARNED_SHARE = 0.4  # of harmful answers


def helpfulness_comparison(truth: Truth, rng: random.Random) -> dict[str, Any]:
    """Two answers of demonstration quality to one ordinary or borderline question."""
    question = ask(truth, "train", "borderline" if rng.random() < BORDERLINE_SHARE else "ordinary", rng)

    def write() -> Answer:
        return refuse(question, rng) if rng.random() < REFUSED_SHARE else comply(truth, question, rng)

    first, second = _different(write, write)
    felt = first.helpfulness - second.helpfulness + rng.gauss(0, NOISE)
    return _row(question, first, second, felt) | {"chosen_safe": None, "rejected_safe": None}


def safety_comparison(truth: Truth, rng: random.Random) -> dict[str, Any]:
    """Two answers to one harmful request, in one of the paper's three bins."""
    question = ask(truth, "train", "harmful", rng)
    labels = rng.choices(list(SAFETY_BINS), list(SAFETY_BINS.values()))[0]

    def write_safe() -> Answer:
        return refuse(question, rng)

    def write_unsafe() -> Answer:
        return warn(truth, question, rng) if rng.random() < WARNED_SHARE else comply(truth, question, rng)

    writers = {"safe": write_safe, "unsafe": write_unsafe}
    first, second = _different(*(writers[label] for label in labels))
    felt = first.safety - second.safety + rng.gauss(0, NOISE)
    if labels == ("safe", "unsafe"):
        felt = abs(felt)  # no annotator chose the unsafe answer over the safe one
    row = _row(question, first, second, felt)
    chosen, rejected = (first, second) if felt >= 0 else (second, first)
    return row | {"chosen_safe": chosen.safe, "rejected_safe": rejected.safe}


def _different(
    write_first: Callable[[], Answer], write_second: Callable[[], Answer]
) -> tuple[Answer, Answer]:
    """Two answers that differ: there is nothing to compare in equal ones."""
    first, second = write_first(), write_second()
    while second.text == first.text:
        second = write_second()
    return first, second


def _row(question: Question, first: Answer, second: Answer, felt: float) -> dict[str, Any]:
    chosen, rejected = (first, second) if felt >= 0 else (second, first)
    rating = next(name for name, least in RATINGS.items() if abs(felt) >= least)
    return {
        "prompt": [{"role": "user", "content": question.text}],
        "chosen": chosen.text,
        "rejected": rejected.text,
        "rating": rating,
    }
