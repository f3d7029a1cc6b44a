"""A stage's folder, its names, and the manifest that says how it was made; hashes of folders and files.

`<final>.partial` is the working folder; how it is opened and published: `working.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .document import parse_json
from .errors import DataError
from .hub import READ

MANIFEST = "manifest.json"
MARKER = "unfinished.json"  # in a working folder: what it is being made for, the seconds so far
PARTIAL = ".partial"
# Not part of what a stage made: clocks, host names and states that only the stage itself reads.
UNHASHED_FILES = frozenset({MANIFEST, MARKER, "metrics.jsonl", "trainer_state.json", "training_args.bin"})
RESUME = "resume"  # in a working folder: states that an unfinished stage goes on from
UNHASHED_FOLDERS = frozenset({"wandb", RESUME})
BIG_INPUT = 256 * 1024**2  # bytes; plain inputs above this are known by sizes and times instead of content


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


def run_name(folder: Path) -> str:
    """`smoke` for `runs/smoke/sft`, `runs/smoke/sft.partial` and `runs/smoke/v1/ppo`."""
    return folder.absolute().parents[stage_name(folder).count("/")].name


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


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes a file in one step: readers and whoever comes after a kill see the old or the new one.

    What is no Unicode, as in the name of a file, becomes an escape, which JSON reads as the same again.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        error.filename = error.filename or str(path)  # a full disk is reported with the file that met it
        raise


def _finite(obj: Any) -> Any:
    if isinstance(obj, float):
        return obj if math.isfinite(obj) else None
    if isinstance(obj, Mapping):
        return {str(key): _finite(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_finite(value) for value in obj]
    return obj


def digest(obj: Any) -> str:
    """A short hash of a JSON-able object that does not depend on the order of its keys."""
    text = json.dumps(obj, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(_bytes(text)).hexdigest()[:32]


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")  # names of files may be no Unicode


def content_hash(folder: Path) -> str:
    """Hash of what a stage made: relative paths and bytes, without clocks (manifest, metrics, wandb)."""
    total = hashlib.sha256()
    for path in files_below(folder):
        parts = path.relative_to(folder).parts
        if UNHASHED_FOLDERS.intersection(parts[:-1]) or parts[-1] in UNHASHED_FILES:
            continue
        total.update(_bytes("/".join(parts)) + b"\0" + file_hash(path).encode() + b"\n")
    return total.hexdigest()[:32]


def input_hash(path: Path) -> str:
    """Hash of an input: an artifact's own, as its manifest says, otherwise that of the plain file or folder.

    Of a folder that holds a model only the model's files count. Raises DataError where the path is missing.
    """
    if (path / MANIFEST).is_file():
        recorded = read_manifest(path).get("hash")
        if isinstance(recorded, str):
            return recorded
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = [path] if path.is_file() else list(_model_files(path) or files_below(path, links=True))
    return hash_of_files({file.relative_to(path).as_posix(): file for file in files})


def hash_of_files(files: Mapping[str, Path]) -> str:
    """Hash of the names and contents of plain files.

    Above 256 MB together they are known by their sizes and modification times: reading them at each start
    would take minutes.
    """
    big = sum(file.stat().st_size for file in files.values()) > BIG_INPUT
    total = hashlib.sha256()
    for name, file in files.items():
        known = f"{file.stat().st_size} {file.stat().st_mtime_ns}" if big else file_hash(file)
        total.update(_bytes(f"{name}\0{known}\n"))
    return total.hexdigest()[:32]


def _model_files(folder: Path) -> list[Path]:
    """What may be read of a model's plain folder, not its README or other files."""
    places = [model_folder(folder), folder / "adapter"]
    if not any((places[0] / name).is_file() for name in ("config.json", "tokenizer.json")):
        return []
    return sorted(path for place in places for pattern in READ for path in place.glob(pattern))


def files_below(folder: Path, links: bool = False) -> Iterator[Path]:
    """All files below a folder, sorted, symbolic links to files included, those to folders with `links`."""
    known = {os.path.realpath(folder)}
    for parent, folders, names in os.walk(folder, followlinks=links):
        inner = {name: os.path.realpath(Path(parent) / name) for name in sorted(folders)}
        folders[:] = [name for name, real in inner.items() if real not in known]  # a link may lead back
        known.update(inner.values())
        for name in sorted(names):
            yield Path(parent) / name


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
