"""Messages, tables and progress bars on the terminal, printed by the main process only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from .processes import advanced, is_main_process

T = TypeVar("T")

PLAIN_INTERVAL = 10.0  # seconds between progress lines if the output is not a terminal

console = Console(highlight=False)
error_console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Prints one line without markup or wrapping, on the main process only."""
    if is_main_process():
        console.print(text, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """A readable duration: `8.1 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60:02d} min"


def aligned_table(first: str, *others: str) -> Table:
    """An empty table with these headers; all columns but the first are right-aligned."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for other in others:
        table.add_column(other, justify="right", no_wrap=True)
    return table


def show(table: Table) -> None:
    """Prints a table, on the main process only."""
    if is_main_process():
        console.print(table)


def track(
    iterable: Iterable[T],
    description: str | None,
    total: float | None = None,
    *,
    unit: str = "it",
    amount: Callable[[T], float] = lambda _: 1,
    done: float = 0,
) -> Iterator[T]:
    """Yields the items and shows progress, rate (`unit`/s) and time left.

    Shows a bar on a terminal, otherwise a line every ten seconds, and nothing on ranks other than 0.

    Args:
        description: name of the work; None shows nothing.
        total: amount of work in `unit`; default: the length of the iterable, if it has one.
        amount: function that returns the amount of work of an item, in `unit`.
        done: work that was finished before, in `unit`; it does not count in the rate.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with progress(description, total, unit, done=done) as advance:
        for item in iterable:
            yield item
            advance(amount(item))


def progress(
    description: str | None, total: float | None, unit: str = "it", *, done: float = 0
) -> AbstractContextManager[Callable[[float], None]]:
    """`track` for work that is not a loop: yields a function to call with each amount of finished work."""
    if description is None or not is_main_process():
        return nullcontext(lambda _: advanced())
    return (_bar if console.is_terminal else _plain_lines)(description, total, unit, done=done)


class _RateColumn(ProgressColumn):
    """Rate in the task's unit per second or minute."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.finished_speed or task.speed or 0.0, task.fields["unit"]))


class _DoneColumn(ProgressColumn):
    """Finished and total work."""

    def render(self, task: Task) -> Text:
        return Text(_share(task.completed, task.total))


@contextmanager
def _bar(
    description: str, total: float | None, unit: str, *, done: float
) -> Iterator[Callable[[float], None]]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _DoneColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total, unit=unit)
        bar.advance(task, done)

        def advance(amount: float) -> None:
            advanced()
            bar.advance(task, amount)

        yield advance


@contextmanager
def _plain_lines(
    description: str, total: float | None, unit: str, *, done: float
) -> Iterator[Callable[[float], None]]:
    started = last_time = time.monotonic()
    last_count = count = done

    def print_line(now: float) -> None:
        say(_progress_line(description, count, total, unit=unit, rate=(count - done) / (now - started)))

    def advance(amount: float) -> None:
        nonlocal last_time, last_count, count
        advanced()
        count += amount
        now = time.monotonic()
        if now - last_time >= PLAIN_INTERVAL:
            last_time, last_count = now, count
            print_line(now)

    yield advance
    if done < last_count < count:  # only after at least one line
        print_line(time.monotonic())


def _share(count: float, total: float | None) -> str:
    return f"{count:,.0f}" if total is None else f"{count:,.0f}/{total:,.0f}"


def _rate(rate: float, unit: str) -> str:
    return f"{rate:,.1f} {unit}/s" if rate >= 1 or rate == 0 else f"{60 * rate:,.1f} {unit}/min"


def _progress_line(description: str, count: float, total: float | None, *, unit: str, rate: float) -> str:
    line = f"{description}: {_share(count, total)} {unit}, {_rate(rate, unit)}"
    if total is not None and count < total and rate > 0:
        line += f", {duration((total - count) / rate)} left"
    return line
