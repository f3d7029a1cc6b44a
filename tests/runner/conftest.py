"""Fixtures of the runner's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..helpers.blocks import PIPELINE


@pytest.fixture
def blocks(project: Path) -> None:
    """Replaces `configs/pipeline.yaml` by a pipeline of three rounds; no stage has run."""
    (project / "pipeline.yaml").write_text(PIPELINE)
    (project / "rejection.yaml").write_text("strength: 2\n")
