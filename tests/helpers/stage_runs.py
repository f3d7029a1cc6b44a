"""Stages on folders that stand beside each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def run(stage: Any, settings: Any, values: dict[str, Any], root: Path, name: str, **inputs: str) -> Any:
    """The metrics of a stage that reads and writes folders below `root`, the artifact `name` among them."""
    out = root / name
    out.mkdir(exist_ok=True)
    folders = {key: root / folder for key, folder in {"data": "data", **inputs}.items()}
    return stage.run(settings.model_validate_json(json.dumps(values)), folders, out)
