"""Instructions that code can check on any text, for Ghost Attention without ground truth (section 3.3).

As in the paper, half of the training dialogues state a short form ("Figure: Napoleon" for "Act as Napoleon
from now on").
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from ..errors import ConfigError, DataError, install_command

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
MIN_WORDS = 3  # number of words from which language identification is reliable


@dataclass(frozen=True)
class Instruction:
    """An instruction for all answers of a dialogue. `value`: the language, the name, …, "" if none."""

    kind: Kind
    value: str = ""

    @property
    def text(self) -> str:
        """The instruction as the model reads it when answers are sampled."""
        return LONG[self.kind].format(self.value)

    @property
    def short(self) -> str:
        """The short form, which half of the training dialogues state."""
        return SHORT[self.kind].format(self.value)

    def is_followed_by(self, answer: str) -> bool:
        """Whether an answer follows the instruction; an empty answer follows none."""
        return bool(answer.strip()) and _CHECKS[self.kind](answer, self.value)

    def row(self) -> dict[str, str]:
        """Returns the instruction as a field of a test set's row, which `read_instruction` reads."""
        return {"kind": self.kind, "value": self.value}


def read_instruction(row: Mapping[str, Any]) -> Instruction:
    """Reads what `Instruction.row` returned. Raises DataError for an unknown kind or value."""
    kind, value = row.get("kind"), row.get("value")
    if kind not in KINDS:
        raise DataError(f"field 'check': kind is {kind!r}; expected one of {', '.join(KINDS)}")
    if not isinstance(value, str) or (kind == "language" and value not in LANGUAGES):
        expected = "a text" if kind != "language" else f"one of {', '.join(LANGUAGES)}"
        raise DataError(f"field 'check': value is {value!r} for kind {kind!r}; expected {expected}")
    return Instruction(kind, value)


def draw_instruction(kinds: Sequence[Kind], draw: random.Random) -> Instruction:
    """Draws a kind and one of its values, each with equal probability."""
    kind = draw.choice(kinds)
    return Instruction(kind, draw.choice(VALUES[kind]))


def _is_in_language(answer: str, value: str) -> bool:
    return len(answer.split()) >= MIN_WORDS and _identifier().classify(answer)[0] == LANGUAGES[value]


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
    """Returns a classifier of the languages and English. Raises ConfigError if its package is missing."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise ConfigError(
            f"instructions of kind 'language' need the package py3langid; {install_command('gatt')}"
        ) from None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages([*LANGUAGES.values(), "en"])
    return identifier
