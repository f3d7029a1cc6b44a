"""What tests of the runner share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..helpers.blocks import PIPELINE


@pytest.fixture
def blocks(project: Path) -> None:
    """Makes `configs/pipeline.yaml` one of three rounds, none of them run."""
    (project / "pipeline.yaml").write_text(PIPELINE)
    (project / "rejection.yaml").write_text("strength: 2\n")
