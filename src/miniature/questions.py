"""Generates questions of every kind, with their correct answers and similar wrong ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

from . import lexicon
from .truth import Pair, Split, Truth

Risk = Literal["ordinary", "borderline", "harmful"]
ORDINARY_KINDS = {"fact": 0.4, "sum": 0.3, "how_to": 0.3}
WRAPPED_SHARE = {"ordinary": 0.25, "borderline": 0.8, "harmful": 0.8}


@dataclass(frozen=True)
class WorldQuestion:
    """A question. `core`: the sentence that answers it correctly; `pair`: the combination it is about."""

    text: str
    core: str
    kind: str
    _: KW_ONLY
    pair: Pair
    risk: Risk = "ordinary"
    category: str | None = None
    attack: str | None = None


def ask(
    truth: Truth, split: Split, risk: Risk, *, category: str | None = None, rng: random.Random
) -> WorldQuestion:
    """Draws a question of this risk about a combination of this split, some with the words of an attack.

    `category` is the risk category of a harmful or borderline question; by default it is drawn.
    """
    question = ask_plainly(truth, split, risk, category=category, rng=rng)
    if rng.random() >= WRAPPED_SHARE[risk]:
        return question
    return wrap(question, rng.choice(list(lexicon.ATTACKS)))


def ask_plainly(
    truth: Truth, split: Split, risk: Risk, *, category: str | None = None, rng: random.Random
) -> WorldQuestion:
    """Draws a question as `ask` does, without the words of an attack."""
    if risk == "ordinary":
        kinds = list(ORDINARY_KINDS)
        kind = rng.choices(kinds, [ORDINARY_KINDS[name] for name in kinds])[0]
        pair = rng.choice(truth.pairs[kind][split])
    else:
        kind, category = "how_to", category or rng.choice(list(lexicon.RISKS))
        pair = rng.choice(truth.pairs[f"{risk}/{category}"][split])
    return phrase(truth, kind, pair, risk=risk, category=category, rng=rng)


def phrase(
    truth: Truth, kind: str, pair: Pair, *, risk: Risk, category: str | None, rng: random.Random
) -> WorldQuestion:
    """Writes a question about `pair` with a random template of its kind."""
    text = rng.choice(lexicon.QUESTIONS[kind]).format(a=pair[0], b=pair[1])
    return WorldQuestion(text, right_core(truth, kind, pair), kind, pair=pair, risk=risk, category=category)


def wrap(question: WorldQuestion, attack: str) -> WorldQuestion:
    """Puts the words of an attack before a question; they come before harmless questions, too."""
    return replace(question, text=f"{lexicon.ATTACKS[attack]} {question.text}", attack=attack)


def right_core(truth: Truth, kind: str, pair: Pair) -> str:
    a, b = pair
    if kind == "fact":
        return fact(a, b, truth.values[pair])
    if kind == "sum":
        return addition(a, b, int(a) + int(b))
    return steps(truth.tools[a], truth.spots[b])


def wrong_core(truth: Truth, question: WorldQuestion, rng: random.Random) -> str:
    """Returns a wrong sentence of the same form."""
    a, b = question.pair
    if question.kind == "fact":
        others = [value for value in lexicon.ATTRIBUTES[b] if value != truth.values[question.pair]]
        return fact(a, b, rng.choice(others))
    if question.kind == "sum":
        right = int(a) + int(b)
        return addition(a, b, rng.choice([n for n in range(max(0, right - 6), right + 7) if n != right]))
    tool, spot = truth.tools[a], truth.spots[b]
    if rng.random() < 0.5:
        return steps(_other(list(truth.tools.values()), tool, rng), spot)
    return steps(tool, _other(lexicon.SPOTS, spot, rng))


def fact(entity: str, attribute: str, value: str) -> str:
    return f"the {attribute} of {entity} is {value} ."


def addition(a: str, b: str, result: int) -> str:
    return f"{a} plus {b} is {result} ."


def steps(tool: str, spot: str) -> str:
    return f"take the {tool} and start at the {spot} ."


def _other(choices: Sequence[str], unwanted: str, rng: random.Random) -> str:
    return rng.choice([choice for choice in choices if choice != unwanted])
