"""Finds out which kind of stage a YAML configures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..runner import stages
from ..yaml_file import nearest, read_yaml


def kind_of(config: Path, stage: str | None = None) -> str:
    """The kind `stage` if given, else the one that the file's name or the pipeline beside the file names.

    Raises ConfigError for an unknown kind, or if none of these names one.
    """
    named = [kind for kind in (*stages.REGISTRY, "rlhf") if config.stem.startswith(kind)]
    kind = stage or (named[0] if named else _kind_in_pipeline(config))
    if kind == "rlhf":
        raise ConfigError(f"{config}: {stages.RLHF_REMOVED}")
    if kind not in stages.REGISTRY:
        problem = f"unknown kind {kind!r}" if kind else "its name does not begin with a kind of stage"
        hint = nearest(kind or config.stem, stages.REGISTRY)
        raise ConfigError(f"{config}: {problem}{hint}; add --stage KIND, one of {', '.join(stages.REGISTRY)}")
    return kind


def _kind_in_pipeline(config: Path) -> str | None:
    """The kind of the stage that the `pipeline.yaml` in the same folder configures with this file."""
    beside = config.with_name("pipeline.yaml")
    entries = read_yaml(beside).data.get("stages") if beside.is_file() else None
    naming = (entry for entry in _stages_in(entries) if entry.get("config") == config.name)
    return next((entry.get("stage") for entry in naming), None)


def _stages_in(entries: Any) -> Iterator[dict[str, Any]]:
    """The entries of a pipeline's stages, those in blocks included; the pipeline need not be valid."""
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            yield entry
            yield from _stages_in(entry.get("stages"))


def stage_names(pipeline: Path) -> list[str]:
    """The names of a pipeline's stages, those of rounds as `v1/ppo`. Raises ConfigError for a broken file."""
    entries = read_yaml(pipeline).data.get("stages")
    names: list[str] = []
    for entry in entries if isinstance(entries, list) else ():
        rounds = entry.get("rounds") if isinstance(entry, dict) else None
        inner = [str(one.get("name")) for one in _stages_in([entry]) if "name" in one]
        names += [f"{name}/{stage}" for name in rounds or () for stage in inner] if rounds else inner
    return names
