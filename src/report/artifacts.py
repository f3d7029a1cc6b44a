"""The artifacts of a run, as the report sees them: a manifest and the rows of `metrics.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..artifact import MANIFEST, read_manifest
from ..errors import DataError
from ..jsonl import read_rows

_REQUIRED = {"stage": str, "name": str, "settings": dict, "metrics": dict, "wall_seconds": int | float}


@dataclass(frozen=True)
class Artifact:
    """What one stage left behind."""

    stage: str
    name: str
    manifest: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def metrics(self) -> dict[str, Any]:
        return self.manifest["metrics"]


def read_artifact(folder: Path) -> Artifact:
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
    return Artifact(manifest["stage"], manifest["name"], manifest, rows)


def read_artifacts(inputs: Mapping[str, Path]) -> list[Artifact]:
    """Reads finished stages, in the order in which they were made; raises DataError as `read_artifact`.

    They keep the names that their runs gave them. Where two have one name, as stages of two runs, all go by
    the names of the inputs instead.
    """
    artifacts = [read_artifact(folder) for folder in inputs.values()]
    if len({artifact.name for artifact in artifacts}) < len(artifacts):
        artifacts = [replace(one, name=name) for name, one in zip(inputs, artifacts, strict=True)]
    return sorted(artifacts, key=lambda artifact: (str(artifact.manifest.get("created")), artifact.name))
