"""tests/ mirrors src/, and tests import nothing from tests/ but tests/helpers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from ..helpers.repository import REPOSITORY

TESTS, SOURCES = REPOSITORY / "tests", REPOSITORY / "src"
OF_NO_PACKAGE = {
    "helpers": "code that tests share",
    "launch": "scripts of launch/ and runs on several ranks",
    "repository": "files outside src/: configs, docs, benchmarks, .ci, packaging",
}
WITHOUT_TESTS: dict[str, str] = {}  # package -> why it has no folder of tests


def files() -> list[Path]:
    return sorted(TESTS.rglob("*.py"))


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Yields line and path (below tests/) of every module that a file imports from tests/."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = file.parents[node.level - 1].relative_to(TESTS).as_posix()
            for name in [node.module] if node.module else [alias.name for alias in node.names]:
                yield node.lineno, f"{folder}/{name.replace('.', '/')}".removeprefix("./")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "tests":
            yield node.lineno, (node.module or "").removeprefix("tests").replace(".", "/").lstrip("/")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "tests":
                    yield node.lineno, alias.name.removeprefix("tests").replace(".", "/").lstrip("/")


def test_only_helpers_are_imported() -> None:
    wrong = [
        f"{file.relative_to(REPOSITORY)}:{line}: imports {name}; expected a module of tests/helpers"
        for file in files()
        for line, name in imported(file)
        if not (name.startswith("helpers/") and (TESTS / f"{name}.py").is_file())
    ]
    assert not wrong, "\n".join(wrong)


def test_every_package_has_its_folder_of_tests_and_every_folder_its_package() -> None:
    packages = {path.parent.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("__init__.py")} - {"."}
    folders = {path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")} - {"."}
    untested = packages - folders - WITHOUT_TESTS.keys()
    assert not untested, f"packages without tests; add tests/NAME/test_….py for: {sorted(untested)}"
    assert WITHOUT_TESTS.keys() <= packages - folders
    assert folders - packages == OF_NO_PACKAGE.keys() - {"helpers"}
    assert not any(path.name.startswith("test_") for path in (TESTS / "helpers").iterdir())


def test_helpers_have_docstrings() -> None:
    for file in sorted((TESTS / "helpers").glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), file.name
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{file.name}:{node.lineno}: {node.name} has no docstring"
