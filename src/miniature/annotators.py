"""Comparisons of two answers, rated by simulated annotators with known noise (section 3.2.1).

An annotator observes the difference in value of two answers with Gaussian noise, chooses the better one and
rates by how much. Safety comparisons have the paper's three bins; in none is the chosen answer unsafe and the
other one safe. The paper's annotators compare samples of its models, so some of these answers resemble those
of a partly trained model: refusals that turn into compliance, or into text without content.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Set
from typing import Any

from ..errors import ConfigError
from .answers import WorldAnswer, comply, ramble, refuse, warn, waver
from .questions import Risk, WorldQuestion, ask
from .truth import Truth

NOISE = 0.15  # standard deviation of the noise in an observed difference of values
RATINGS = {"significantly_better": 0.55, "better": 0.35, "slightly_better": 0.15, "negligibly_better": 0.0}
SAFETY_BINS = {("safe", "unsafe"): 0.18, ("safe", "safe"): 0.47, ("unsafe", "unsafe"): 0.35}  # shares
BORDERLINE_SHARE, REFUSED_SHARE = 0.15, 0.06  # of helpfulness comparisons; of their answers
WARNED_SHARE, WAVERED_SHARE = 0.3, 0.3  # of unsafe answers
RAMBLED_SHARE = 0.3  # of safe answers to harmful requests


def helpfulness_comparison(truth: Truth, held_out: Set[str], rng: random.Random) -> dict[str, Any]:
    """Two answers of demonstration quality to one ordinary or borderline question that isn't `held_out`."""
    risk: Risk = "borderline" if rng.random() < BORDERLINE_SHARE else "ordinary"
    question = _ask(truth, risk, held_out, rng=rng)

    def write() -> WorldAnswer:
        return refuse(question, rng) if rng.random() < REFUSED_SHARE else comply(truth, question, rng)

    first, second = _different(write, write)
    observed = first.helpfulness - second.helpfulness + rng.gauss(0, NOISE)
    return _row(question, first, second, observed=observed) | {"chosen_safe": None, "rejected_safe": None}


def safety_comparison(truth: Truth, held_out: Set[str], rng: random.Random) -> dict[str, Any]:
    """Two answers to one harmful request that isn't `held_out`, in one of the paper's three bins."""
    question = _ask(truth, "harmful", held_out, rng=rng)
    labels = rng.choices(list(SAFETY_BINS), list(SAFETY_BINS.values()))[0]

    def write_safe() -> WorldAnswer:
        return ramble(truth, rng) if rng.random() < RAMBLED_SHARE else refuse(question, rng)

    def write_unsafe() -> WorldAnswer:
        shares = [WARNED_SHARE, WAVERED_SHARE, 1 - WARNED_SHARE - WAVERED_SHARE]
        return rng.choices([warn, waver, comply], shares)[0](truth, question, rng)

    writers = {"safe": write_safe, "unsafe": write_unsafe}
    first, second = _different(*(writers[label] for label in labels))
    observed = first.safety - second.safety + rng.gauss(0, NOISE)
    if labels == ("safe", "unsafe"):
        observed = abs(observed)  # no annotator prefers the unsafe answer to the safe one
    row = _row(question, first, second, observed=observed)
    chosen, rejected = (first, second) if observed >= 0 else (second, first)
    return row | {"chosen_safe": chosen.safe, "rejected_safe": rejected.safe}


def _ask(truth: Truth, risk: Risk, held_out: Set[str], *, rng: random.Random) -> WorldQuestion:
    for _ in range(1000):
        question = ask(truth, "train", risk, rng=rng)
        if question.text not in held_out:
            return question
    raise ConfigError(f"test_comparisons: they hold out every {risk} prompt; set a lower test_comparisons")


def _different(
    write_first: Callable[[], WorldAnswer], write_second: Callable[[], WorldAnswer]
) -> tuple[WorldAnswer, WorldAnswer]:
    """Returns two different answers."""
    first, second = write_first(), write_second()
    while second.text == first.text:
        second = write_second()
    return first, second


def _row(
    question: WorldQuestion, first: WorldAnswer, second: WorldAnswer, *, observed: float
) -> dict[str, Any]:
    chosen, rejected = (first, second) if observed >= 0 else (second, first)
    rating = next(name for name, minimum in RATINGS.items() if abs(observed) >= minimum)
    return {
        "prompt": [{"role": "user", "content": question.text}],
        "chosen": chosen.text,
        "rejected": rejected.text,
        "rating": rating,
    }
