"""The stage `prepare`: tokenizes text into token shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..artifact import RESUME
from ..corpus.writing import JOURNAL, write_corpus
from ..model.checkpoint import load_tokenizer
from .settings import PrepareSettings


def run(settings: PrepareSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Writes the corpus into `out`. Metrics: see `corpus.writing.write_corpus`."""
    tokenizer = load_tokenizer(inputs["tokenizer"])
    journal = out / RESUME / JOURNAL
    return write_corpus(settings, settings.seed, tokenizer, root=inputs["data"], folder=out, journal=journal)
