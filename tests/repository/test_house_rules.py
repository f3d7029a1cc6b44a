"""Rules of the code base that no linter checks."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import llamita

from ..helpers.repository import REPOSITORY

SRC = Path(llamita.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
THEIRS = {  # signatures that transformers defines
    "compute_loss",  # Trainer
    "on_log",  # TrainerCallback
    "packed_attention",  # attention kernel
    "_attend",  # eager attention kernel
}
MAY_IMPORT_GOLD = {
    "compare",
    "evaluation",
    "miniature",
    "red_team",
    "report",
    "runner",
    "world",
}  # these train nothing


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_parameters_after_the_third_are_given_by_name() -> None:
    found = []
    for path in FILES:
        for function in functions(path):
            names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
            names = names[1:] if names[:1] in (["self"], ["cls"]) else names
            if len(names) > 3 and function.name not in THEIRS:
                found.append(f"{path.relative_to(SRC)}:{function.lineno} {function.name}{tuple(names)}")
    assert not found, "put a `*` before the fourth parameter of:\n" + "\n".join(found)


def test_no_work_is_done_as_a_side_effect_of_a_loop() -> None:
    found = [
        f"{path.relative_to(SRC)}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.For) and all(isinstance(line, ast.Pass) for line in node.body)
    ]
    assert not found, f"loops without a body: {found}"


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    long = [f"{path.relative_to(SRC)}: {lines} lines" for path, lines in lengths.items() if lines > 320]
    assert not long, f"files of more than 320 lines: {long}"


def test_every_package_that_trains_is_in_the_contract_on_gold_scorers() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    [gold] = [contract for contract in contracts if contract["type"] == "forbidden"]
    packages = {path.parent.name for path in SRC.glob("*/__init__.py")}
    missing = packages - {name.removeprefix("llamita.") for name in gold["source_modules"]} - MAY_IMPORT_GOLD
    assert not missing, f"add to the contract {gold['name']!r} in pyproject.toml: {sorted(missing)}"
