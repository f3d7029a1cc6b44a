"""Settings of the report stage, which has inputs only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ..artifact import MANIFEST
from ..settings import Source, StageSettings

FILES_READ = (MANIFEST, "metrics.jsonl")


class ReportSettings(StageSettings):
    """Inputs are the artifacts of a run under any names; their manifests contain the kind of each stage."""

    any_inputs: ClassVar[bool] = True

    def data_read(self, inputs: Mapping[str, Path]) -> dict[str, list[Source]]:
        """Returns the files that the report reads: manifest and logged metrics of each artifact."""
        return {
            name: [Source(path=file, format="json") for file in FILES_READ if (folder / file).is_file()]
            for name, folder in inputs.items()
        }
