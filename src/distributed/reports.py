"""What a rank reports to the watchdog: its phase, its last progress and where its main thread is."""

from __future__ import annotations

import json
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

# modules that wait for other ranks; `store.py` raises errors of rank 0
COLLECTIVES = ("torch.distributed.", "deepspeed.comm.", "llamita.distributed.store")
# functions of torch and DeepSpeed that wait for a collective if they are the innermost ones: handles of
# collectives, and backward passes and broadcasts that start collectives in C++
WAITS = ("wait", "synchronize", "_engine_run_backward", "_distributed_broadcast_coalesced")

LOST = r"(?i)gloo|nccl|connection (closed|reset|refused)|broken pipe"  # in messages of torch's collectives


@dataclass(frozen=True)
class Position:
    """Where a thread is: `place` (file:line function), whether it waits in a collective, and a hash."""

    place: str
    waits: bool
    key: int


@dataclass(frozen=True)
class Report:
    """One report; `number` counts a rank's reports, `idle` are seconds since its last progress."""

    number: int
    phase: str
    step: int
    idle: float
    waits: bool
    place: str
    finished: bool

    def encoded(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decoded(cls, value: bytes) -> Report:
        return cls(**json.loads(value))


def main_thread() -> Position:
    """The position of the main thread of this process."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    frames = list(_outwards(frame))
    if not frames:
        return Position("unknown", False, 0)
    code, line = frames[0].f_code, frames[0].f_lineno
    place = f"{'/'.join(Path(code.co_filename).parts[-3:]).lstrip('/')}:{line} {code.co_name}"
    key = hash(tuple((id(one.f_code), one.f_lasti) for one in frames))
    return Position(place, _is_wait(frames[0]) or any(map(_is_collective, frames)), key)


def main_thread_stack() -> str:
    """The stack of the main thread, as in a traceback."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return "".join(traceback.format_stack(frame))


def raised_by_collective(error: BaseException) -> bool:
    """Whether an exception came out of a collective or of the store, perhaps as another rank has ended."""
    if isinstance(error, RuntimeError) and re.search(LOST, str(error)):
        return True
    at = error.__traceback__
    while at is not None:
        if _is_collective(at.tb_frame) or (at.tb_next is None and _is_wait(at.tb_frame)):
            return True
        at = at.tb_next
    return False


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_collective(frame: FrameType) -> bool:
    return _module(frame).startswith(COLLECTIVES)


def _is_wait(frame: FrameType) -> bool:
    return frame.f_code.co_name in WAITS and _module(frame).startswith(("torch.", "deepspeed."))


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
