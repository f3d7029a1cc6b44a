"""Rank and number of ranks of this process."""

from __future__ import annotations

import pytest

from llamita import processes


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_one_process_without_a_launcher() -> None:
    assert (processes.world_size(), processes.rank(), processes.is_main_process()) == (1, 0, True)


def test_rank_and_world_size_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (processes.world_size(), processes.rank(), processes.is_main_process()) == (4, 3, False)


@pytest.mark.parametrize(("rank", "main"), [(None, True), ("0", True), ("1", False), ("", True)])
def test_is_main_process(monkeypatch: pytest.MonkeyPatch, rank: str | None, main: bool) -> None:
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert processes.is_main_process() is main
