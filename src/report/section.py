"""What a section of the page consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure of the page and its caption.

    `missing` is the note that replaces it if it cannot be drawn; without one the figure is omitted.
    """

    draw: Callable[[Report], str | None]
    caption: str
    missing: str | None = None


@dataclass(frozen=True)
class Section:
    """A section of the page; it is omitted if it has no figure, note or table."""

    id: str
    title: str
    text: str
    figures: tuple[Figure, ...]
