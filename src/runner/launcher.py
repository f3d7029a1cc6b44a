"""Runs a stage on several ranks through the `deepspeed` launcher."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from .. import artifact
from ..errors import Interrupted, LlamitaError, RolledBack
from .identity import StageRun
from .launched import LAUNCHER, run_launcher


def launch(stage_run: StageRun) -> None:
    """Runs `llamita KIND` on `stage_run.processes` ranks and waits. Rank 0 publishes the artifact.

    Raises LlamitaError if a rank failed (it has printed the reason), Interrupted if the ranks were asked to
    stop, and RolledBack if training has to restart from an earlier checkpoint. All ranks have ended when this
    function returns or raises.
    """
    resolved = stage_run.final.with_name(f"{stage_run.final.name}.settings.json")
    folders = {
        "inputs": {name: str(path) for name, path in stage_run.inputs.items()},
        "output": str(stage_run.final),
    }
    resolved.parent.mkdir(parents=True, exist_ok=True)
    artifact.write_json(resolved, {**stage_run.settings.model_dump(mode="json"), **folders})
    on_gpus = _gpus_visible()
    # unbuffered: flushing at exit would fail if the reader of the launcher's output is gone
    environment = {"TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ, "PYTHONUNBUFFERED": "1"}
    if not on_gpus:
        environment |= {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_DEEPSPEED": "true"}
    try:
        code = run_launcher(command(stage_run, resolved, _free_port()), environment)
    finally:
        resolved.unlink(missing_ok=True)
    if code == Interrupted.exit_code:
        raise Interrupted(f"stage {stage_run.name!r} was interrupted; run the same command to resume")
    if code == RolledBack.exit_code:
        raise RolledBack("training was rolled back to an earlier checkpoint; the reason is printed above")
    if code != 0:
        raise LlamitaError(
            f"stage {stage_run.name!r} failed under the deepspeed launcher; the reason is printed above"
        )


def command(stage_run: StageRun, resolved: Path, port: int) -> list[str]:
    """Command line of the launcher on one node."""
    return [
        *LAUNCHER,
        *("--num_accelerators", str(stage_run.processes), "--master_port", str(port), "--no_local_rank"),
        *("--module", "llamita.cli", stage_run.kind, str(resolved), "--name", stage_run.name),
    ]


def _gpus_visible() -> bool:
    import torch

    return torch.cuda.is_available()


def _free_port() -> int:
    """A free port, so that two runs on one machine do not collide."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
