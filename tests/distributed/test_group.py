"""The process group, and what rank 0 makes for all; tests/launch has the watchdog."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch

from llamita.distributed import group, watchdog
from llamita.errors import ConfigError, LlamitaError
from llamita.processes import rank

from ..helpers.repository import zero_file
from ..helpers.two_ranks import on_two_ranks


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_one_process_needs_no_group():
    group.setup()
    values = torch.tensor([1, 2])
    assert group.all_reduce_sum(values) is values
    assert group.gather_rows([1, 2]) == [1, 2]
    group.barrier()
    group.shutdown()


def test_a_zero_file_without_a_launcher_is_refused():
    with pytest.raises(ConfigError, match=r"zero2\.json.*launch/deepspeed\.sh"):
        group.setup("configs/deepspeed/zero2.json")


@pytest.mark.parametrize(("gpu", "accelerator"), [(False, "cpu"), (True, None)])
def test_without_a_gpu_deepspeed_is_set_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, accelerator: str | None
) -> None:
    """Otherwise it prints a warning into the terminal of every stage."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setenv("DS_ACCELERATOR", "")
    monkeypatch.delenv("DS_ACCELERATOR")
    group.setup()
    assert os.environ.get("DS_ACCELERATOR") == accelerator


def test_one_process_makes_it_itself():
    assert group.once("making", lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        group.once("making", lambda: 1 // 0)


def test_rank_0_makes_it_once_and_the_others_get_it(tmp_path: Path) -> None:
    made = tmp_path / "made"

    def make() -> dict[str, int]:
        time.sleep(0.3)
        made.open("a").write("x")
        return {"rank": rank()}

    def work() -> tuple[Any, Any]:
        result = group.once("making", make), group.once("looking", made.exists)
        group.wait_until_visible(made)
        return result

    assert on_two_ranks(work, tmp_path) == [({"rank": 0}, True)] * 2
    assert made.read_text() == "x"


def test_an_error_of_rank_0_is_raised_on_all(tmp_path: Path) -> None:
    def error_of(problem: Exception) -> tuple[str, str, int]:
        def fail() -> None:
            raise problem

        try:
            group.once("making", fail)
        except Exception as error:
            return type(error).__name__, str(error), getattr(error, "exit_code", 0)
        return "", "", 0

    def work() -> Any:
        return error_of(ConfigError("seed: wrong")), error_of(OSError("disk broken"))

    found = on_two_ranks(work, tmp_path)
    assert found[0] == (("ConfigError", "seed: wrong", 2), ("OSError", "disk broken", 0))
    assert found[1] == (
        ("ConfigError", "seed: wrong", 2),
        ("LlamitaError", "rank 0: OSError: disk broken", 1),
    )


def test_a_file_that_stays_invisible_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "VISIBLE", 0.3)
    with pytest.raises(LlamitaError, match=r"nothing: rank 0 wrote it.*same file system"):
        group.wait_until_visible(tmp_path / "nowhere" / "nothing")
    monkeypatch.setattr(group, "VISIBLE", 60.0)
    late = tmp_path / "late"
    threading.Timer(0.1, late.touch).start()
    group.wait_until_visible(late)


def test_collectives_have_the_limit_of_the_watchdog_and_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(watchdog, "time_limit", 600.0)  # restored after the test
    monkeypatch.setattr(group, "world_size", lambda: 2)
    monkeypatch.setattr(accelerate, "PartialState", lambda **options: given.append(options["timeout"]))
    with watchdog.watched(30.0):  # of one process: nothing is watched
        group.setup()
    assert given == [timedelta(seconds=90)]


def test_collectives_of_zero_have_the_same_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed has a group of its own, which starts with torch's default limit."""
    monkeypatch.setattr(watchdog, "time_limit", 30.0)

    def work() -> list[timedelta]:
        torch.distributed.destroy_process_group()
        group.setup(zero_file(3))
        from deepspeed.utils import groups

        found = (torch.distributed.group.WORLD, groups._get_data_parallel_group())
        return [one._get_backend(torch.device("cpu")).options._timeout for one in found]

    assert on_two_ranks(work, tmp_path) == [[timedelta(seconds=90)] * 2] * 2
