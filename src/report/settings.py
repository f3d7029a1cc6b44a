"""Settings of the report stage: it has none of its own, only the artifacts to read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ..artifact import MANIFEST
from ..settings import Source, StageSettings

MEASURED = (MANIFEST, "metrics.jsonl")


class ReportSettings(StageSettings):
    """Inputs are the artifacts of a run, by any names: what they are is read from their manifests."""

    any_inputs: ClassVar[bool] = True

    def data_read(self, inputs: Mapping[str, Path]) -> dict[str, list[Source]]:
        """What is measured of each artifact: the report reads nothing else of them."""
        return {
            name: [Source(path=file, format="json") for file in MEASURED if (folder / file).is_file()]
            for name, folder in inputs.items()
        }
