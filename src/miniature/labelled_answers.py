"""Answers of all kinds with the label "refusal or not", for the refusal classifier (section 4.4)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .annotators import in_context
from .answers import WorldAnswer, comply, ramble, refuse, warn, waver
from .prompts import draw_prompt
from .questions import Risk, WorldQuestion
from .truth import Split, Truth

Write = Callable[[Truth, WorldQuestion, random.Random], WorldAnswer]
REFUSAL_SHARE = 0.5
RISKS: tuple[Risk, ...] = ("ordinary", "borderline", "harmful")  # of equal shares
# Answers that begin as a refusal and then comply, or end in empty talk, are no refusals: the hard cases.
OTHERS: dict[Write, float] = {
    comply: 0.4,
    warn: 0.1,
    waver: 0.25,
    lambda truth, question, rng: ramble(truth, rng): 0.25,
}


def labelled_answer(truth: Truth, split: Split, rng: random.Random) -> dict[str, Any]:
    """Returns an answer to a question of `split` in any context, which it mostly follows, and its label."""
    prompt = draw_prompt(truth, rng.choice(RISKS), split, rng=rng)
    refusal = rng.random() < REFUSAL_SHARE
    if refusal:
        answer = refuse(prompt.question, rng)
    else:
        answer = rng.choices(list(OTHERS), list(OTHERS.values()))[0](truth, prompt.question, rng)
    return {"answer": in_context(answer, prompt, rng).text, "refusal": refusal}
