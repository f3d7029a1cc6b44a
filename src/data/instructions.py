"""Instructions that code can check on any text, for Ghost Attention where no truth is known (section 3.3).

As in the paper an instruction is shortened for training half of the time ("Act as Napoleon from now on"
becomes "Figure: Napoleon").
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from ..errors import ConfigError, DataError

Kind = Literal["language", "name", "lower_case", "ending", "no_commas", "word"]
KINDS: tuple[Kind, ...] = ("language", "name", "lower_case", "ending", "no_commas", "word")

LANGUAGES = {"French": "fr", "German": "de", "Italian": "it", "Portuguese": "pt", "Spanish": "es"}
VALUES: dict[Kind, tuple[str, ...]] = {
    "language": tuple(LANGUAGES),
    "name": ("Ada", "Bruno", "Clara", "Dimitri", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas"),
    "lower_case": ("",),
    "ending": ("over and out", "so it goes", "at your service", "and that is that", "until next time"),
    "no_commas": ("",),
    "word": ("river", "lantern", "copper", "garden", "compass", "thunder", "velvet", "harbour"),
}
LONG: dict[Kind, str] = {
    "language": "Always answer in {}.",
    "name": "Your name is {}. Say your name in every answer.",
    "lower_case": "Write everything in lower case letters only.",
    "ending": 'End every answer with the words "{}".',
    "no_commas": "Write without any commas.",
    "word": 'Use the word "{}" in every answer.',
}
SHORT: dict[Kind, str] = {
    "language": "Language: {}",
    "name": "Name: {}",
    "lower_case": "Style: lower case",
    "ending": 'Ending: "{}"',
    "no_commas": "Style: no commas",
    "word": 'Word: "{}"',
}
SHORTEST_TOLD = 3  # words from which a language can be told


@dataclass(frozen=True)
class Instruction:
    """One thing to keep to. `value`: the language, the name, … where its kind has one."""

    kind: Kind
    value: str = ""

    @property
    def text(self) -> str:
        """As the model is told."""
        return LONG[self.kind].format(self.value)

    @property
    def short(self) -> str:
        """As half of the training dialogues state it."""
        return SHORT[self.kind].format(self.value)

    def is_followed_by(self, answer: str) -> bool:
        """Whether an answer keeps to it; an empty one keeps to nothing."""
        return bool(answer.strip()) and _CHECKS[self.kind](answer, self.value)

    def row(self) -> dict[str, str]:
        """As a test set holds it, see `read_instruction`."""
        return {"kind": self.kind, "value": self.value}


def read_instruction(row: Mapping[str, Any]) -> Instruction:
    """What `Instruction.row` gave. Raises DataError for an unknown kind or value."""
    kind, value = row.get("kind"), row.get("value")
    if kind not in KINDS:
        raise DataError(f"check: kind {kind!r}; expected one of {', '.join(KINDS)}")
    if not isinstance(value, str) or (kind == "language" and value not in LANGUAGES):
        expected = "a text" if kind != "language" else f"one of {', '.join(LANGUAGES)}"
        raise DataError(f"check: value {value!r} of kind {kind!r}; expected {expected}")
    return Instruction(kind, value)


def draw_instruction(kinds: Sequence[Kind], draw: random.Random) -> Instruction:
    """A kind, each as often, and a value of it."""
    kind = draw.choice(kinds)
    return Instruction(kind, draw.choice(VALUES[kind]))


def _is_in_language(answer: str, value: str) -> bool:
    return len(answer.split()) >= SHORTEST_TOLD and _identifier().classify(answer)[0] == LANGUAGES[value]


def _ends_with(answer: str, value: str) -> bool:
    return answer.rstrip(" \n.!?\"'”’").lower().endswith(value)


def _has_word(answer: str, value: str) -> bool:
    return re.search(rf"\b{re.escape(value)}\b", answer, re.IGNORECASE) is not None


_CHECKS: dict[Kind, Callable[[str, str], bool]] = {
    "language": _is_in_language,
    "name": _has_word,
    "lower_case": lambda answer, _: answer == answer.lower() and any(map(str.isalpha, answer)),
    "ending": _ends_with,
    "no_commas": lambda answer, _: "," not in answer,
    "word": _has_word,
}


@cache
def _identifier() -> Any:
    """Tells languages apart, English among them. Raises ConfigError where its package is missing."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError(
            "an instruction of kind 'language' is checked by py3langid: pip install 'llamita[gatt]'"
        ) from None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages([*LANGUAGES.values(), "en"])
    return identifier
