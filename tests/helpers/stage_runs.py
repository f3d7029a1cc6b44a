"""Runs a stage in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def run(stage: Any, settings: Any, values: dict[str, Any], root: Path, name: str, **inputs: str) -> Any:
    """Runs a stage that reads folders below `root` and writes `root/name`; returns its metrics."""
    out = root / name
    out.mkdir(exist_ok=True)
    folders = {key: root / folder for key, folder in {"data": "data", **inputs}.items()}
    return stage.run(settings.model_validate_json(json.dumps(values)), folders, out)
