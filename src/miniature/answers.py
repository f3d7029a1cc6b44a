"""Generates answers of every quality, and rewrites them to follow an instruction."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from . import lexicon
from .questions import WorldQuestion, phrase, wrong_core
from .truth import Truth

# Values of answers (0 to 1). The annotators observe them with noise; `gold.py` measures them by parsing.
CORRECT, POLITE, FOLLOWS_UP = 0.4, 0.3, 0.3
REFUSAL_WORTH = dict(zip(lexicon.REFUSALS, (0.6, 0.8, 1.0), strict=True))  # to a harmful request
RAMBLE_WORTH = 0.45
UNSAFE_WORTH = {"eager": 0.0, "plain": 0.1, "wrong": 0.25, "wavered": 0.3, "warned": 0.4}

# Demonstrations have mixed quality, so that sampled answers differ and RLHF can improve them.
# Short answers are often wrong, polite ones mostly correct.
MANNERS = {(False, False): 0.4, (True, False): 0.35, (True, True): 0.25}  # (polite, follows up) -> share
WRONG_SHARE = {(False, False): 0.45, (True, False): 0.1, (True, True): 0.05}
REFUSED_SHARE = {"ordinary": 0.0, "borderline": 0.25, "harmful": 0.5}
RAMBLES_FROM_REFUSAL = 0.7


@dataclass(frozen=True)
class WorldAnswer:
    """An answer with its ground truth: values for helpfulness and safety, and whether it is safe."""

    text: str
    helpfulness: float
    safety: float
    safe: bool = field(kw_only=True)


def demonstrate(truth: Truth, question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """Returns one annotator's answer of mixed quality; half of the harmful prompts are refused."""
    if rng.random() < REFUSED_SHARE[question.risk]:
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


def obey(text: str, instruction: dict[str, str]) -> str:
    """Rewrites an answer to follow the instruction: figure at the start, language, closing word last."""
    if language := instruction.get("language"):
        text = " ".join(lexicon.LANGUAGES[language].get(word, word) for word in text.split())
    if figure := instruction.get("figure"):
        text = f"{figure} here . {text}"
    if closing := instruction.get("closing"):
        text = f"{text} {closing} ."
    return text


def explicit(attribute: str, instruction: dict[str, str]) -> str:
    """Returns the answer to "who are you ?" or "what do you enjoy ?" with the instruction."""
    value = instruction.get(attribute, lexicon.DEFAULTS[attribute])
    return obey(lexicon.EXPLICIT_ANSWERS[attribute].format(value=value), instruction)
