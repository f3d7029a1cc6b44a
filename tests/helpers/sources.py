"""Data sources, as a YAML and as a reader's argument."""

from __future__ import annotations

from typing import Any

from llamita.settings import Source


def source_setting(name: str, format: str) -> list[dict[str, str]]:
    """Returns the value of a setting in a YAML that names the file NAME.jsonl."""
    return [{"path": f"{name}.jsonl", "format": format}]


def source(format: str, path: str = "rows.jsonl", **options: Any) -> list[Source]:
    """Returns the sources that a reader gets for one file."""
    return [Source(path=path, format=format, **options)]
