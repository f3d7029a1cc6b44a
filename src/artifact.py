"""A stage's folder, its names, the manifest that says how it was made, and files written in one step.

`<final>.partial` is the working folder; how it is opened and published: `working.py`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import DataError
from .yaml_file import parse_json

MANIFEST = "manifest.json"
MARKER = "unfinished.json"  # in a working folder: what it is being made for, the seconds so far
PARTIAL = ".partial"
RESUME = "resume"  # in a working folder: states that an unfinished stage goes on from


def working_folder(final: Path) -> Path:
    """Where a stage writes what will be published as `final`."""
    return final.with_name(final.name + PARTIAL)


def final_folder(folder: Path) -> Path:
    """Undoes `working_folder`; a final folder is returned as it is."""
    return folder.with_name(folder.name.removesuffix(PARTIAL))


def stage_name(folder: Path) -> str:
    """`sft` for `runs/smoke/sft` and `runs/smoke/sft.partial`; a stage of a round notes `v1/ppo` there."""
    final = final_folder(folder)
    for note in (folder / MARKER, folder / MANIFEST):
        with suppress(OSError, ValueError, AttributeError):
            name = parse_json(note.read_text(encoding="utf-8")).get("name")
            if isinstance(name, str) and final.absolute().as_posix().endswith(f"/{name}"):
                return name
    return final.name


def run_folder(folder: Path) -> Path:
    """`runs/smoke` for `runs/smoke/sft`, `runs/smoke/sft.partial` and `runs/smoke/v1/ppo`."""
    return folder.absolute().parents[stage_name(folder).count("/")]


def run_name(folder: Path) -> str:
    """`smoke` for the same folders."""
    return run_folder(folder).name


def model_folder(folder: Path) -> Path:
    """The Hugging Face folder: `folder/model` in an artifact, `folder` itself otherwise."""
    return folder / "model" if (folder / "model").is_dir() else folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published artifact. Raises DataError where there is none or it can't be read."""
    path = folder / MANIFEST
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no {MANIFEST}; expected the folder of a finished stage") from None
    except ValueError as error:
        raise DataError(f"{path}: no valid JSON ({error}); delete {folder} to make it again") from None
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: expected a JSON object; delete {folder} to make it again")
    return manifest


def write_json(path: Path, obj: Any) -> None:
    """Writes JSON in one step, see `write_lines`. NaN and infinities become null."""
    write_lines(path, [json.dumps(_finite(obj), indent=2, ensure_ascii=False, allow_nan=False)])


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Writes a file in one step: readers and whoever comes after a kill see the old or the new one.

    Returns the number of lines.
    What is no Unicode, as in the name of a file, becomes an escape, which JSON reads as the same again.
    """
    temporary = path.with_name(path.name + ".tmp")
    count = 0
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for line in lines:
                file.write(f"{line}\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        error.filename = error.filename or str(path)  # a full disk is reported with the file that met it
        raise
    return count


def _finite(obj: Any) -> Any:
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {str(key): _finite(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_finite(value) for value in obj]
    return obj


def files_below(folder: Path, links: bool = False) -> Iterator[Path]:
    """All files below a folder, sorted, symbolic links to files included, those to folders with `links`."""
    known = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=links):
        inner = {name: os.path.realpath(Path(parent) / name) for name in sorted(folders)}
        folders[:] = [name for name, real in inner.items() if real not in known]  # a link may lead back
        known.update(inner.values())
        for name in sorted(names):
            yield Path(parent) / name


def clear(folder: Path, keep: str = "") -> None:
    """Empties a folder but for what is named `keep`."""
    for path in folder.iterdir():
        if path.name != keep:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def flush(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)
