"""Reads the artifacts of a run for the report: manifests and the rows of `metrics.jsonl`."""

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
    """Manifest and logged metrics of one finished stage; `name` is its input name, as `v1/rejection`."""

    stage: str
    name: str
    manifest: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def metrics(self) -> dict[str, Any]:
        return self.manifest["metrics"]


def read_artifact(name: str, folder: Path) -> Artifact:
    """Reads an artifact's manifest and, where the stage wrote one, its `metrics.jsonl`.

    Raises:
        DataError: the manifest or a row of the metrics is broken, or the manifest lacks a required key.
    """
    manifest = read_manifest(folder)
    for key, kind in _REQUIRED.items():
        if not isinstance(manifest.get(key), kind):
            value = json.dumps(manifest.get(key))[:80]
            raise DataError(
                f"{folder / MANIFEST}: {key} is {value}; expected the manifest of a finished stage"
            )
    path = folder / "metrics.jsonl"
    rows = read_rows(path, remedy="expected one JSON object per line") if path.exists() else []
    return Artifact(manifest["stage"], name, manifest, rows=rows)


def read_artifacts(inputs: Mapping[str, Path]) -> list[Artifact]:
    """Reads the artifacts of finished stages, sorted by time of creation (equal times: order of the inputs).

    Raises DataError as `read_artifact` does.
    """
    artifacts = [read_artifact(name, folder) for name, folder in inputs.items()]
    return sorted(artifacts, key=lambda artifact: str(artifact.manifest.get("created")))
