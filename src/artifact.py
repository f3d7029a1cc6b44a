"""A stage's output folder: names, manifest, and atomic writes of its files.

`<final>.partial` is the working folder; `working.py` opens and publishes it.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import DataError
from .yaml_file import parse_json

MANIFEST = "manifest.json"
MARKER = "unfinished.json"  # in a working folder: identity of the run and seconds so far
PARTIAL = ".partial"
RESUME = "resume"  # in a working folder: checkpoints that an unfinished stage resumes from


def working_folder(final: Path) -> Path:
    """The folder that a stage writes to before it is published as `final`."""
    return final.with_name(final.name + PARTIAL)


def final_folder(folder: Path) -> Path:
    """Inverse of `working_folder`; returns a final folder unchanged."""
    return folder.with_name(folder.name.removesuffix(PARTIAL))


def stage_name(folder: Path) -> str:
    """`sft` for `runs/smoke/sft` and `runs/smoke/sft.partial`; `v1/ppo` for a stage of a round."""
    final = final_folder(folder)
    for path in (folder / MARKER, folder / MANIFEST):
        with suppress(OSError, ValueError, AttributeError):
            name = parse_json(path.read_text(encoding="utf-8")).get("name")
            if isinstance(name, str) and final.absolute().as_posix().endswith(f"/{name}"):
                return name
    return final.name


def run_folder(folder: Path) -> Path:
    """`runs/smoke` for `runs/smoke/sft`, `runs/smoke/sft.partial` and `runs/smoke/v1/ppo`."""
    return folder.absolute().parents[stage_name(folder).count("/")]


def check_single_run(folder: Path, stages: Iterable[Path]) -> None:
    """Raises DataError if finished stages found below a folder belong to runs below it, not to one run."""
    owners = {run_folder(stage) for stage in stages}
    below = sorted(owners - {folder.absolute()})
    # without a report: perhaps the rounds of a run whose stages were started alone
    runs = [run for run in below if len(below) == len(owners) or (run / "report").is_dir()]
    if runs:
        names = ", ".join(str(folder / run.name) for run in runs)
        raise DataError(f"{folder}: is not the folder of one run, but holds runs; expected one of {names}")


def run_name(folder: Path) -> str:
    """Name of the run folder: `smoke` for the same examples."""
    return run_folder(folder).name


def model_folder(folder: Path) -> Path:
    """The Hugging Face folder: `folder/model` of an artifact, otherwise `folder` itself."""
    return folder / "model" if (folder / "model").is_dir() else folder


def check_version_name(name: str, input_name: str) -> None:
    """Raises DataError if a name in the listed input `input_name` can't be a folder of results."""
    if not re.fullmatch(r"[\w@-][\w.@-]*(/[\w@-][\w.@-]*)*", name, re.ASCII):
        raise DataError(
            f"input {input_name}: {name!r} can't name a folder; expected parts of letters, digits, '.', '-', "
            "'_' and '@', separated by '/' and not beginning with '.'"
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published artifact. Raises DataError if it is missing or unreadable."""
    path = folder / MANIFEST
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder}: no {MANIFEST}; expected the folder of a finished stage") from None
    except ValueError as error:
        raise DataError(f"{path}: invalid JSON ({error}); delete {folder} to run the stage again") from None
    if not isinstance(manifest, dict):
        raise DataError(f"{path}: expected a JSON object; delete {folder} to run the stage again")
    return manifest


def write_json(path: Path, obj: Any) -> None:
    """Writes JSON atomically, see `write_lines`. NaN and infinities become null."""
    write_lines(path, [json.dumps(_finite(obj), indent=2, ensure_ascii=False, allow_nan=False)])


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Writes a file atomically (also with respect to a kill) and returns the number of lines.

    Characters that are not valid Unicode, such as in a file name, are written as escapes that JSON can read.
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
        error.filename = error.filename or str(path)  # so that the error of a full disk names the file
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
    """All files below a folder, sorted, with links to files; `links`: also follows links to folders."""
    known = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=links):
        inner = {name: os.path.realpath(Path(parent) / name) for name in sorted(folders)}
        folders[:] = [name for name, real in inner.items() if real not in known]  # a link may form a cycle
        known.update(inner.values())
        for name in sorted(names):
            yield Path(parent) / name


def clear(folder: Path, keep: str = "") -> None:
    """Empties a folder, except for the entry named `keep`."""
    for path in folder.iterdir():
        if path.name != keep:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def flush(path: Path) -> None:
    """Flushes a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)
