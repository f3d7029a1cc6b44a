"""Making the artifact of one stage: in this process or by the launcher, with its manifest."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__, artifact, working
from ..console import say
from ..errors import LlamitaError, RolledBack
from ..processes import is_main_process
from .identity import Step, identity, input_hashes, standing
from .launcher import launch
from .stages import stage_run

LIBRARIES = ("torch", "transformers", "trl", "accelerate", "deepspeed", "datasets", "tokenizers", "numpy")


def execute(step: Step) -> None:
    """Makes the artifact of a step and publishes it; with `deepspeed` set, in processes of its own.

    Under a launcher (RANK is set) rank 0 alone prepares and publishes the folder; the other ranks only run
    the stage. A stage meets them when it creates its process group, before any of them reads the folder,
    and returns on rank 0 after the last has written.
    """
    if "RANK" not in os.environ:
        while rolled_back := _attempt(step):
            say(f"{step.name}: {rolled_back}")
    elif not is_main_process():
        _run(step, artifact.working_folder(step.final))
    else:
        _make(step)


def _attempt(step: Step) -> str | None:
    """Makes the artifact, or says why its training is to go on from an earlier state."""
    try:
        if getattr(step.settings, "deepspeed", None):
            launch(step)
        else:
            _make(step)
    except RolledBack as reason:
        return str(reason)
    return None


def _make(step: Step) -> None:
    standing(step)  # refuses a place that is another's
    hashes = input_hashes(step)
    wanted = identity(step, hashes).fingerprint
    begun = {**identity(step, hashes, resuming=True).marker(), "name": step.name}
    with (
        _disk_full_told(step),
        working.open_working(step.final, begun, step.settings.resumable) as out,
        working.timed(out) as seconds,
    ):
        metrics = _run(step, out)
        manifest = {
            "stage": step.kind,
            "name": step.name,
            "settings": step.settings.fingerprinted(),
            "inputs": {name: {"path": str(step.inputs[name]), "hash": hashes[name]} for name in hashes},
            "fingerprint": wanted,
            "versions": _versions(),
            "git_commit": _git_commit(),
            "metrics": metrics,
            "wall_seconds": round(seconds(), 3),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        working.publish(step.final, manifest)


def _run(step: Step, out: Path) -> dict[str, Any]:
    _seed_global_generators(step.settings.seed)
    return stage_run(step.kind)(step.settings, step.inputs, out)


def _seed_global_generators(seed: int) -> None:
    """A stage's draws must not depend on which stages ran before it in this process."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002 (libraries draw from the global generator)
    torch.manual_seed(seed)


@contextmanager
def _disk_full_told(step: Step) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not disk_is_full(error):
            raise
        where = getattr(error, "filename", None) or artifact.working_folder(step.final)
        raise LlamitaError(
            f"no space left on the disk: stage {step.name!r} could not write {where}; nothing was published. "
            "Free some space, then run the same command again"
        ) from error


def disk_is_full(error: BaseException) -> bool:
    """ENOSPC or a used-up quota, also as the text of errors from libraries that have their own classes."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error)


def _versions() -> dict[str, str]:
    versions = {"llamita": __version__, "python": sys.version.split()[0]}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _git_commit() -> str | None:
    """The commit of the checkout that this package runs from (`-dirty` with changes), None outside of one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
