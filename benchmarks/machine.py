"""What every benchmark prints: command, hardware, versions, and tables in Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

LIBRARIES = ("torch", "transformers", "tokenizers", "datasets", "deepspeed")


def describe(command: Sequence[str]) -> str:
    """Returns three lines: command, hardware, versions."""
    return (
        f"command: python {' '.join(command)}\n"
        f"hardware: {processor()}{_gpu()}\n"
        f"versions: {', '.join(f'{name} {version}' for name, version in versions().items())}\n"
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that affect speed."""
    return {"Python": platform.python_version(), **{name: metadata.version(name) for name in LIBRARIES}}


def processor() -> str:
    """Name of the processor and number of its cores."""
    return f"{_processor_name()}, {os.cpu_count()} cores"


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def _gpu() -> str:
    import torch

    return f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; all but the first are right-aligned."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = [head, ["-" * (width - 1) + ":" if n else "-" * width for n, width in enumerate(widths)], *rows]
    return "\n".join(
        "| " + " | ".join(_cell(cell, widths, column) for column, cell in enumerate(line)) + " |"
        for line in lines
    )


def _cell(cell: str, widths: Sequence[int], column: int) -> str:
    return cell.rjust(widths[column]) if column else cell.ljust(widths[column])
