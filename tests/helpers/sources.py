"""Where rows come from, as a stage's settings say it and as its readers get it."""

from __future__ import annotations

from typing import Any

from llamita.settings import Source


def source_setting(name: str, format: str) -> list[dict[str, str]]:
    """The value of a setting in a YAML: the file NAME.jsonl."""
    return [{"path": f"{name}.jsonl", "format": format}]


def source(format: str, path: str = "rows.jsonl", **options: Any) -> list[Source]:
    """What a reader is given for one file."""
    return [Source(path=path, format=format, **options)]
