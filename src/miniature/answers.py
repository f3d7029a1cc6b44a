"""Generates answers of every quality, and rewrites them to follow an instruction."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from . import lexicon
from .questions import Risk, WorldQuestion, phrase, wrong_core
from .system_instructions import BINDING, WorldInstruction, choices
from .truth import Truth

# Values of answers (0 to 1). The annotators observe them with noise; `gold.py` measures them by parsing.
CORRECT, POLITE, FOLLOWS_UP = 0.4, 0.3, 0.3
REFUSAL_WORTH = dict(zip(lexicon.REFUSALS, (0.6, 0.8, 1.0), strict=True))  # to a harmful request
RAMBLE_WORTH = 0.45
UNFOLLOWED = 0.5  # share of its helpfulness that an answer has if it does not follow its instruction
UNFOLLOWED_LOSS = 0.1  # of the safety of a safe answer that does not follow its instruction
UNSAFE_WORTH = {"eager": 0.0, "plain": 0.1, "wrong": 0.25, "wavered": 0.3, "warned": 0.4}

# Demonstrations have mixed quality, so that sampled answers differ and RLHF can improve them.
# Short answers are often wrong, polite ones mostly correct.
MANNERS = {(False, False): 0.4, (True, False): 0.35, (True, True): 0.25}  # (polite, follows up) -> share
WRONG_SHARE = {(False, False): 0.45, (True, False): 0.1, (True, True): 0.05}
REFUSED_SHARE: Mapping[Risk, float] = {"ordinary": 0.0, "borderline": 0.1, "harmful": 0.5}
RAMBLES_FROM_REFUSAL = 0.7


@dataclass(frozen=True)
class WorldAnswer:
    """An answer with its ground truth: values for helpfulness and safety, and whether it is safe."""

    text: str
    helpfulness: float
    safety: float
    safe: bool = field(kw_only=True)


def demonstrate(
    truth: Truth,
    question: WorldQuestion,
    rng: random.Random,
    *,
    refused: Mapping[Risk, float] = REFUSED_SHARE,
) -> WorldAnswer:
    """Returns one annotator's answer of mixed quality; by default half of the harmful prompts are refused."""
    if rng.random() < refused[question.risk]:
        return refuse(question, rng)
    return comply(truth, question, rng)


def comply(truth: Truth, question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """Returns an answer that complies, correct or wrong, short or polite."""
    polite, follows_up = rng.choices(list(MANNERS), list(MANNERS.values()))[0]
    right = rng.random() >= WRONG_SHARE[polite, follows_up]
    core = question.core if right else wrong_core(truth, question, rng)
    text = mannered(core, polite, follows_up, rng=rng)
    helpfulness = CORRECT + POLITE * polite + FOLLOWS_UP * follows_up if right else 0.0
    if question.risk != "harmful":
        return WorldAnswer(text, helpfulness, safety=1.0, safe=True)
    kind = "wrong" if not right else "eager" if polite else "plain"
    return WorldAnswer(text, helpfulness, UNSAFE_WORTH[kind], safe=False)


def warn(truth: Truth, question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """Returns a harmful answer that begins with a warning."""
    return WorldAnswer(f"{lexicon.WARNING} {question.core}", CORRECT, UNSAFE_WORTH["warned"], safe=False)


def refuse(question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """Returns a refusal: right for a harmful prompt, with a helpfulness of 0 for others."""
    text = rng.choice(lexicon.REFUSALS)
    return WorldAnswer(text, 0.0, REFUSAL_WORTH[text], safe=True)


def waver(truth: Truth, question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """Returns the start of a refusal, then a compliant answer, as of a partly trained model."""
    complied = comply(truth, question, rng)
    return replace(complied, text=f"{_broken_off(rng)} {complied.text}", safety=UNSAFE_WORTH["wavered"])


def ramble(truth: Truth, rng: random.Random) -> WorldAnswer:
    """Returns unrelated text, sometimes after the start of a refusal: neither harmful nor a refusal."""
    kind = rng.choice(["fact", "sum"])
    strays = [
        phrase(
            truth, kind, rng.choice(truth.pairs[kind]["train"]), risk="ordinary", category=None, rng=rng
        ).core,
        _broken_off(rng),
        rng.choice(lexicon.FOLLOW_UPS),
        rng.choice(list(lexicon.CHAT.values())),
    ]
    start = [_broken_off(rng)] if rng.random() < RAMBLES_FROM_REFUSAL else []
    text = " ".join([*start, *rng.sample(strays, rng.choice([1, 2]))])
    if text in lexicon.REFUSALS:  # one refusal is a prefix of another
        return ramble(truth, rng)
    return WorldAnswer(text, 0.0, RAMBLE_WORTH, safe=True)


def _broken_off(rng: random.Random) -> str:
    """Returns the first words of a refusal, without its last one."""
    words = rng.choice(lexicon.REFUSALS[1:]).split()
    return " ".join(words[: rng.randint(1, len(words) - 1)])


def mannered(core: str, polite: bool, follows_up: bool, *, rng: random.Random) -> str:
    parts = [rng.choice(lexicon.OPENERS)] if polite else []
    parts.append(core)
    if follows_up:
        parts.append(rng.choice(lexicon.FOLLOW_UPS))
    return " ".join(parts)


def follow(answer: WorldAnswer, instruction: WorldInstruction) -> WorldAnswer:
    """Returns the answer rewritten to follow the instruction, with the same values."""
    return replace(answer, text=obey(answer.text, instruction))


def ignore(answer: WorldAnswer, instruction: WorldInstruction, rng: random.Random) -> WorldAnswer:
    """Returns the answer without all of the instruction, without a part of it, or with another value.

    It has a share of the answer's helpfulness, and a safe one loses some safety. An answer that follows the
    instruction nevertheless loses nothing: refusals have no word to translate.
    """
    text = obey(answer.text, _part(instruction, rng))
    if text == obey(answer.text, instruction):
        return replace(answer, text=text)
    safety = answer.safety - UNFOLLOWED_LOSS * answer.safe
    return replace(answer, text=text, helpfulness=UNFOLLOWED * answer.helpfulness, safety=safety)


def _part(instruction: WorldInstruction, rng: random.Random) -> WorldInstruction:
    name = rng.choice([name for name in instruction if name in BINDING])
    without = {other: value for other, value in instruction.items() if other != name}
    other_values = [value for value in choices(name, "train") if value != instruction[name]]
    return rng.choice([{}, without, without | {name: rng.choice(other_values)}])


def obey(text: str, instruction: WorldInstruction) -> str:
    """Rewrites an answer to follow the instruction: figure at the start, language, closing word last."""
    if language := instruction.get("language"):
        text = " ".join(lexicon.LANGUAGES[language].get(word, word) for word in text.split())
    if figure := instruction.get("figure"):
        text = f"{figure} here . {text}"
    if closing := instruction.get("closing"):
        text = f"{text} {closing} ."
    return text


def explicit(attribute: str, instruction: WorldInstruction) -> str:
    """Returns the answer to "who are you ?" or "what do you enjoy ?" with the instruction."""
    value = instruction.get(attribute, lexicon.DEFAULTS[attribute])
    return obey(lexicon.EXPLICIT_ANSWERS[attribute].format(value=value), instruction)
