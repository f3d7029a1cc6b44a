"""The artifacts of a run, as the report sees them: a manifest and the rows of `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact import MANIFEST, read_manifest
from ..errors import DataError
from ..jsonl import read_rows

_REQUIRED = {"stage": str, "settings": dict, "metrics": dict, "wall_seconds": int | float}


@dataclass(frozen=True)
class Artifact:
    """What one stage left behind, under the name by which the report takes it: `sft`, `v1/rejection`."""

    stage: str
    name: str
    manifest: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def metrics(self) -> dict[str, Any]:
        return self.manifest["metrics"]


def read_artifact(name: str, folder: Path) -> Artifact:
    """Reads an artifact's manifest and its `metrics.jsonl`, which not every stage writes.

    Raises:
        DataError: the manifest or a row of the metrics cannot be read, or lacks what every manifest has.
    """
    manifest = read_manifest(folder)
    for key, kind in _REQUIRED.items():
        if not isinstance(manifest.get(key), kind):
            found = json.dumps(manifest.get(key))[:80]
            raise DataError(f"{folder / MANIFEST}: {key} is {found}; expected what a finished stage writes")
    path = folder / "metrics.jsonl"
    rows = read_rows(path, remedy="expected one JSON object a line") if path.exists() else []
    return Artifact(manifest["stage"], name, manifest, rows=rows)


def read_artifacts(inputs: Mapping[str, Path]) -> list[Artifact]:
    """Reads finished stages by the names of the inputs; raises DataError as `read_artifact`.

    They are in the order in which they were made; those of one second stay in the order of the inputs.
    """
    artifacts = [read_artifact(name, folder) for name, folder in inputs.items()]
    return sorted(artifacts, key=lambda artifact: str(artifact.manifest.get("created")))
