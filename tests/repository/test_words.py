"""The project's texts avoid words that only its authors understand: plain English, the field's own terms."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from ..helpers.repository import REPOSITORY

AVOIDED = {  # pattern -> what to write instead
    r"go(es|ing)? on\b|went on\b|gone on\b": "resumes, continues",
    r"stands?\b|stood\b": "is, exists, is stored",
    r"tells?\b|told\b": "reports, logs, shows",
    r"roads?\b": "the pipeline",
    r"rooms\b": "packages",
    r"outright\b": "directly",
    r"marks\b": "control strings",
    r"trunks?\b": "base model",
    r"dealt\b": "split into batches",
    r"chances\b": "logprobs",
    r"(keeps?|kept) (the|its|an) instruction|instructions? (is|are|was|were) kept": "followed",
}
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
HISTORY = "docs/log"
WORLD = "src/miniature"  # its language has words of its own
SOURCES = [
    *(path for path in sorted((REPOSITORY / "src").rglob("*.py")) if WORLD not in path.as_posix()),
    *sorted((REPOSITORY / "benchmarks").glob("*.py")),
    *sorted((REPOSITORY / "configs").rglob("*.yaml")),
    *(path for path in sorted((REPOSITORY / "launch").rglob("*")) if path.is_file()),
]


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Comments and string literals of a module with their lines; of other files every line."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for offset, line in enumerate(node.value.splitlines()):
                yield node.lineno + offset, line


def findings(path: Path) -> list[str]:
    found = []
    for line, text in prose_of(path):
        for pattern, better in AVOIDED.items():
            if match := re.search(rf"(?<![\w-])({pattern})", text, re.IGNORECASE):
                place = path.relative_to(REPOSITORY)
                found.append(f"{place}:{line}: {match[0]!r} (write: {better}): {text.strip()[:90]}")
    return found


def test_no_avoided_words() -> None:
    pages = [path for path in PAGES if HISTORY not in path.as_posix()]
    found = [finding for path in (*pages, *SOURCES) for finding in findings(path)]
    assert not found, "\n".join(found)
