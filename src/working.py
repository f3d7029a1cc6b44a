"""A stage's working folder: begun or resumed, set aside when it was begun for something else, published.

Publishing writes the manifest last, flushes everything to the disk and renames. A kill at any moment leaves
the old version, the new one, or a state that `recover` mends. Where `final` is a link, as to a larger disk,
the working folder is a link too, to a folder beside the artifact itself, so that both are on that disk.
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

OLD, COPY = ".replaced", ".moving"  # for moments only, and no names that a user gives to a backup
KEPT_ASIDE = 3  # unfinished folders that were begun with other settings


def place_of(final: Path) -> Path:
    """Where an artifact is: `final`, or what that links to, as to a larger disk."""
    return Path(os.path.realpath(final)) if final.is_symlink() else final


def recover(final: Path) -> None:
    """Mends what a kill in the middle of `publish` left: finishes it, or brings the old version back."""
    folder, place = working_folder(final), place_of(final)
    old = place.with_name(place.name + OLD)
    if (folder / MANIFEST).is_file():  # written last: everything else is complete
        with _locked(folder):
            _swap(final)
    elif old.is_dir() and not place.exists():
        old.rename(place)
    _remove(old)
    if folder.is_symlink() and not folder.exists() and _work(final) == working_folder(place):
        folder.unlink()  # ours, to what has been published


@contextmanager
def open_working(final: Path, begun: Mapping[str, Any], resumable: bool) -> Iterator[Path]:
    """The working folder of `final`, locked against other processes while the stage runs.

    Emptied first, unless the stage is `resumable` and the folder was begun for the same fingerprint. What a
    resumable stage has made for another one is set aside, and found again when it is asked for.

    Args:
        begun: `fingerprint`, and beside it what it stands for; see `identity.Identity`.

    Raises LlamitaError if another process writes there.
    """
    folder, fingerprint = working_folder(final), begun["fingerprint"]
    if place_of(final).is_mount():
        raise LlamitaError(
            f"{final}: a mount point can't be replaced; expected a folder in it, or a link to one"
        )
    if resumable and (begun_for(final) or {}).get("fingerprint") != fingerprint:
        if folder.is_dir():
            with _locked(folder):
                if _holds_work(folder):
                    _set_aside(final)
                else:
                    shutil.rmtree(_work(final))
        if aside := set_aside_for(final, fingerprint):
            aside.rename(_work(final))
    _make_folder(final)
    with _locked(folder):
        if not (resumable and (begun_for(final) or {}).get("fingerprint") == fingerprint):
            clear(folder)
            write_json(folder / MARKER, begun)
        yield folder


def _work(final: Path) -> Path:
    """Where the working folder is: beside the artifact, if that is on another disk, or where a link leads."""
    folder = working_folder(final)
    if folder.is_symlink():
        return Path(os.path.realpath(folder))
    return folder if folder.exists() else working_folder(place_of(final))


def _make_folder(final: Path) -> None:
    folder, work = working_folder(final), _work(final)
    work.mkdir(parents=True, exist_ok=True)
    if work != folder and not folder.is_symlink():
        folder.symlink_to(work)


def _holds_work(folder: Path) -> bool:
    """Whether there is more than what every start writes, and what a kill cut off while it was written."""
    return any(
        path.name not in (MARKER, "wandb.json")
        and path.suffix != ".tmp"
        and "wandb" not in path.relative_to(folder).parts
        and path.stat().st_size > 0
        for path in files_below(folder)
    )


def _set_aside(final: Path) -> None:
    """Renames the working folder to `….partial.N`; of such folders the newest few stay."""
    work, asides = _work(final), _asides(final)
    for number in sorted(asides)[: 1 - KEPT_ASIDE]:
        say(f"{asides[number]}: deleted; the newer ones that were set aside are kept")
        shutil.rmtree(asides[number])
    aside = work.with_name(f"{work.name}.{max(asides, default=0) + 1}")
    work.rename(aside)
    say(f"{final.name}: what was made so far is kept in {aside}; with its own settings it resumes from there")


def _asides(final: Path) -> dict[int, Path]:
    work = _work(final)
    named = re.compile(rf"{re.escape(work.name)}\.(\d+)")
    siblings = work.parent.iterdir() if work.parent.is_dir() else ()
    return {int(match[1]): path for path in siblings if (match := named.fullmatch(path.name))}


def set_aside_for(final: Path, fingerprint: str) -> Path | None:
    """The folder that was begun for this fingerprint and set aside since, if there is one."""
    found = (
        path for path in _asides(final).values() if (_begun(path) or {}).get("fingerprint") == fingerprint
    )
    return next(found, None)


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


def begun_for(final: Path) -> dict[str, Any] | None:
    """What the unfinished working folder of `final` was begun for, if there is one: see `open_working`."""
    return _begun(working_folder(final))


def _begun(folder: Path) -> dict[str, Any] | None:
    try:
        begun = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return begun if isinstance(begun, dict) and isinstance(begun.get("fingerprint"), str) else None


def is_empty(folder: Path) -> bool:
    """Whether it is a folder without anything in it."""
    return folder.is_dir() and not any(folder.iterdir())


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
    _swap(final)


def _swap(final: Path) -> None:
    folder, place = working_folder(final), place_of(final)
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder / RESUME, ignore_errors=True)
    for parent, _, _ in os.walk(folder):
        flush(Path(parent))
    old = place.with_name(place.name + OLD)
    if place.exists():
        _remove(old)
        place.rename(old)
    _move(_work(final), place)
    flush(place.parent)
    _remove(old)
    if folder.is_symlink():
        folder.unlink()


def _move(folder: Path, place: Path) -> None:
    """Renames a folder; to another disk it is copied first."""
    try:
        folder.rename(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy = place.with_name(place.name + COPY)
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        for path in files_below(copy):
            flush(path)
        copy.rename(place)
        shutil.rmtree(folder)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
