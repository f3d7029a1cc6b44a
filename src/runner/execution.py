"""Runs one stage, in this process or through the launcher, and publishes its artifact with a manifest."""

from __future__ import annotations

import errno
import gc
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
from ..processes import is_main_process, phase, world_size
from ..settings import RANK_TIMEOUT, StageSettings
from .identity import StageRun, Status, identity, input_hashes, published_manifest, status
from .launcher import launch
from .stages import stage_function

LIBRARIES = ("torch", "transformers", "trl", "accelerate", "deepspeed", "datasets", "tokenizers", "numpy")


def execute(stage_run: StageRun) -> None:
    """Runs a stage and publishes its artifact; with the setting `deepspeed`, in ranks of its own.

    Under a launcher (RANK is set) only rank 0 prepares and publishes the working folder; the other ranks just
    run the stage, once the folder is open. The stage returns on rank 0 after the last rank has written.
    """
    if "RANK" not in os.environ:
        while rollback := _attempt(stage_run):
            say(f"{stage_run.name}: {rollback}")
            _free_memory()
    elif not is_main_process():
        _run(stage_run, _opened(artifact.working_folder(stage_run.final)))
    else:
        _run_and_publish(stage_run)


@contextmanager
def together(settings: StageSettings) -> Iterator[None]:
    """Context in which an error, a hang or a kill of one rank ends all ranks; nothing for one process."""
    if world_size() == 1:
        yield
        return
    from ..distributed.watchdog import watched

    with watched(getattr(settings, "rank_timeout", RANK_TIMEOUT)):
        yield


def recovered_status(stage_run: StageRun) -> Status:
    """Repairs a publish that was killed; returns the stage's status. Rank 0 looks, all ranks get the same."""

    def look() -> Status:
        working.recover(stage_run.final)
        return status(stage_run)

    if world_size() == 1:
        return look()
    from ..distributed.group import once

    return once("checking inputs", look)


def _opened(folder: Path) -> Path:
    """The working folder, on every rank once rank 0 has opened it, before which it hashes the inputs."""
    if world_size() > 1:
        from ..distributed.group import once, wait_until_visible

        once("opening the working folder", lambda: None)
        wait_until_visible(folder)
    return folder


def _attempt(stage_run: StageRun) -> str | None:
    """Runs the stage once; returns None, or the reason for a rollback, after which it has to run again."""
    try:
        if getattr(stage_run.settings, "deepspeed", None):
            launch(stage_run)
        else:
            _run_and_publish(stage_run)
    except RolledBack as reason:
        return str(reason)
    return None


def _free_memory() -> None:
    """Frees the model of a failed attempt: trainer and callbacks refer to each other, so it would stay."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _run_and_publish(stage_run: StageRun) -> None:
    published_manifest(stage_run)  # refuses an output folder that holds something else
    with phase("hashing inputs"):
        hashes = input_hashes(stage_run)
    fingerprint = identity(stage_run, hashes).fingerprint
    resume_identity = {**identity(stage_run, hashes, resuming=True).as_dict(), "name": stage_run.name}
    with (
        _full_disk_explained(stage_run),
        working.open_working(stage_run.final, resume_identity, stage_run.settings.resumable) as out,
        working.timed(out) as seconds,
    ):
        metrics = _run(stage_run, _opened(out))
        manifest = {
            "stage": stage_run.kind,
            "name": stage_run.name,
            "settings": stage_run.settings.fingerprinted(),
            "inputs": {name: {"path": str(stage_run.inputs[name]), "hash": hashes[name]} for name in hashes},
            "fingerprint": fingerprint,
            "versions": _versions(),
            "git_commit": _git_commit(),
            "processes": world_size(),
            "metrics": metrics,
            "wall_seconds": round(seconds(), 3),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with phase("publishing"):
            working.publish(stage_run.final, manifest)


def _run(stage_run: StageRun, out: Path) -> dict[str, Any]:
    _seed_global_generators(stage_run.settings.seed)
    return stage_function(stage_run.kind)(stage_run.settings, stage_run.inputs, out)


def _seed_global_generators(seed: int) -> None:
    """Random draws of a stage must not depend on the stages that ran before it in this process."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002 (libraries draw from the global generator)
    torch.manual_seed(seed)


@contextmanager
def _full_disk_explained(stage_run: StageRun) -> Iterator[None]:
    """Turns the error of a full disk into a LlamitaError that names the stage and the file."""
    try:
        yield
    except Exception as error:
        if not disk_is_full(error):
            raise
        path = getattr(error, "filename", None) or artifact.working_folder(stage_run.final)
        raise LlamitaError(
            f"no space left on the disk: stage {stage_run.name!r} could not write {path}, and nothing was "
            "published; free some space, then run the same command again"
        ) from error


def disk_is_full(error: BaseException) -> bool:
    """Whether an error means ENOSPC or an exceeded quota; some libraries only report it in their message."""
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
    """Commit of the checkout that this package runs from, `-dirty` with local changes; None without one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
