"""Settings of the report stage: it has none of its own, only the artifacts to read."""

from __future__ import annotations

from typing import ClassVar

from ..config import StageSettings


class ReportSettings(StageSettings):
    """Inputs are the artifacts of a run, by any name: what they are is read from their manifests."""

    required_inputs: ClassVar[frozenset[str]] = frozenset()
    optional_inputs: ClassVar[frozenset[str]] = frozenset(
        {
            "world",
            "tokenizer",
            "corpus",
            "pretrain",
            "gatt",
            "sft",
            "sft_without_gatt",
            "helpfulness",
            "helpfulness_without_margin",
            "safety",
            "rlhf",
            "evaluate",
        }
    )
