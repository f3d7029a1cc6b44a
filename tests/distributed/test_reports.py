"""What a rank's report says about its main thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch.distributed

from llamita.distributed.reports import main_thread, main_thread_stack, raised_by_collective


def seen_from_a_thread(call: Any) -> Any:
    """What `call` returns in another thread, while the main thread is in this function."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def test_the_position_of_the_main_thread():
    position = seen_from_a_thread(main_thread)
    assert "threading.py:" in position.place
    assert not position.waits
    assert position.key != seen_from_a_thread(main_thread).key  # another line
    keys = {seen_from_a_thread(main_thread).key for _ in range(3)}
    assert len(keys) == 1  # the same line in a loop: only `processes.advanced` shows progress
    assert "test_the_position_of_the_main_thread" in seen_from_a_thread(main_thread_stack)


def test_a_rank_in_a_collective_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(
        torch.distributed.distributed_c10d,
        "_get_default_group",
        lambda: found.append(seen_from_a_thread(main_thread)),
    )
    with pytest.raises(Exception):  # noqa: B017, PT011  (there is no group)
        torch.distributed.barrier()
    assert found[0].waits


def test_errors_of_collectives():
    def error_of(call: Any) -> BaseException:
        with pytest.raises(Exception) as error:  # noqa: PT011  (each call has another error)
            call()
        return error.value

    assert raised_by_collective(error_of(torch.distributed.barrier))
    assert raised_by_collective(RuntimeError("[gloo/transport/tcp/pair.cc:537] Connection closed by peer"))
    assert not raised_by_collective(RuntimeError("CUDA error: out of memory"))
    assert not raised_by_collective(error_of(lambda: Path("/nowhere").read_text()))
