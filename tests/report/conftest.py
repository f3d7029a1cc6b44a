"""Handmade finished runs, see `helpers/finished_run.py`."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from llamita.report import page as page_module
from llamita.report.artifacts import read_artifacts
from llamita.report.collect import collect

from ..helpers.finished_run import SECONDS, inputs_of, write_example, write_three_rounds
from ..helpers.safety_run import write_safety_run


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return write_example(tmp_path / "smoke")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, for tests that only read it."""
    return write_example(tmp_path_factory.mktemp("runs") / "smoke")


@pytest.fixture(scope="session")
def three_rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests that only read it."""
    return write_three_rounds(tmp_path_factory.mktemp("rounds") / "smoke")


@pytest.fixture
def pretrain_alone(tmp_path: Path) -> Path:
    return write_example(tmp_path / "begun", without=tuple(name for name in SECONDS if name != "pretrain"))


@pytest.fixture(scope="session")
def safety_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with all stages of section 4, for tests that only read it."""
    return write_safety_run(tmp_path_factory.mktemp("safety") / "smoke")


@pytest.fixture
def safety_report(safety_run: Path) -> dict[str, Any]:
    return collect("smoke", read_artifacts(inputs_of(safety_run)))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, dict[str, Any]], Figure | None]:
    """Returns a figure as matplotlib has it, to compare its bars and points with the report."""

    def draw(function: Any, report: dict[str, Any]) -> Figure | None:
        module = importlib.import_module(function.__module__)
        monkeypatch.setattr(module, "to_svg", lambda figure, *_: figure)
        return function(report)

    return draw


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the page's text: figures take their time."""
    sections = tuple(dataclasses.replace(section, figures=()) for section in page_module.SECTIONS)
    monkeypatch.setattr(page_module, "SECTIONS", sections)
