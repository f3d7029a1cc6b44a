"""Hashes: what inputs, the outputs of stages and single files are known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .artifact import MANIFEST, MARKER, RESUME, files_below, model_folder, read_manifest
from .errors import DataError
from .hub import READ

# Not part of what a stage made: clocks, host names and states that only the stage itself reads.
UNHASHED_FILES = frozenset({MANIFEST, MARKER, "metrics.jsonl", "trainer_state.json", "training_args.bin"})
UNHASHED_FOLDERS = frozenset({"wandb", RESUME})
BIG_INPUT = 256 * 1024**2  # bytes; plain inputs above this are known by sizes and times instead of content


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


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
