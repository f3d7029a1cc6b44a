"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import llamita

SRC = Path(llamita.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
THEIRS = {  # signatures that transformers chooses
    "compute_loss",  # Trainer's
    "on_log",  # a TrainerCallback's
    "packed_attention",  # a kernel's
    "_attend",  # as an eager kernel's
}


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_parameters_after_the_third_are_given_by_name() -> None:
    found = []
    for path in FILES:
        for function in functions(path):
            names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
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
    assert not [path for path, lines in lengths.items() if lines > 320]
