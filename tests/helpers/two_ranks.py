"""Runs a function on gloo ranks, which are forks of this process (its libraries are already loaded)."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def on_two_ranks(work: Callable[[], Any], folder: Path, seconds: float = 120) -> list[Any]:
    """As `on_ranks` with two."""
    return on_ranks(2, work, folder, seconds)


def on_ranks(count: int, work: Callable[[], Any], folder: Path, seconds: float = 120) -> list[Any]:
    """Returns what `work` returns on each rank (must pickle); `folder` has the rendezvous file.

    Raises AssertionError with the rank's traceback if a rank fails.
    """
    context = multiprocessing.get_context("fork")
    port = free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    ranks = [
        context.Process(target=_rank, args=((rank, count), work, folder / "meet", port, pipes[rank][1]))
        for rank in range(count)
    ]
    for process in ranks:
        process.start()
    try:
        return [_answer(receiver, seconds) for receiver, _ in pipes]
    finally:
        for process in ranks:
            process.kill()
            process.join()


def free_port() -> int:
    """Returns a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def on_two_deepspeed_ranks(work: Callable[[], Any], folder: Path, seconds: float = 240) -> list[Any]:
    """As `on_deepspeed_ranks` with two."""
    return on_deepspeed_ranks(2, work, folder, seconds)


def on_deepspeed_ranks(count: int, work: Callable[[], Any], folder: Path, seconds: float = 240) -> list[Any]:
    """As `on_ranks`, with DeepSpeed ready, as `group.setup` of a stage with a ZeRO file leaves it."""

    def prepared() -> Any:
        import deepspeed

        os.environ |= {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu", "WANDB_MODE": "disabled"}
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would be compiled
        deepspeed.comm.init_distributed("gloo")
        return work()

    return on_ranks(count, prepared, folder, seconds)


def _answer(receiver: Any, seconds: float) -> Any:
    assert receiver.poll(seconds), f"a rank neither returned nor failed within {seconds} seconds"
    failed, answer = pickle.loads(receiver.recv_bytes())
    assert not failed, answer
    return answer


def _rank(place: tuple[int, int], work: Callable[[], Any], meet: Path, port: int, pipe: Any) -> None:
    import torch.distributed

    rank, count = place
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # of the store of `group.once`
    try:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meet}", rank=rank, world_size=count
        )
        answer = False, work()
    except BaseException:
        answer = True, traceback.format_exc()
    # pickled here: multiprocessing would share the memory of tensors, which ends with the process
    pipe.send_bytes(pickle.dumps(answer))
    if rank == 0:
        signal.pause()  # it serves the store; the other rank may still need it
