"""Two ranks whose views of the folder differ, as on a network file system: rank 0 decides for both."""

from __future__ import annotations

import errno
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from llamita.checkpoints import sealed
from llamita.checkpoints.sealed import SEAL, Checkpoints
from llamita.distributed import store
from llamita.errors import RolledBack
from llamita.processes import rank
from llamita.training.spikes import SKIPPED, LossSpikeCallback, read_skipped

from ..helpers.two_ranks import on_two_ranks


def write(folder: Path) -> None:
    (folder / f"state-{rank()}").write_text(f"of rank {rank()}")


def test_the_newest_is_that_of_rank_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "resume"

    def work() -> tuple[bool, int, str]:
        checkpoints = Checkpoints(folder)
        assert checkpoints.save(1, write)
        assert checkpoints.save(2, write)
        if rank() == 1:  # its machine shows the folder as it was
            monkeypatch.setattr(Checkpoints, "_all", lambda self: [self.folder / "checkpoint-1"])
        newest = checkpoints.newest()
        assert newest is not None
        return checkpoints.save(3, write), checkpoints.step(newest), str(newest)

    assert on_two_ranks(work, tmp_path) == [(True, 2, str(folder / "checkpoint-2"))] * 2


def test_the_seal_lists_files_that_rank_0_does_not_see_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sealed.files_below

    def work() -> bool:
        def seen(folder: Path) -> Iterator[Path]:
            return (path for path in files(folder) if path.name == f"state-{rank()}")

        monkeypatch.setattr(sealed, "files_below", seen)
        return Checkpoints(tmp_path / "resume").save(1, write)

    assert on_two_ranks(work, tmp_path) == [True, True]
    seal = json.loads((tmp_path / "resume" / "checkpoint-1" / SEAL).read_text())
    assert set(seal["files"]) == {"state-0", "state-1"}


def full_on_rank_1(folder: Path) -> None:
    write(folder)
    if rank() == 1:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


def test_a_full_disk_on_one_rank_costs_the_checkpoint(tmp_path: Path) -> None:
    def work() -> list[bool]:
        checkpoints = Checkpoints(tmp_path / "resume")
        return [checkpoints.save(1, write), checkpoints.save(2, full_on_rank_1)]

    assert on_two_ranks(work, tmp_path) == [[True, False]] * 2
    assert not list((tmp_path / "resume").rglob("*2*"))


def test_skipped_steps_are_those_that_rank_0_reads(tmp_path: Path) -> None:
    entries = [{"after_step": 2, "steps": 3}]

    def work() -> object:
        folder = tmp_path / f"rank-{rank()}"  # rank 1's is empty
        if rank() == 0:
            folder.mkdir()
            (folder / SKIPPED).write_text(json.dumps(entries))
        return read_skipped(folder)

    assert on_two_ranks(work, tmp_path) == [entries, entries]


def test_rank_0_rolls_back_once_all_ranks_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends then, and with it the store that a slow rank may still be polling."""
    known = tmp_path / "known"
    poll = store.poll

    def slow(key: str) -> Any:
        if "rolling back" not in key:
            return poll(key)
        time.sleep(1)
        result = poll(key)
        known.touch()
        return result

    def work() -> bool:
        monkeypatch.setattr(store, "poll", slow)
        trainer = SimpleNamespace(
            checkpoints=Checkpoints(tmp_path / "resume"),
            description="tiny",
            loss_since_logged=torch.tensor(math.nan),
            monitor=SimpleNamespace(loss_spike=None),
        )
        spikes = LossSpikeCallback(trainer, None)
        spikes.on_step_end(TrainingArguments(str(tmp_path)), TrainerState(global_step=1), TrainerControl())
        with pytest.raises(RolledBack, match="is NaN or infinite; rolling back to the start"):
            spikes.check(1)
        return known.exists()

    assert on_two_ranks(work, tmp_path) == [True, True]
