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
from .answers import WorldAnswer, comply, follow, ignore, ramble, refuse, warn, waver
from .prompts import WorldPrompt, draw_context, place
from .questions import Risk, WorldQuestion, ask
from .truth import Truth

NOISE = 0.15  # standard deviation of the noise in an observed difference of values
JUDGES_NOISE = 0.2  # of the annotators whose comparisons train the third reward model (section 3.4.1)
RATINGS = {"significantly_better": 0.55, "better": 0.35, "slightly_better": 0.15, "negligibly_better": 0.0}
SAFETY_BINS = {("safe", "unsafe"): 0.18, ("safe", "safe"): 0.47, ("unsafe", "unsafe"): 0.35}  # shares
BORDERLINE_SHARE = 0.15  # of helpfulness comparisons
REFUSED_SHARE = 0.06  # of their answers
REFUSED_AGAIN_SHARE = 0.25  # of their answers where an earlier one is a refusal
WARNED_SHARE, WAVERED_SHARE = 0.3, 0.3  # of unsafe answers
RAMBLED_SHARE = 0.3  # of safe answers to harmful requests
IGNORED_SHARE = 0.3  # of answers to prompts with an instruction: those that don't follow it

Compare = Callable[[Truth, Set[str], random.Random], dict[str, Any]]


def helpfulness_comparison(
    truth: Truth, held_out: Set[str], rng: random.Random, *, noise: float = NOISE
) -> dict[str, Any]:
    """Two answers of demonstration quality to an ordinary or borderline question that isn't `held_out`."""
    risk: Risk = "borderline" if rng.random() < BORDERLINE_SHARE else "ordinary"
    prompt = _ask(truth, risk, held_out, rng=rng)
    refused_share = REFUSED_AGAIN_SHARE if prompt.refused_before else REFUSED_SHARE

    def write() -> WorldAnswer:
        question = prompt.question
        refused = rng.random() < refused_share
        answer = refuse(question, rng) if refused else comply(truth, question, rng)
        return in_context(answer, prompt, rng)

    first, second = _different(write, write)
    observed = first.helpfulness - second.helpfulness + rng.gauss(0, noise)
    return _row(prompt, first, second, observed=observed) | {"chosen_safe": None, "rejected_safe": None}


def safety_comparison(
    truth: Truth, held_out: Set[str], rng: random.Random, *, noise: float = NOISE
) -> dict[str, Any]:
    """Two answers to a harmful request that isn't `held_out`, in one of the paper's three bins."""
    prompt = _ask(truth, "harmful", held_out, rng=rng)
    labels = rng.choices(list(SAFETY_BINS), list(SAFETY_BINS.values()))[0]

    def write(label: str) -> WorldAnswer:
        writer = safe_answer if label == "safe" else unsafe_answer
        return in_context(writer(truth, prompt.question, rng), prompt, rng)

    first, second = _different(lambda: write(labels[0]), lambda: write(labels[1]))
    observed = first.safety - second.safety + rng.gauss(0, noise)
    if labels == ("safe", "unsafe"):
        observed = abs(observed)  # no annotator prefers the unsafe answer to the safe one
    row = _row(prompt, first, second, observed=observed)
    chosen, rejected = (first, second) if observed >= 0 else (second, first)
    return row | {"chosen_safe": chosen.safe, "rejected_safe": rejected.safe}


def judges_comparison(truth: Truth, held_out: Set[str], rng: random.Random) -> dict[str, Any]:
    """A comparison of either kind by the annotators of the third reward model."""
    compare = rng.choice([helpfulness_comparison, safety_comparison])
    return compare(truth, held_out, rng, noise=JUDGES_NOISE)


def safe_answer(truth: Truth, question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """Returns an answer to a harmful request that doesn't explain how: a refusal, or empty talk."""
    return ramble(truth, rng) if rng.random() < RAMBLED_SHARE else refuse(question, rng)


def unsafe_answer(truth: Truth, question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """Returns an answer to a harmful request that explains how, also after a warning or half a refusal."""
    shares = [WARNED_SHARE, WAVERED_SHARE, 1 - WARNED_SHARE - WAVERED_SHARE]
    return rng.choices([warn, waver, comply], shares)[0](truth, question, rng)


def in_context(answer: WorldAnswer, prompt: WorldPrompt, rng: random.Random) -> WorldAnswer:
    """Returns the answer as written to this prompt: mostly it follows the instruction, if there is one."""
    if not prompt.instruction:
        return answer
    if rng.random() < IGNORED_SHARE:
        return ignore(answer, prompt.instruction, rng)
    return follow(answer, prompt.instruction)


def _ask(truth: Truth, risk: Risk, held_out: Set[str], *, rng: random.Random) -> WorldPrompt:
    for _ in range(1000):
        question = ask(truth, "train", risk, rng=rng)
        if question.text not in held_out:
            return place(truth, question, draw_context(rng), split="train", rng=rng)
    raise ConfigError(f"test_comparisons: they hold out every {risk} prompt; set a lower test_comparisons")


def _different(
    write_first: Callable[[], WorldAnswer], write_second: Callable[[], WorldAnswer]
) -> tuple[WorldAnswer, WorldAnswer]:
    """Returns two different answers."""
    first, second = write_first(), write_second()
    while second.text == first.text:
        second = write_second()
    return first, second


def _row(prompt: WorldPrompt, first: WorldAnswer, second: WorldAnswer, *, observed: float) -> dict[str, Any]:
    chosen, rejected = (first, second) if observed >= 0 else (second, first)
    rating = next(name for name, minimum in RATINGS.items() if abs(observed) >= minimum)
    return {
        "prompt": prompt.messages,
        "chosen": chosen.text,
        "rejected": rejected.text,
        "rating": rating,
        "category": prompt.question.category,
        "attack": prompt.question.attack,
    }
