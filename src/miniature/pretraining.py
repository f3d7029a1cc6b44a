"""Generates the pretraining text of the world: all facts, sums and how-tos in many forms, and dialogues.

Each document is of one kind: an encyclopaedia entry with all facts about one entity, sums, a manual, a quiz
with the host's verdicts, or an interview in which the guest uses a language, an opener and a closing word for
some turns. Documents contain neither the chat format nor system instructions, which belong to fine-tuning.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from . import lexicon
from .answers import mannered, obey
from .questions import ORDINARY_KINDS, WorldQuestion, phrase, right_core, wrong_core
from .truth import Pair, Truth

T = TypeVar("T")

KINDS = {"entry": 0.15, "sums": 0.2, "manual": 0.05, "quiz": 0.2, "interview": 0.4}
SENTENCES = 8  # sentences per document
HABIT_SHARE = 0.8  # share of interviews in which the guest has a given habit
LONGEST_INTERVIEW = 36  # maximum number of answers; the dialogues of the retention test have this length
LONGEST_HABIT = 8  # maximum number of answers with the habits


class Encyclopaedia:
    """Writes documents; uses all combinations of a kind, in random order, before it repeats one."""

    def __init__(self, truth: Truth, rng: random.Random) -> None:
        self.truth, self.rng = truth, rng
        tables = {kind: _both(truth, kind) for kind in ORDINARY_KINDS}
        for name in truth.pairs:
            if "/" in name:
                tables["how_to"] += _both(truth, name)
        self.decks = {kind: _shuffled_forever(pairs, rng) for kind, pairs in tables.items()}
        self.entities = _shuffled_forever(lexicon.ENTITIES, rng)
        self.writers: dict[str, Callable[[], str]] = {
            "entry": self._entry,
            "sums": self._sums,
            "manual": self._manual,
            "quiz": self._quiz,
            "interview": self._interview,
        }

    def document(self) -> str:
        kind = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
        return self.writers[kind]()

    def _question(self, kind: str | None = None) -> WorldQuestion:
        kind = kind or self.rng.choices(list(ORDINARY_KINDS), list(ORDINARY_KINDS.values()))[0]
        return phrase(self.truth, kind, next(self.decks[kind]), risk="ordinary", category=None, rng=self.rng)

    def _entry(self) -> str:
        """Writes all facts about one entity; its repeated name also trains the model to copy names."""
        entity = next(self.entities)
        attributes = self.rng.sample(list(lexicon.ATTRIBUTES), len(lexicon.ATTRIBUTES))
        return " ".join(right_core(self.truth, "fact", (entity, attribute)) for attribute in attributes)

    def _sums(self) -> str:
        return " ".join(self._question("sum").core for _ in range(SENTENCES))

    def _manual(self) -> str:
        parts = []
        for _ in range(SENTENCES // 2):
            question = self._question("how_to")
            verb, thing = question.pair
            parts.append(f"to {verb} a {thing} , {question.core}")
        return " ".join(parts)

    def _quiz(self) -> str:
        """Writes questions with a guess and the host's verdict, from which correctness can be learned."""
        parts = ["the quiz begins ."]
        for _ in range(SENTENCES // 2):
            question = self._question()
            right = self.rng.random() < 0.5
            guess = question.core if right else wrong_core(self.truth, question, self.rng)
            manner = (self.rng.random() < 0.3, self.rng.random() < 0.2)
            parts += [
                question.text,
                mannered(guess, *manner, rng=self.rng),
                "right !" if right else "wrong !",
            ]
        return " ".join(parts)

    def _interview(self) -> str:
        """Writes questions and answers; for some turns the guest uses an opener, a language, a closing word.

        The paper's first models also forgot instructions after some turns (section 3.3); following one in a
        whole dialogue must be learned from Ghost Attention, not from this text. The end of the document
        states the habits again, so a model learns to attend to distant tokens.
        """
        habits = {"figure": lexicon.FIGURES, "language": list(lexicon.LANGUAGES), "closing": lexicon.CLOSINGS}
        habit = {
            name: self.rng.choice(values)
            for name, values in habits.items()
            if self.rng.random() < HABIT_SHARE
        }
        parts = ["the interview begins ."]
        parts += [f"the {name} is {value} ." for name, value in habit.items()]
        manner = (self.rng.random() < 0.4, self.rng.random() < 0.3)
        with_habits = self.rng.randint(1, LONGEST_HABIT)
        for number in range(self._answers()):
            question = self._question()
            answer = mannered(question.core, *manner, rng=self.rng)
            parts += [question.text, obey(answer, habit if number < with_habits else {})]
        if self.rng.random() < 0.2:
            parts += self.rng.choice(list(lexicon.CHAT.items()))
        parts.append("the interview ends .")
        parts += [f"the {name} was {value} ." for name, value in habit.items()]
        return " ".join(parts)

    def _answers(self) -> int:
        """Draws the number of answers, mostly small: most documents are short, some fill a row."""
        return 2 + int((LONGEST_INTERVIEW - 1) * self.rng.random() ** 2.5)


def _both(truth: Truth, kind: str) -> list[Pair]:
    return truth.pairs[kind]["train"] + truth.pairs[kind]["test"]


def _shuffled_forever(items: Sequence[T], rng: random.Random) -> Iterator[T]:
    while True:
        yield from rng.sample(items, len(items))


def write_documents(truth: Truth, count: int, rng: random.Random) -> Iterator[str]:
    encyclopaedia = Encyclopaedia(truth, rng)
    for _ in range(count):
        yield encyclopaedia.document()
