"""Finds the finished stages of a run."""

from __future__ import annotations

from pathlib import Path

from .. import artifact


def finished_stages(run_folder: Path) -> dict[str, Path]:
    """The folders of a run's finished stages by their names, those of rounds as `v1/ppo`, without backups."""
    flat = [path.parent for path in run_folder.glob(f"*/{artifact.MANIFEST}")]
    nested = [path.parent for path in run_folder.glob(f"*/*/{artifact.MANIFEST}")]
    nested = [folder for folder in nested if folder.parent not in flat and "." not in folder.parent.name]
    folders = sorted(folder for folder in (*flat, *nested) if folder.suffix != artifact.PARTIAL)
    found = {folder.relative_to(run_folder).as_posix(): folder for folder in folders}
    return {name: found[name] for name in found if name.partition(".")[0] not in found.keys() - {name}}
