"""Names that the shell completes on the command line."""

from __future__ import annotations

from pathlib import Path

import typer

from ..errors import LlamitaError
from ..runner.stages import REGISTRY
from .kinds import stage_names
from .recipes import recipe_names


def recipes(incomplete: str) -> list[str]:
    """Names of the shipped recipes."""
    return [name for name in recipe_names() if name.startswith(incomplete)]


def kinds(incomplete: str) -> list[str]:
    """Kinds of stages."""
    return [kind for kind in REGISTRY if kind.startswith(incomplete)]


def schemas(incomplete: str) -> list[str]:
    """What there is a JSON schema of."""
    return [kind for kind in ("pipeline", *REGISTRY) if kind.startswith(incomplete)]


def stages(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of the stages of the pipeline that was typed before."""
    typed = [ctx.params.get("config"), *ctx.args]  # behind an option without its value all stays in `args`
    pipeline = next((str(word) for word in typed if word and not str(word).startswith("-")), "")
    try:
        names = stage_names(Path(pipeline))
    except LlamitaError:
        return []
    return [name for name in names if name.startswith(incomplete)]
