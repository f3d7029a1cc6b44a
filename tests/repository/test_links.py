"""Relative links in README, docs, benchmarks and CONTRIBUTING lead to files and headings that exist."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..helpers.repository import REPOSITORY

PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        *(REPOSITORY / "benchmarks").rglob("*.md"),
    ]
)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
HEADING = re.compile(r"#{1,6}\s+(.+?)\s*#*")
CODE = re.compile(r"`[^`]*`")


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """The lines of a page outside of fenced code, with their numbers."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, line


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    repeated: Counter[str] = Counter()
    for _, line in prose(page):
        if heading := HEADING.fullmatch(line):
            text = LINK.sub(lambda link: link[0][1:].split("]")[0], heading[1])
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            found.add(f"{anchor}-{repeated[anchor]}" if repeated[anchor] else anchor)
            repeated[anchor] += 1
    return found


def broken_links(page: Path) -> list[str]:
    """Links of a page without their file or heading, with line numbers."""
    broken = []
    for number, line in prose(page):
        for target in LINK.findall(CODE.sub("", line)):
            if re.match(r"[a-z]+:", target):
                continue  # another site
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            if not file.exists():
                broken.append(f"{page.name}:{number}: {target}: no such file")
            elif anchor and (file.suffix != ".md" or anchor not in anchors(file)):
                broken.append(f"{page.name}:{number}: {target}: no such heading")
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    broken = broken_links(page)
    assert not broken, "\n".join(broken)


def test_missing_files_and_headings_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title: `x.py`, and more\n\n## Twice\n\n## Twice\n\n"
        "[a](other.md) [b](#a-title-xpy-and-more) [c](#twice-1) [d](#thrice) [e](page.md#twice)\n"
        "```\n[f](code.md)\n```\n`[g](code.md)` ![h](image.png) [i](https://example.org/x.md)\n"
    )
    assert broken_links(page) == [
        "page.md:7: other.md: no such file",
        "page.md:7: #thrice: no such heading",
        "page.md:11: image.png: no such file",
    ]
