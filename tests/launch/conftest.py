"""Fixtures of the tests that kill a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..helpers.long_pretraining import write_inputs


@pytest.fixture
def root(tmp_path: Path, tokenizer: Any) -> Path:
    """A folder with the inputs of `long_pretraining`."""
    write_inputs(tmp_path, tokenizer)
    return tmp_path
