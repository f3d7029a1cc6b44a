"""A stage's folder: written aside, published by one rename, with a manifest that says how it was made.

`<final>.partial` is the working folder. Publishing writes the manifest last, flushes everything to the disk
and renames. A kill at any moment leaves the old version, the new one, or a state that `recover` mends.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .console import is_main_process as is_main_process
from .errors import DataError, LlamitaError

MANIFEST = "manifest.json"
MARKER = "unfinished.json"  # in a working folder: the fingerprint it is being made for, the seconds so far
PARTIAL, OLD = ".partial", ".old"
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
    """`sft` for `runs/smoke/sft` and `runs/smoke/sft.partial`."""
    return final_folder(folder).name


def run_name(folder: Path) -> str:
    """`smoke` for `runs/smoke/sft` and `runs/smoke/sft.partial`."""
    return folder.absolute().parent.name


def model_folder(folder: Path) -> Path:
    """The Hugging Face folder: `folder/model` in an artifact, `folder` itself otherwise."""
    return folder / "model" if (folder / "model").is_dir() else folder


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a published artifact. Raises DataError where there is none or it can't be read."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
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
    """Writes a file in one step: readers and whoever comes after a kill see the old or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
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
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def content_hash(folder: Path) -> str:
    """Hash of what a stage made: relative paths and bytes, without clocks (manifest, metrics, wandb)."""
    total = hashlib.sha256()
    for path in files_below(folder):
        parts = path.relative_to(folder).parts
        if UNHASHED_FOLDERS.intersection(parts[:-1]) or parts[-1] in UNHASHED_FILES:
            continue
        total.update("/".join(parts).encode() + b"\0" + file_hash(path).encode() + b"\n")
    return total.hexdigest()[:32]


def input_hash(path: Path) -> str:
    """Hash of an input: an artifact's own, as its manifest says, otherwise that of the plain file or folder.

    Plain inputs above 256 MB are known by the sizes and modification times of their files: reading them
    at each start would take minutes. Raises DataError where the path is missing.
    """
    if (path / MANIFEST).is_file():
        recorded = read_manifest(path).get("hash")
        if isinstance(recorded, str):
            return recorded
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    files = [path] if path.is_file() else list(files_below(path))
    big = sum(file.stat().st_size for file in files) > BIG_INPUT
    total = hashlib.sha256()
    for file in files:
        known = f"{file.stat().st_size} {file.stat().st_mtime_ns}" if big else file_hash(file)
        total.update(f"{file.relative_to(path).as_posix()}\0{known}\n".encode())
    return total.hexdigest()[:32]


def files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, sorted, symbolic links to files included."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            yield Path(parent) / name


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recover(final: Path) -> None:
    """Mends what a kill in the middle of `publish` left: finishes it, or brings the old version back."""
    partial, old = working_folder(final), final.with_name(final.name + OLD)
    if (partial / MANIFEST).is_file():  # written last: everything else is complete
        with _locked(partial):
            _swap(partial, final)
    elif old.is_dir() and not final.exists():
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def open_working(final: Path, fingerprint: str, resumable: bool) -> Iterator[Path]:
    """The working folder of `final`, locked against other processes while the stage runs.

    Emptied first, unless the stage is `resumable` and the folder was begun for the same `fingerprint`.
    Raises LlamitaError if another process writes there.
    """
    folder = working_folder(final)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not (resumable and begun_for(final) == fingerprint):
            clear(folder)
            write_json(folder / MARKER, {"fingerprint": fingerprint})
        yield folder


@contextmanager
def timed(folder: Path) -> Iterator[Callable[[], float]]:
    """Tells the seconds of work in a working folder, earlier goes included but for those that were killed."""
    marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    started = time.monotonic() - marker.get("seconds", 0.0)
    try:
        yield lambda: time.monotonic() - started
    except BaseException:
        with suppress(OSError):  # on a full disk the reason counts more than the clock
            write_json(folder / MARKER, {**marker, "seconds": time.monotonic() - started})
        raise


def clear(folder: Path, keep: str = "") -> None:
    """Empties a folder but for what is named `keep`."""
    for path in folder.iterdir():
        if path.name != keep:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def begun_for(final: Path) -> str | None:
    """The fingerprint for which the unfinished working folder of `final` was begun, if there is one."""
    try:
        begun = json.loads((working_folder(final) / MARKER).read_text(encoding="utf-8")).get("fingerprint")
    except (OSError, ValueError, AttributeError):
        return None
    return begun if isinstance(begun, str) else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder itself; it ends with the process, however that ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LlamitaError(f"{folder}: another llamita process writes here; wait for it or stop it") from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)


def publish(final: Path, manifest: Mapping[str, Any]) -> None:
    """Turns the working folder into `final` by one rename, with `manifest` (its `hash` is added here)."""
    folder = working_folder(final)
    for path in files_below(folder):
        flush(path)
    write_json(folder / MANIFEST, {**manifest, "hash": content_hash(folder)})
    _swap(folder, final)


def _swap(partial: Path, final: Path) -> None:
    (partial / MARKER).unlink(missing_ok=True)
    shutil.rmtree(partial / RESUME, ignore_errors=True)
    for parent, _, _ in os.walk(partial):
        flush(Path(parent))
    old = final.with_name(final.name + OLD)
    if final.exists():
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    partial.rename(final)
    flush(final.parent)
    shutil.rmtree(old, ignore_errors=True)


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
