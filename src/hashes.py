"""Hashes of inputs, stage outputs and single files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .artifact import MANIFEST, MARKER, RESUME, files_below, model_folder, read_manifest
from .errors import DataError
from .hub import READ

# Files that are not results: times, host names and checkpoints that only the stage itself reads.
UNHASHED_FILES = frozenset({MANIFEST, MARKER, "metrics.jsonl", "trainer_state.json", "training_args.bin"})
UNHASHED_FOLDERS = frozenset({"wandb", RESUME})
BIG_INPUT = 256 * 1024**2  # bytes; larger plain inputs are hashed by file sizes and times, not by contents


def digest(obj: Any) -> str:
    """A short hash of a JSON-serializable object, independent of the order of its keys."""
    text = json.dumps(obj, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(_bytes(text)).hexdigest()[:32]


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")  # file names may be invalid Unicode


def content_hash(folder: Path) -> str:
    """Hash of a stage's results (relative paths and bytes), without manifest, metrics, wandb, checkpoints."""
    total = hashlib.sha256()
    for path in files_below(folder):
        parts = path.relative_to(folder).parts
        if UNHASHED_FOLDERS.intersection(parts[:-1]) or parts[-1] in UNHASHED_FILES:
            continue
        total.update(_bytes("/".join(parts)) + b"\0" + file_hash(path).encode() + b"\n")
    return total.hexdigest()[:32]


def input_hash(path: Path) -> str:
    """Hash of an input: the hash in an artifact's manifest, or that of a plain file or folder.

    In a folder that holds a model, only the model's files count. Raises DataError if the path is missing.
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

    Above 256 MB in total, sizes and modification times replace the contents: reading such files at each start
    would take minutes.
    """
    big = sum(file.stat().st_size for file in files.values()) > BIG_INPUT
    total = hashlib.sha256()
    for name, file in files.items():
        content = f"{file.stat().st_size} {file.stat().st_mtime_ns}" if big else file_hash(file)
        total.update(_bytes(f"{name}\0{content}\n"))
    return total.hexdigest()[:32]


def _model_files(folder: Path) -> list[Path]:
    """Files of a plain model folder that a stage may read; empty if it holds no model."""
    places = [model_folder(folder), folder / "adapter"]
    if not any((places[0] / name).is_file() for name in ("config.json", "tokenizer.json")):
        return []
    return sorted(path for place in places for pattern in READ for path in place.glob(pattern))


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
