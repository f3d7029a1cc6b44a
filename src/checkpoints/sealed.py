"""Checkpoints of a training run, to go on from after a kill: written aside, sealed by checksums, renamed.

`<folder>/checkpoint-120` holds what the trainer wrote, and `checkpoint.json`, written last: {"step",
"world_size", "zero_stage", "files": {path: {"bytes", "sha256"}}}. A kill at any moment leaves whole ones and
perhaps a folder aside, which the next start removes. One that is not whole is told and passed over.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..artifact import files_below, flush, write_json
from ..console import say
from ..distributed.group import barrier, gather_rows
from ..hashes import file_hash
from ..processes import is_main_process, rank, world_size

SEAL = "checkpoint.json"
PREFIX = "checkpoint-"
ASIDE = "writing"
ROOM = 1.1  # free space that a checkpoint needs, in sizes of the one before


class Checkpoints:
    """The checkpoints below one folder, which all ranks see; every rank makes one and calls all methods.

    Args:
        folder: for them alone; made when the first is saved.
        keep_last: how many stay, the newest ones.
        keep_every: those of steps that it divides stay as well.
        zero_stage: put on their seals, for whoever goes on from them.
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
        if is_main_process():
            shutil.rmtree(folder / ASIDE, ignore_errors=True)
        barrier()

    def newest(self) -> Path | None:
        """The newest one that is whole; what is wrong with newer ones is told."""
        for candidate in reversed(self._all()):
            problems = gather_rows(list(_problems(candidate)))
            if not problems:
                return candidate
            say(f"{problems[0]}; going on from an older checkpoint, or from the start where there is none")
        return None

    @staticmethod
    def step(checkpoint: Path) -> int:
        """The optimizer step after which it was saved."""
        return int(checkpoint.name.removeprefix(PREFIX))

    def save(self, step: int, write: Callable[[Path], None]) -> bool:
        """Saves what `write` puts into the empty folder that it is given, on each rank; says if it stands.

        A full disk costs the checkpoint, not the run: it is told, and those before it stay.
        """
        final = self.folder / f"{PREFIX}{step}"
        aside = self.folder / ASIDE / final.name  # transformers wants to name the folder itself
        if reason := self._too_full():
            say(f"{final}: not saved: {reason}")
            return False
        if is_main_process():
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
        barrier()
        failures = gather_rows(_attempt(write, aside))
        sums = [] if failures else gather_rows(_sums(aside))
        if is_main_process():
            if not failures:
                failures = _attempt(lambda folder: self._publish(folder, final, step, sums=sums), aside)
            if failures:
                shutil.rmtree(aside, ignore_errors=True)
        failures = gather_rows(failures if is_main_process() else [])
        if failures:
            say(f"{final}: not saved: {failures[0]}; training goes on, the checkpoint before it stays")
        return not failures

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob(f"{PREFIX}*"), key=self.step)

    def _too_full(self) -> str | None:
        """Checked before anything is written: a rank that fails alone would leave the others waiting."""
        if not (earlier := self._all()):
            return None
        needed = ROOM * sum(path.stat().st_size for path in _files(earlier[-1]))
        free = shutil.disk_usage(self.folder).free
        short = gather_rows([free] if free < needed else [])
        return f"{min(short):,} bytes are free; expected {needed:,.0f}" if short else None

    def _publish(self, aside: Path, final: Path, step: int, *, sums: list[tuple[str, int, str]]) -> None:
        files = {name: {"bytes": size, "sha256": digest} for name, size, digest in sums}
        for path in _files(aside):
            flush(path)
        write_json(
            aside / SEAL,
            {"step": step, "world_size": world_size(), "zero_stage": self._zero_stage, "files": files},
        )
        flush(aside)
        shutil.rmtree(final, ignore_errors=True)  # a broken one of the same step
        aside.rename(final)
        flush(self.folder)
        for old in self._all()[: -self.keep_last]:
            if not self.keep_every or self.step(old) % self.keep_every:
                shutil.rmtree(old, ignore_errors=True)


def _attempt(write: Callable[[Path], None], folder: Path) -> list[str]:
    """The error of a write, if any: torch and safetensors report a full disk under names of their own."""
    try:
        write(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        return [f"{type(error).__name__}: {error}"]
    return []


def _sums(folder: Path) -> list[tuple[str, int, str]]:
    """Path, bytes and checksum of this rank's share of the files."""
    share = list(_files(folder))[rank() :: world_size()]
    return [(path.relative_to(folder).as_posix(), path.stat().st_size, file_hash(path)) for path in share]


def _problems(folder: Path) -> Iterator[str]:
    """What is wrong with this rank's share of a checkpoint's files."""
    seal = folder / SEAL
    try:
        files: dict[str, Any] = json.loads(seal.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"{seal}: missing or broken ({type(error).__name__})"
        return
    for name, expected in sorted(files.items())[rank() :: world_size()]:
        path = folder / name
        if not path.is_file():
            yield f"{path}: missing"
        elif path.stat().st_size != expected["bytes"]:
            yield f"{path}: {path.stat().st_size:,} bytes; expected {expected['bytes']:,}"
        elif file_hash(path) != expected["sha256"]:
            yield f"{path}: its checksum is not that of {SEAL}"


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in files_below(folder) if path.name != SEAL)
