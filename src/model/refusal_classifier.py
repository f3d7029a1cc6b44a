"""A trained refusal classifier: a linear model on the word n-grams of the opening of an answer.

The stage `refusal_classifier` trains and saves it: `classifier.json` (n-grams and their order) and
`classifier.safetensors` (`weights`, one per n-gram, and `bias`, both float64). Loading needs no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..artifact import write_json
from ..errors import DataError
from ..yaml_file import parse_json
from .refusal import OPENING, opening

NAMES, WEIGHTS = "classifier.json", "classifier.safetensors"
LONGEST = 2
"""Maximum number of words of an n-gram."""
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[.,:;!?]")
_START = "^"
REMEDY = "expected the folder of a stage `refusal_classifier`; run that stage again"


def ngrams_of(answer: str) -> set[str]:
    """Returns the words and pairs of adjacent words of an answer's opening, in lower case.

    Punctuation that ends or divides sentences counts as a word, and so does the start of the answer, `^`.
    """
    words = [_START, *_WORD.findall(opening(answer))]
    lengths = range(1, LONGEST + 1)
    return {" ".join(words[at : at + n]) for n in lengths for at in range(len(words) - n + 1)}


@dataclass(frozen=True)
class RefusalClassifier:
    """Logistic regression: the logit of "refusal" is `bias` and the weights of the n-grams that occur.

    Attributes:
        weights: weight of each n-gram, in the order of the file.
    """

    weights: dict[str, float]
    bias: float

    def logit(self, answer: str) -> float:
        """Returns the log-odds of "refusal"; above 0 the answer counts as one."""
        found = ngrams_of(answer) & self.weights.keys()
        return math.fsum([self.bias, *(self.weights[name] for name in found)])

    def __call__(self, answers: Sequence[str]) -> list[bool]:
        """Returns whether each answer is a refusal."""
        return [self.logit(answer) > 0 for answer in answers]

    def save(self, folder: Path) -> None:
        """Writes both files; equal classifiers give equal bytes."""
        write_json(folder / NAMES, {"opening": OPENING, "longest": LONGEST, "ngrams": list(self.weights)})
        arrays = {"weights": np.array(list(self.weights.values())), "bias": np.array([self.bias])}
        save_file(arrays, folder / WEIGHTS)


def load_refusal_classifier(folder: Path) -> Callable[[Sequence[str]], list[bool]]:
    """Loads a classifier, which returns for each answer whether it is a refusal.

    Raises DataError for a folder with missing, unreadable or contradictory files.
    """
    names = _read_names(folder / NAMES)
    weights, bias = _read_weights(folder / WEIGHTS, len(names))
    return RefusalClassifier(dict(zip(names, weights, strict=True)), bias)


def _read_names(path: Path) -> list[str]:
    content = _read(path, lambda: parse_json(path.read_text(encoding="utf-8")))
    found = (content.get("opening"), content.get("longest")) if isinstance(content, dict) else None
    if found != (OPENING, LONGEST):
        raise DataError(f"{path}: opening and longest are {found}, not {OPENING} and {LONGEST}; {REMEDY}")
    names = content.get("ngrams")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: 'ngrams' is not a list of texts; {REMEDY}")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: 'ngrams' lists an n-gram twice; {REMEDY}")
    return names


def _read_weights(path: Path, count: int) -> tuple[list[float], float]:
    arrays = _read(path, lambda: load_file(path))
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != {"weights": (count,), "bias": (1,)}:
        raise DataError(f"{path}: found {shapes}, not {count} weights as in {NAMES} and one bias; {REMEDY}")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise DataError(f"{path}: contains values that are not finite; {REMEDY}")
    return arrays["weights"].tolist(), arrays["bias"].item()


def _read(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {REMEDY}") from None
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise DataError(f"{path}: can't be read: {error}; {REMEDY}") from None
