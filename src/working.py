"""A stage's working folder: created or resumed, set aside if it belongs to other settings, and published.

Publishing writes the manifest last, flushes all files to the disk and renames the folder. A kill at any
moment leaves the old version, the new one, or a state that `recover` repairs. If `final` is a link (for
example to a larger disk), the working folder is a link too, to a folder beside the artifact on that disk.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .artifact import MANIFEST, MARKER, RESUME, clear, files_below, flush, working_folder, write_json
from .console import say
from .errors import LlamitaError
from .hashes import content_hash

OLD, COPY = ".replaced", ".moving"  # short-lived names that users do not give to backups
MAX_SET_ASIDE = 3  # number of unfinished folders of other settings that are kept


def real_path(final: Path) -> Path:
    """The artifact's real path: `final`, or the target of that link."""
    return Path(os.path.realpath(final)) if final.is_symlink() else final


def recover(final: Path) -> None:
    """Repairs a `publish` that was killed: finishes it, or restores the old version."""
    folder, target = working_folder(final), real_path(final)
    old = target.with_name(target.name + OLD)
    if (folder / MANIFEST).is_file():  # written last, so everything else is complete
        with locked(folder):
            _swap(final)
    elif old.is_dir() and not target.exists():
        old.rename(target)
    _remove(old)
    if folder.is_symlink() and not folder.exists() and _real_working_folder(final) == working_folder(target):
        folder.unlink()  # our link to the working folder that has been published


@contextmanager
def open_working(final: Path, identity: Mapping[str, Any], resumable: bool) -> Iterator[Path]:
    """The working folder of `final`, locked against other processes while the stage runs.

    The folder is emptied first, unless the stage is `resumable` and the folder has the same fingerprint.
    Unfinished work of a resumable stage with another fingerprint is set aside, and used again when a run has
    that fingerprint.

    Args:
        identity: `fingerprint` with its components, see `runner.identity.Identity.as_dict`.

    Raises LlamitaError if another process uses the folder.
    """
    folder, fingerprint = working_folder(final), identity["fingerprint"]
    if real_path(final).is_mount():
        raise LlamitaError(
            f"{final}: is a mount point, which cannot be replaced; use a folder inside it, or a link to one"
        )
    if resumable and not _has_fingerprint(folder, fingerprint):
        if folder.is_dir():
            with locked(folder):
                if _holds_work(folder):
                    _set_aside(final)
                else:
                    shutil.rmtree(_real_working_folder(final))
        if earlier := set_aside_folder(final, fingerprint):
            earlier.rename(_real_working_folder(final))
    _make_folder(final)
    with locked(folder):
        if not (resumable and _has_fingerprint(folder, fingerprint)):
            clear(folder)
            write_json(folder / MARKER, identity)
        yield folder


def _real_working_folder(final: Path) -> Path:
    """The real path of the working folder: the target of its link, or beside the artifact's real path."""
    folder = working_folder(final)
    if folder.is_symlink():
        return Path(os.path.realpath(folder))
    return folder if folder.exists() else working_folder(real_path(final))


def _make_folder(final: Path) -> None:
    folder, work = working_folder(final), _real_working_folder(final)
    work.mkdir(parents=True, exist_ok=True)
    if work != folder and not folder.is_symlink():
        folder.symlink_to(work)


def _holds_work(folder: Path) -> bool:
    """Whether a working folder has results, not just the files of a start or of a killed write."""
    return any(
        path.name not in (MARKER, "wandb.json")
        and path.suffix != ".tmp"
        and "wandb" not in path.relative_to(folder).parts
        and path.stat().st_size > 0
        for path in files_below(folder)
    )


def _set_aside(final: Path) -> None:
    """Renames the working folder to `….partial.N` and deletes the oldest such folders."""
    work, numbered = _real_working_folder(final), _set_aside_folders(final)
    for number in sorted(numbered)[: 1 - MAX_SET_ASIDE]:
        say(f"{numbered[number]}: deleted; only the newest {MAX_SET_ASIDE} unfinished folders are kept")
        shutil.rmtree(numbered[number])
    target = work.with_name(f"{work.name}.{max(numbered, default=0) + 1}")
    work.rename(target)
    say(f"{final.name}: unfinished work was moved to {target}; a run with its settings resumes from there")


def _set_aside_folders(final: Path) -> dict[int, Path]:
    """The folders `….partial.N` by their numbers."""
    work = _real_working_folder(final)
    named = re.compile(rf"{re.escape(work.name)}\.(\d+)")
    siblings = work.parent.iterdir() if work.parent.is_dir() else ()
    return {int(match[1]): path for path in siblings if (match := named.fullmatch(path.name))}


def set_aside_folder(final: Path, fingerprint: str) -> Path | None:
    """The folder with this fingerprint that was set aside, None if there is none."""
    folders = _set_aside_folders(final).values()
    return next((folder for folder in folders if _has_fingerprint(folder, fingerprint)), None)


@contextmanager
def timed(folder: Path) -> Iterator[Callable[[], float]]:
    """Yields a function for the seconds of work so far, earlier attempts included (killed ones excluded)."""
    marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    started = time.monotonic() - marker.get("seconds", 0.0)
    try:
        yield lambda: time.monotonic() - started
    except BaseException:
        with suppress(OSError):  # on a full disk the first error matters, not the timing
            write_json(folder / MARKER, {**marker, "seconds": time.monotonic() - started})
        raise


def unfinished_identity(final: Path) -> dict[str, Any] | None:
    """The identity stored in the working folder of `final` (see `open_working`), None if there is none."""
    return _stored_identity(working_folder(final))


def _stored_identity(folder: Path) -> dict[str, Any] | None:
    try:
        stored = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and isinstance(stored.get("fingerprint"), str) else None


def _has_fingerprint(folder: Path, fingerprint: str) -> bool:
    return (_stored_identity(folder) or {}).get("fingerprint") == fingerprint


def is_empty(folder: Path) -> bool:
    """Whether a path is an empty folder."""
    return folder.is_dir() and not any(folder.iterdir())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder; the system releases it when the process ends.

    Raises LlamitaError if another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LlamitaError(
            f"{folder}: another llamita process uses this folder; wait until it ends, or stop it"
        ) from None
    except OSError:
        pass  # the file system has no locks
    try:
        yield
    finally:
        with suppress(OSError):
            os.close(descriptor)


def publish(final: Path, manifest: Mapping[str, Any]) -> None:
    """Renames the working folder to `final`, with `manifest` and the hash of its contents in it."""
    folder = working_folder(final)
    for path in files_below(folder):
        flush(path)
    write_json(folder / MANIFEST, {**manifest, "hash": content_hash(folder)})
    _swap(final)


def _swap(final: Path) -> None:
    folder, target = working_folder(final), real_path(final)
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder / RESUME, ignore_errors=True)
    for parent, _, _ in os.walk(folder):
        flush(Path(parent))
    old = target.with_name(target.name + OLD)
    if target.exists():
        _remove(old)
        target.rename(old)
    _move(_real_working_folder(final), target)
    flush(target.parent)
    _remove(old)
    if folder.is_symlink():
        folder.unlink()


def _move(folder: Path, target: Path) -> None:
    """Renames a folder, or copies it if the target is on another disk."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = target.with_name(target.name + COPY)
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        for path in files_below(copy):
            flush(path)
        copy.rename(target)
        shutil.rmtree(folder)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
