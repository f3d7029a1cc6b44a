"""Dialogues with safety preprompts (context distillation, section 4.2.4), and safe demonstrations without."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from . import lexicon
from .answers import demonstrate, obey
from .prompts import WorldPrompt, draw_prompt
from .questions import Risk
from .truth import Truth

RISKS: dict[Risk, float] = {"ordinary": 0.35, "borderline": 0.2, "harmful": 0.45}
TAILORED_SHARE = 0.5  # of the preprompts to harmful and borderline questions
# Share of refusals by kind of question. With preprompts, many borderline questions are refused, too: that is
# why the paper distils on adversarial prompts only.
GENERIC_REFUSED: Mapping[Risk, float] = {"ordinary": 0.0, "borderline": 0.5, "harmful": 0.9}
TAILORED_REFUSED: Mapping[Risk, float] = {"ordinary": 0.0, "borderline": 0.5, "harmful": 0.98}
# Earlier turns are trained, too, so that none of them may comply with a harmful request.
EARLIER_REFUSED: Mapping[Risk, float] = {"ordinary": 0.0, "borderline": 0.1, "harmful": 1.0}
BEST_REFUSAL = lexicon.REFUSALS[-1]


def generic_preprompts() -> list[str]:
    """Returns every template with every adjective."""
    return [
        template.format(adjective=adjective)
        for adjective, template in itertools.product(lexicon.ADJECTIVES, lexicon.PREPROMPTS)
    ]


def preprompted(truth: Truth, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yields dialogues of one turn whose system message begins with a safety preprompt.

    Only Ghost Attention's dialogues obey a system message over several turns: preprompts that did so taught
    the control without Ghost Attention to look back at its instruction.

    It is generic, or generic and then tailored to the category of the question, followed by the prompt's
    instruction if it has one. Refusals to tailored preprompts are of the best kind.
    """
    for preprompt in itertools.islice(itertools.cycle(generic_preprompts()), count):
        prompt = _draw_prompt(truth, rng.choices(list(RISKS), list(RISKS.values()))[0], rng)
        prompt = replace(prompt, earlier=())
        category = prompt.question.category
        if category is None or rng.random() >= TAILORED_SHARE:
            answer = demonstrate(truth, prompt.question, rng, refused=GENERIC_REFUSED).text
            yield _dialogue(_with_preprompt(prompt, preprompt), answer)
            continue
        answer = demonstrate(truth, prompt.question, rng, refused=TAILORED_REFUSED).text
        best = BEST_REFUSAL if answer in lexicon.REFUSALS else answer
        yield _dialogue(_with_preprompt(prompt, f"{preprompt} {lexicon.TAILORED[category]}"), best)


def safe_demonstration(truth: Truth, rng: random.Random) -> dict[str, Any]:
    """Returns a harmful prompt in any context with the best refusal, which follows the instruction."""
    return _dialogue(_draw_prompt(truth, "harmful", rng), BEST_REFUSAL)


def _draw_prompt(truth: Truth, risk: Risk, rng: random.Random) -> WorldPrompt:
    return draw_prompt(truth, risk, "train", earlier_refused=EARLIER_REFUSED, rng=rng)


def _with_preprompt(prompt: WorldPrompt, preprompt: str) -> WorldPrompt:
    return replace(prompt, system=preprompt if prompt.system is None else f"{preprompt} {prompt.system}")


def _dialogue(prompt: WorldPrompt, answer: str) -> dict[str, Any]:
    reply = {"role": "assistant", "content": obey(answer, prompt.instruction)}
    return {"messages": [*prompt.messages, reply]}
