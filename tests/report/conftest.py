"""Handmade finished runs, see `helpers/finished_run.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..helpers.finished_run import SECONDS, write_example, write_three_rounds


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
