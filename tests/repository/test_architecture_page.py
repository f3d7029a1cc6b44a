"""docs/architecture.md shows the tree and layers of the code as it is; names of code in pages exist."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest

from ..helpers.repository import REPOSITORY

SRC = REPOSITORY / "src"
DOCS = REPOSITORY / "docs"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
NAME = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?"
MENTION = re.compile(rf"`(?P<path>[\w/]+\.py)(?:: (?P<names>{NAME}(?:, {NAME})*))?`")


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def fenced(text: str) -> list[list[str]]:
    return [block.strip("\n").split("\n") for block in text.split("```")[1::2]]


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """Names that a module or class defines; those of a class also as `Class.name`."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{name}" for name in defined(node.body))
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id


@pytest.mark.parametrize(
    ("page", "fewest"), [("architecture.md", 50), ("glossary.md", 30), ("miniature-world.md", 3)]
)
def test_every_file_and_name_mentioned_exists(page: str, fewest: int) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    mentions = list(MENTION.finditer(text))
    assert len(mentions) > fewest
    assert {one[0] for one in mentions} == {one[0] for one in re.finditer(r"`[^`\n]*\.py\b[^`\n]*`", text)}
    wrong = []
    for mention in mentions:
        path, names = SRC / mention["path"], (mention["names"] or "").split(", ")
        if not path.is_file():
            wrong.append(f"{mention[0]}: no such file below src/")
            continue
        known = {"", *defined(ast.parse(path.read_text(encoding="utf-8")).body)}
        wrong += [f"{mention[0]}: {path.name} defines no {name}" for name in names if name not in known]
    assert not wrong, "\n".join(wrong)


def test_tree_has_every_package_and_top_level_module_once() -> None:
    lines = fenced(section("Packages"))[0]
    below = lines[next(place for place, line in enumerate(lines) if line.startswith("src/")) + 1 :]
    drawn, folder = [], ""
    for line in below:
        if not line.startswith(" "):
            break
        if entry := re.match(r"(  |    )([\w.]+/?)\s", line):
            indent, name = entry.groups()
            drawn.append(name if indent == "  " else folder + name)
            folder = name if indent == "  " else folder
    packages = {f"{path.parent.relative_to(SRC).as_posix()}/" for path in SRC.glob("*/**/__init__.py")}
    modules = {path.name for path in SRC.glob("*.py")} - {"__init__.py"}
    assert sorted(drawn) == sorted(packages | modules)


def test_layers_are_those_of_import_linter() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    assert fenced(section("Layers")) == [one["layers"] for one in contracts if one["type"] == "layers"]
