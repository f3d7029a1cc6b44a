"""Checkpoints of a training run: written to a temporary folder, sealed with checksums, then renamed.

`<folder>/checkpoint-120` contains the trainer's files and `checkpoint.json`, the seal, which is written last:
{"step", "world_size", "zero_stage", "files": {path: {"bytes", "sha256"}}}. A kill at any moment leaves intact
checkpoints and perhaps a temporary folder, which the next start removes. A damaged checkpoint is reported and
skipped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..artifact import files_below, flush, write_json
from ..console import say
from ..distributed.group import gather_rows, once, wait_until_visible
from ..errors import LlamitaError
from ..hashes import file_hash
from ..processes import phase, rank, world_size

SEAL = "checkpoint.json"
PREFIX = "checkpoint-"
TEMPORARY = "writing"
Files = Mapping[str, Any]  # path in a checkpoint: size and checksum
SPACE_FACTOR = 1.1  # required free space, as a multiple of the previous checkpoint's size


class Checkpoints:
    """The checkpoints in a folder that all ranks can access; each rank has an instance and calls all methods.

    Args:
        folder: folder for checkpoints only; created when the first one is saved.
        keep_last: number of newest checkpoints to keep.
        keep_every: checkpoints of steps divisible by this number are kept as well.
        zero_stage: ZeRO stage of this run, stored in the seal.
    """

    def __init__(
        self,
        folder: Path,
        keep_last: int = 2,
        keep_every: int | None = None,
        *,
        zero_stage: int | None = None,
    ) -> None:
        self.folder, self.keep_last, self.keep_every = folder, keep_last, keep_every
        self._zero_stage = zero_stage
        once("clearing checkpoints", lambda: shutil.rmtree(folder / TEMPORARY, ignore_errors=True))

    def newest(self) -> Path | None:
        """The newest intact checkpoint, or None; problems of newer ones are reported."""
        found = once("looking for checkpoints", lambda: [(path, _sealed(path)) for path in self._all()])
        for candidate, files in reversed(found):
            wait_until_visible(candidate)
            with phase(f"checking {candidate.name}"):
                problems = gather_rows(list(_problems(candidate, files)))
            if not problems:
                return candidate
            say(f"{problems[0]}; trying the checkpoint before it, or starting from the beginning")
        return None

    @staticmethod
    def step(checkpoint: Path) -> int:
        """The optimizer step after which `checkpoint` was saved."""
        return int(checkpoint.name.removeprefix(PREFIX))

    @phase("saving")
    def save(self, step: int, write: Callable[[Path], None]) -> bool:
        """Saves a checkpoint; returns whether it succeeded.

        On each rank `write` is called with the same empty folder, into which it writes the checkpoint. If the
        disk is full, this is reported, earlier checkpoints are kept and training continues.

        Raises LlamitaError on a rank that could not write while others wait for it in DeepSpeed's barriers.
        """
        final = self.folder / f"{PREFIX}{step}"
        temporary = self.folder / TEMPORARY / final.name  # transformers expects this name
        if reason := once("saving", self._lack_of_space):
            say(f"{final}: not saved: {reason}; training continues, earlier checkpoints are kept")
            return False
        once("saving", lambda: _make_empty(temporary))
        wait_until_visible(temporary)
        errors = _attempt(write, temporary)
        if errors and self._zero_stage is not None and world_size() > 1:
            raise LlamitaError(
                f"{final}: not saved: {errors[0]}. With DeepSpeed on several ranks this ends the run; the "
                "same command resumes from the checkpoint before"
            )
        errors = gather_rows(errors)
        sums = [] if errors else gather_rows(_sums(temporary))
        errors = errors or once("saving", lambda: self._publish(temporary, final, step, sums=sums))
        if errors:
            once("saving", lambda: shutil.rmtree(temporary, ignore_errors=True))  # its bytes fill the disk
            say(f"{final}: not saved: {errors[0]}; training continues, earlier checkpoints are kept")
        return not errors

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob(f"{PREFIX}*"), key=self.step)

    def _lack_of_space(self) -> str | None:
        """Checked before anything is written, by rank 0: the ranks share the disk."""
        if not (earlier := self._all()):
            return None
        sealed = _sealed(earlier[-1])  # not what a resumed run added, as `universal.py` does
        if isinstance(sealed, str):
            return None
        required = SPACE_FACTOR * sum(file["bytes"] for file in sealed.values())
        free = shutil.disk_usage(self.folder).free
        return f"{free:,} bytes are free, {required:,.0f} are required" if free < required else None

    def _publish(
        self, temporary: Path, final: Path, step: int, *, sums: list[tuple[str, int, str]]
    ) -> list[str]:
        """Seals and renames a checkpoint; returns the error, if any."""
        return _attempt(partial(self._seal_and_rename, final=final, step=step, sums=sums), temporary)

    def _seal_and_rename(
        self, temporary: Path, final: Path, step: int, *, sums: list[tuple[str, int, str]]
    ) -> None:
        files = {name: {"bytes": size, "sha256": digest} for name, size, digest in sums}
        for path in _files(temporary):
            flush(path)
        write_json(
            temporary / SEAL,
            {"step": step, "world_size": world_size(), "zero_stage": self._zero_stage, "files": files},
        )
        flush(temporary)
        shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
        temporary.rename(final)
        flush(self.folder)
        self._remove_old(step)

    def _remove_old(self, newest: int) -> None:
        """Keeps the newest checkpoints up to that of step `newest`; later ones are damaged."""
        checkpoints = self._all()
        intact = [path for path in checkpoints if self.step(path) <= newest]
        kept = set(intact[-self.keep_last :])
        if self.keep_every:
            kept |= {path for path in intact if self.step(path) % self.keep_every == 0}
        for path in checkpoints:
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)


def _attempt(write: Callable[[Path], None], folder: Path) -> list[str]:
    """The error of a write, if any; torch and safetensors raise their own classes if the disk is full."""
    try:
        write(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        return [f"{type(error).__name__}: {error}"]
    return []


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _sums(folder: Path) -> list[tuple[str, int, str]]:
    """Path, size in bytes and checksum of each file in this rank's share.

    The files are those that any rank sees: each sees its own at once, on a network file system others' later.
    """
    seen = gather_rows([path.relative_to(folder).as_posix() for path in _files(folder)])
    paths = [folder / name for name in sorted(set(seen))[rank() :: world_size()]]
    for path in paths:
        wait_until_visible(path)
    return [(path.relative_to(folder).as_posix(), path.stat().st_size, file_hash(path)) for path in paths]


def _sealed(folder: Path) -> Files | str:
    """The files that the seal of a checkpoint lists, or the problem with the seal."""
    seal = folder / SEAL
    try:
        files: Files = json.loads(seal.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{seal}: missing or damaged ({type(error).__name__})"
    return files


def _problems(folder: Path, files: Files | str) -> Iterator[str]:
    """Problems of the files in this rank's share of a checkpoint; `files`: see `_sealed`."""
    if isinstance(files, str):
        yield files
        return
    for name, expected in sorted(files.items())[rank() :: world_size()]:
        path = folder / name
        if not path.is_file():
            yield f"{path}: missing"
        elif path.stat().st_size != expected["bytes"]:
            yield f"{path}: {path.stat().st_size:,} bytes; expected {expected['bytes']:,}"
        elif file_hash(path) != expected["sha256"]:
            yield f"{path}: its checksum differs from that in {SEAL}"


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in files_below(folder) if path.name != SEAL)
