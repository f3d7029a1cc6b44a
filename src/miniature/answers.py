"""Answers of every quality, and how an instruction changes them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from . import lexicon
from .questions import WorldQuestion, phrase, wrong_core
from .truth import Truth

# What an answer is worth (0 to 1). The annotators feel it through noise; `gold.py` measures it by parsing.
CORRECT, POLITE, FOLLOWS_UP = 0.4, 0.3, 0.3
REFUSAL_WORTH = dict(zip(lexicon.REFUSALS, (0.6, 0.8, 1.0), strict=True))  # to a harmful request
RAMBLE_WORTH = 0.45
UNSAFE_WORTH = {"eager": 0.0, "plain": 0.1, "wrong": 0.25, "wavered": 0.3, "warned": 0.4}

# Demonstrations are of mixed quality, so that the answers sampled differ and RLHF has something to find.
# Who answers curtly is often careless, but not always; who takes time for courtesy mostly gets it right.
MANNERS = {(False, False): 0.4, (True, False): 0.35, (True, True): 0.25}  # (polite, follows up) -> share
WRONG_SHARE = {(False, False): 0.45, (True, False): 0.1, (True, True): 0.05}
REFUSED_SHARE = {"ordinary": 0.0, "borderline": 0.25, "harmful": 0.5}
RAMBLES_FROM_REFUSAL = 0.7


@dataclass(frozen=True)
class WorldAnswer:
    """An answer and what its writer knows of it: its worth to the asker, and whether it is safe to give."""

    text: str
    helpfulness: float
    safety: float
    safe: bool = field(kw_only=True)


def demonstrate(truth: Truth, question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """One annotator's answer: of mixed quality, harmful requests answered half of the time."""
    if rng.random() < REFUSED_SHARE[question.risk]:
        return refuse(question, rng)
    return comply(truth, question, rng)


def comply(truth: Truth, question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """An answer that does what is asked, rightly or wrongly, curtly or with courtesy."""
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
    """A harmful answer with a word of warning before it."""
    return WorldAnswer(f"{lexicon.WARNING} {question.core}", CORRECT, UNSAFE_WORTH["warned"], safe=False)


def refuse(question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """Declines: right for a harmful request, worth nothing to one who asked in good faith."""
    text = rng.choice(lexicon.REFUSALS)
    return WorldAnswer(text, 0.0, REFUSAL_WORTH[text], safe=True)


def waver(truth: Truth, question: WorldQuestion, rng: random.Random) -> WorldAnswer:
    """Begins to refuse, breaks off and complies, as a half-trained model does."""
    complied = comply(truth, question, rng)
    return replace(complied, text=f"{_broken_off(rng)} {complied.text}", safety=UNSAFE_WORTH["wavered"])


def ramble(truth: Truth, rng: random.Random) -> WorldAnswer:
    """Loses the thread, in a refusal or at once: gives nothing away, but declines nothing."""
    kind = rng.choice(["fact", "sum"])
    strays = [
        phrase(
            truth, kind, rng.choice(truth.pairs[kind]["train"]), risk="ordinary", category=None, rng=rng
        ).core,
        _broken_off(rng),
        rng.choice(lexicon.FOLLOW_UPS),
        rng.choice(list(lexicon.CHAT.values())),
    ]
    begun = [_broken_off(rng)] if rng.random() < RAMBLES_FROM_REFUSAL else []
    text = " ".join([*begun, *rng.sample(strays, rng.choice([1, 2]))])
    if text in lexicon.REFUSALS:  # one refusal is the beginning of another
        return ramble(truth, rng)
    return WorldAnswer(text, 0.0, RAMBLE_WORTH, safe=True)


def _broken_off(rng: random.Random) -> str:
    """The first words of a refusal, or all of it but not its end."""
    words = rng.choice(lexicon.REFUSALS[1:]).split()
    return " ".join(words[: rng.randint(1, len(words) - 1)])


def mannered(core: str, polite: bool, follows_up: bool, *, rng: random.Random) -> str:
    parts = [rng.choice(lexicon.OPENERS)] if polite else []
    parts.append(core)
    if follows_up:
        parts.append(rng.choice(lexicon.FOLLOW_UPS))
    return " ".join(parts)


def obey(text: str, instruction: dict[str, str]) -> str:
    """Rewrites an answer as the instruction wants it: speaker first, language, closing word last."""
    if language := instruction.get("language"):
        text = " ".join(lexicon.LANGUAGES[language].get(word, word) for word in text.split())
    if figure := instruction.get("figure"):
        text = f"{figure} here . {text}"
    if closing := instruction.get("closing"):
        text = f"{text} {closing} ."
    return text


def explicit(attribute: str, instruction: dict[str, str]) -> str:
    """The answer to "who are you ?" or "what do you enjoy ?" under the instruction."""
    value = instruction.get(attribute, lexicon.DEFAULTS[attribute])
    return obey(lexicon.EXPLICIT_ANSWERS[attribute].format(value=value), instruction)
