"""A saved classifier of refusals: n-grams, verdicts, loading, and broken folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from llamita.errors import DataError
from llamita.model.refusal import OPENING
from llamita.model.refusal_classifier import (
    LONGEST,
    NAMES,
    WEIGHTS,
    RefusalClassifier,
    load_refusal_classifier,
    ngrams_of,
)

CLASSIFIER = RefusalClassifier({"^ no": 2.0, "no": 0.5, "paris": -3.0}, -1.0)


def test_ngrams_of_an_opening() -> None:
    assert ngrams_of("I\u2019m HERE.") == {"^", "^ i'm", "i'm", "i'm here", "here", "here .", "."}
    assert ngrams_of("") == {"^"}
    assert "late" not in ngrams_of("x " * (OPENING // 2) + "late")
    assert "late" in ngrams_of("x " * (OPENING // 2 - 2) + "late")


def test_a_logit_is_the_sum_of_weights() -> None:
    assert CLASSIFIER.logit("No way") == 1.5
    assert CLASSIFIER.logit("oh no no") == -0.5, "an n-gram counts once"
    assert CLASSIFIER.logit("No, Paris") == -1.5
    assert CLASSIFIER(["No way", "oh no", "Paris"]) == [True, False, False]


def test_a_folder_gives_the_same_classifier_back(tmp_path: Path) -> None:
    CLASSIFIER.save(tmp_path)
    loaded = load_refusal_classifier(tmp_path)
    assert loaded == CLASSIFIER
    assert loaded(["No way", "oh no"]) == [True, False]
    assert loaded([]) == []


def test_loading_needs_no_torch(tmp_path: Path) -> None:
    CLASSIFIER.save(tmp_path)
    code = (
        "import sys; from pathlib import Path\n"
        "from llamita.model.refusal_classifier import load_refusal_classifier\n"
        f"assert load_refusal_classifier(Path({str(tmp_path)!r}))(['No way']) == [True]\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def names(**changes: object) -> str:
    return json.dumps({"opening": OPENING, "longest": LONGEST, "ngrams": ["^ no", "no", "paris"]} | changes)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        ("{", "can't be read"),
        ("[]", "opening and longest are None, not 200 and 2"),
        (names(opening=100), r"opening and longest are \(100, 2\), not 200 and 2"),
        (names(ngrams={"no": 1}), "'ngrams' is not a list of texts"),
        (names(ngrams=["^ no", "no", 3]), "'ngrams' is not a list of texts"),
        (names(ngrams=["no", "no", "paris"]), "'ngrams' lists an n-gram twice"),
    ],
)
def test_broken_names(tmp_path: Path, content: str | None, problem: str) -> None:
    CLASSIFIER.save(tmp_path)
    (tmp_path / NAMES).unlink()
    if content is not None:
        (tmp_path / NAMES).write_text(content)
    with pytest.raises(DataError, match=rf"{NAMES}: {problem}.*; expected the folder of a stage"):
        load_refusal_classifier(tmp_path)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        (None, "no such file"),
        (b"not safetensors", "can't be read"),
        ({"weights": np.zeros(3)}, r"found \{'weights': \(3,\)\}, not 3 weights"),
        ({"weights": np.zeros(2), "bias": np.zeros(1)}, r"found .*\(2,\).*, not 3 weights"),
        ({"weights": np.array([1, np.nan, 0]), "bias": np.zeros(1)}, "contains values that are not finite"),
    ],
)
def test_broken_weights(tmp_path: Path, arrays: object, problem: str) -> None:
    CLASSIFIER.save(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    if isinstance(arrays, bytes):
        (tmp_path / WEIGHTS).write_bytes(arrays)
    elif isinstance(arrays, dict):
        save_file(arrays, tmp_path / WEIGHTS)
    with pytest.raises(DataError, match=rf"{WEIGHTS}: {problem}.*; expected the folder of a stage"):
        load_refusal_classifier(tmp_path)
