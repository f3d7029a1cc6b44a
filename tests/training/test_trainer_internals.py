"""Private names of `Trainer` are used in one module only, and this release of transformers has them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import Trainer, TrainerCallback, TrainingArguments

from llamita.training import trainer_internals

FILE = Path(trainer_internals.__file__)
# 5.17 takes a resumed run's mean loss over all steps by itself: to set this does nothing there
NOT_YET = {"5.17": {"_initial_global_step"}}
SOURCES = [path for path in FILE.parents[1].rglob("*.py") if path != FILE]


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(1, 1)

    def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.line(values).square().mean()}


class NameRecorder(TrainerCallback):
    """Records the private names that the trainer has during training."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.names = {name for name in dir(self.trainer) if is_private(name)}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(path: Path, *, of_others: bool = False) -> set[str]:
    """Private names that a file gets, sets or defines in a class; `of_others`: only those beyond `self`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            if not (of_others and isinstance(node.value, ast.Name) and node.value.id == "self"):
                names.add(node.attr)
        elif isinstance(node, ast.ClassDef) and not of_others:
            names |= {function.name for function in node.body if isinstance(function, ast.FunctionDef)}
    return {name for name in names if is_private(name)}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The private names of a plain `Trainer`."""
    arguments = TrainingArguments(
        str(tmp_path_factory.mktemp("plain")), max_steps=1, use_cpu=True, report_to="none", disable_tqdm=True
    )
    recorder = NameRecorder()
    rows = [{"values": torch.ones(1)}] * 8
    recorder.trainer = Trainer(Line(), arguments, train_dataset=rows, callbacks=[recorder])
    recorder.trainer.train()
    return recorder.names


def test_this_release_of_transformers_has_the_private_names_that_we_use(known: set[str]) -> None:
    used = private_names(FILE) - NOT_YET.get(transformers.__version__.rpartition(".")[0], set())
    assert {"_init_training_state", "_save_checkpoint", "_tr_loss"} <= used
    assert not used - known, (
        f"Trainer of transformers {transformers.__version__} has no {sorted(used - known)}: "
        f"adapt {FILE.name} to their new names"
    )


def test_no_other_module_uses_private_names_of_trainer(known: set[str]) -> None:
    """Neither in a Trainer class that it defines nor of a trainer that it gets."""
    found = {}
    for path in SOURCES:
        names = private_names(path, of_others="Trainer)" not in path.read_text(encoding="utf-8"))
        if names & known:
            found[path.name] = sorted(names & known)
    assert not found, f"move these into {FILE.name}: {found}"
