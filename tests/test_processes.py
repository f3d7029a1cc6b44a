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


def test_phases_end_with_the_phase_before_but_not_with_an_error():
    processes.enter_phase("training", 3)
    with processes.phase("saving"):
        assert str(processes.ACTIVITY) == "saving, step 3"
    assert str(processes.ACTIVITY) == "training, step 3"

    @processes.phase("evaluation")
    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011  (has no message)
        fail()
    assert str(processes.ACTIVITY) == "evaluation, step 3"  # for the message
    processes.enter_phase("starting")
    assert str(processes.ACTIVITY) == "starting"


def test_every_change_of_phase_is_progress():
    before = processes.ACTIVITY.progress
    with processes.phase("saving"):
        assert processes.ACTIVITY.progress == before + 1
    assert processes.ACTIVITY.progress == before + 2
