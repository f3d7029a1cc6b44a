"""What the user sees while a stage works: lines and progress bars, from the main process only."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")

PLAIN_INTERVAL = 10.0  # seconds between progress lines when the output is no terminal

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)


def is_main_process() -> bool:
    """True where no launcher is at work, and on its rank 0: the one process that speaks and writes."""
    return int(os.environ.get("RANK") or 0) == 0


def say(text: str) -> None:
    """Prints one line as it is (no markup, never wrapped), on the main process only."""
    if is_main_process():
        console.print(text, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them: `8.1 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def track(iterable: Iterable[T], description: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yields the items while showing how many are done, the rate (`unit`/s) and the time left.

    A bar on a terminal, a plain line every ten seconds otherwise, nothing on ranks other than 0.
    `total` defaults to the iterable's length where it has one.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if not is_main_process():
        yield from iterable
    elif console.is_terminal:
        yield from _bar(iterable, description, total, unit)
    else:
        yield from _plain_lines(iterable, description, total, unit)


class _RateColumn(ProgressColumn):
    """Items per second, in the task's own unit."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0.0:,.1f} {task.fields['unit']}/s")


def _bar(iterable: Iterable[T], description: str, total: int | None, unit: str) -> Iterator[T]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(description, total=total, unit=unit)
        for item in iterable:
            yield item
            progress.advance(task)


def _plain_lines(iterable: Iterable[T], description: str, total: int | None, unit: str) -> Iterator[T]:
    started = spoken = time.monotonic()
    count = told = 0
    for item in iterable:
        yield item
        count += 1
        now = time.monotonic()
        if now - spoken >= PLAIN_INTERVAL:
            spoken, told = now, count
            say(_progress_line(description, count, total, unit, now - started))
    if 0 < told < count:  # whoever saw it begin also sees it end
        say(_progress_line(description, count, total, unit, time.monotonic() - started))


def _progress_line(description: str, count: int, total: int | None, unit: str, seconds: float) -> str:
    rate = count / max(seconds, 1e-9)
    line = f"{description}: {count:,}{'' if total is None else f'/{total:,}'} {unit}, {rate:,.1f} {unit}/s"
    if total is not None and count < total:
        line += f", {duration((total - count) / rate)} left"
    return line
