"""Which rank the watchdog names."""

from __future__ import annotations

from dataclasses import replace

from llamita.distributed.failures import Failure, find_hang, killed
from llamita.distributed.reports import Report

BUSY = Report(1, "training, step 7", 7, idle=1.0, waits=False, place="a.py:1 f", finished=False)
WAITING = replace(BUSY, idle=11.0, waits=True, place="distributed_c10d.py:9 all_reduce")
STUCK = replace(BUSY, idle=10.5)


def named(reports: list[Report]) -> int | None:
    failure = find_hang(dict(enumerate(reports)), limit=10)
    return None if failure is None else failure.rank


def test_a_hang_is_that_of_the_rank_that_the_others_wait_for():
    assert named([BUSY, BUSY]) is None
    assert named([WAITING, STUCK, WAITING]) == 1
    assert named([STUCK, WAITING, WAITING]) == 0
    assert named([WAITING, WAITING, BUSY]) == 2  # an endless loop
    assert named([STUCK, replace(STUCK, step=6, phase="training, step 6")]) == 1  # GPUs run behind
    assert named([STUCK, replace(STUCK, idle=12.0)]) == 1


def test_ranks_that_poll_or_have_finished_are_not_named():
    polling = replace(BUSY, idle=0.0, waits=True)
    assert named([STUCK, polling]) == 0
    assert named([BUSY, polling]) is None
    assert named([replace(STUCK, finished=True), BUSY]) is None
    assert named([replace(BUSY, finished=True), WAITING]) == 1


def test_ranks_in_different_collectives_are_all_shown():
    failure = find_hang({0: WAITING, 1: replace(WAITING, place="distributed_c10d.py:5 barrier")}, limit=10)
    assert failure is not None
    assert "all_reduce" in str(failure)
    assert "barrier" in str(failure)


def test_the_message_names_rank_phase_place_and_remedy():
    failure = find_hang({0: WAITING, 1: STUCK}, limit=10)
    assert str(failure) == (
        "rank 1 (training, step 7): error: no progress for 11 s, at a.py:1 f; rank 0 waits at "
        "distributed_c10d.py:9 all_reduce; all ranks end. If it was only slow, increase `rank_timeout`; the "
        "same command resumes"
    )


def test_the_rank_that_was_silent_for_longest_was_killed():
    assert killed({}, 45, {}) is None
    assert killed({1: 44.0}, 45, {}) is None
    failure = killed({1: 46.0, 2: 47.0}, 45, {2: BUSY})
    assert str(failure).startswith("rank 2 (training, step 7): error: ended without an error message")
    assert str(killed({1: 46.0}, 45, {})).startswith("rank 1 (starting): ")


def test_one_rank_prints_the_message():
    def printing(failure: Failure) -> list[int]:
        return [rank for rank in range(4) if failure.is_told_by(rank)]

    assert printing(Failure(2, "", "")) == []  # it has printed its own error
    assert printing(Failure(2, "", "", spoken=False)) == [0]
    assert printing(Failure(0, "", "", spoken=False)) == [1]  # rank 0 is gone
    assert printing(Failure(0, "", "", spoken=False, hung=True)) == [0]
    assert Failure.decoded(Failure(2, "a", "ü", 2).encoded().encode()) == Failure(2, "a", "ü", 2)
