"""The group of all commands: reports errors as one message, shows the help in sections."""

from __future__ import annotations

import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from .. import processes
from ..console import error_console
from ..errors import LlamitaError
from ..runner import execution


class Commands(TyperGroup):
    """Reports every error as one message with an exit code (--debug adds the traceback); groups the help."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _complain("Interrupted. Finished stages are kept; run the same command to resume.")
            raise typer.Exit(130) from None
        except Exception as error:
            if hasattr(error, "exit_code") and not isinstance(error, LlamitaError):
                raise  # typer's own: wrong usage, --help
            if ctx.params.get("debug"):
                traceback.print_exc()
            _complain(_message(error))
            raise typer.Exit(error.exit_code if isinstance(error, LlamitaError) else 1) from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Lists the commands in sections, by their `rich_help_panel`."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in self.commands.items():
            if not command.hidden:
                line = (name, command.get_short_help_str(formatter.width))
                panel = str(getattr(command, "rich_help_panel", None) or "Commands")
                panels.setdefault(panel, []).append(line)
        for panel, lines in panels.items():
            with formatter.section(panel):
                formatter.write_dl(lines)


def _message(error: Exception) -> str:
    if isinstance(error, LlamitaError):
        return str(error)
    if execution.disk_is_full(error):
        return f"no space left on the disk: {getattr(error, 'filename', None) or error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error} (unexpected error; add --debug for the traceback)"


def _complain(message: str) -> None:
    rank = f"rank {processes.rank()} ({processes.ACTIVITY}): " if processes.world_size() > 1 else ""
    error_console.print(f"{rank}error: {message}", markup=False, soft_wrap=True, style="red")
