"""Data sources, as a YAML and as a reader's argument."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamita.data.intake import Intake
from llamita.data.rows import Comparison
from llamita.data.sources import stream_comparisons
from llamita.settings import Source


def source_setting(name: str, format: str) -> list[dict[str, str]]:
    """Returns the value of a setting in a YAML that names the file NAME.jsonl."""
    return [{"path": f"{name}.jsonl", "format": format}]


def source(format: str, path: str = "rows.jsonl", **options: Any) -> list[Source]:
    """Returns the sources that a reader gets for one file."""
    return [Source(path=path, format=format, **options)]


def read_comparisons(sources: Sequence[Source], root: Path, intake: Intake | None = None) -> list[Comparison]:
    """Returns the comparisons of `stream_comparisons`."""
    return list(stream_comparisons(sources, root, intake))
