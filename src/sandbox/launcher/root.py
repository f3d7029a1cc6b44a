"""File system: a new root with the standard library, the C libraries and an empty /tmp, nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from .calls import (
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    StepFailed,
    call,
    mount,
)

DEVICES = ("/dev/null", "/dev/urandom")
HIDDEN = ("site-packages", "dist-packages")
"""Folders of the standard library whose contents are hidden."""
_FOLDER = "/dev"
"""Where the new root is mounted at first; any folder that every user may search."""


def open_sources(paths: Iterable[str]) -> dict[str, int]:
    """Opens what the new root will show, so that it can be mounted without access to the folders above it.

    Raises:
        StepFailed: the user may not search a folder above a path.
    """
    try:
        return {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*paths, *DEVICES)}
    except OSError as error:
        raise StepFailed(
            f"{error.filename}: {error.strerror}; the sandbox needs a Python that this user may read"
        ) from None


def change_root(sources: Mapping[str, int], *, size: int, files: int) -> None:
    """Makes a new root with only the `sources`, read-only, and a /tmp of its own; the old root is detached.

    Args:
        sources: path -> open descriptor of a file or folder.
        size: maximum size of /tmp, bytes.
        files: maximum number of files and folders in /tmp.

    Raises:
        StepFailed: the kernel refused a mount.
    """
    mount("/", MS_REC | MS_PRIVATE)
    mount(_FOLDER, MS_NOSUID | MS_NODEV, kind="tmpfs", options="size=1m,mode=755")
    os.mkdir(f"{_FOLDER}/tmp")
    mount(
        f"{_FOLDER}/tmp",
        MS_NOSUID | MS_NODEV | MS_NOEXEC,
        kind="tmpfs",
        options=f"size={size},nr_inodes={files + 1},mode=700",
    )
    for path, descriptor in sources.items():
        _show(path, descriptor, _FOLDER + path)
    os.chdir(_FOLDER)
    call("new root", "pivot_root", b".", b".")
    call("old root", "umount2", b".", MNT_DETACH)
    mount("/", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir("/tmp")


def _show(path: str, descriptor: int, target: str) -> None:
    """Mounts one file or folder read-only, without the folders in `HIDDEN`."""
    source = f"/proc/self/fd/{descriptor}"
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    mount(target, MS_BIND, source=source)
    present = os.fstatvfs(descriptor).f_flag
    kept = present & (MS_NODEV | MS_NOEXEC)  # a user namespace may not clear these
    restricted = MS_RDONLY | MS_NOSUID | (0 if path in DEVICES else MS_NODEV)
    mount(target, MS_REMOUNT | MS_BIND | kept | restricted)
    for name in HIDDEN:
        if os.path.isdir(f"{target}/{name}"):
            mount(f"{target}/{name}", MS_RDONLY | MS_NOSUID | MS_NODEV, kind="tmpfs", options="nr_inodes=1")
