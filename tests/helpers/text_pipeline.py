"""Runs, plans and changes the pipeline of the fixture `project`: three stages that write text."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamita.errors import ConfigError
from llamita.runner import pipeline, schedule

PIPELINE = """\
name: tiny
seed: 7
roots: {data: null}
stages:
  - {name: base, stage: maker, config: base.yaml}
  - {name: chat, stage: taker, config: chat.yaml, inputs: {model: base}}
  - {name: final, stage: rounds, config: final.yaml, inputs: {model: chat}}
"""


def run(*overrides: str, first: str | None = None, last: str | None = None) -> None:
    """Runs the pipeline, or its stages from `first` to `last`."""
    chosen = schedule.plan(pipeline.read_pipeline("configs/pipeline.yaml", overrides), first, last)
    schedule.run(chosen)


def plan(*overrides: str) -> dict[str, str]:
    """Stage -> reason to run it, or "finished"."""
    chosen = schedule.plan(pipeline.read_pipeline("configs/pipeline.yaml", overrides))
    return {item.stage_run.name: item.status.reason for item in chosen if item.status}


def problem(*overrides: str) -> str:
    """The error message of an invalid pipeline."""
    with pytest.raises(ConfigError) as caught:
        pipeline.read_pipeline("configs/pipeline.yaml", overrides)
    return str(caught.value)


def replace(path: str, old: str, new: str) -> None:
    """Replaces `old`, which must occur, in a file."""
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))
