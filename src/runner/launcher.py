"""Starts a stage in processes of its own, through the real `deepspeed` launcher."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import artifact
from ..errors import Interrupted, LlamitaError, RolledBack
from .identity import Step

GRACE = 60.0  # seconds that the ranks get to save and end; DeepSpeed's own launcher gives them 30


def launch(step: Step) -> None:
    """Runs `llamita KIND` on the step's number of ranks and waits. Rank 0 publishes the artifact.

    Raises LlamitaError where a rank failed, its own message stands above, Interrupted where the ranks were
    asked to stop, and RolledBack where they are to go on from an earlier state. However this process is left,
    no rank stays behind.
    """
    resolved = step.final.with_name(f"{step.final.name}.settings.json")
    folders = {"inputs": {name: str(path) for name, path in step.inputs.items()}, "output": str(step.final)}
    resolved.parent.mkdir(parents=True, exist_ok=True)
    artifact.write_json(resolved, {**step.settings.model_dump(mode="json"), **folders})
    on_gpus = _gpus_visible()
    # nothing waits in the launcher's buffers: at its end it would fail where nobody reads its output any more
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if not on_gpus:
        environment |= {"DS_ACCELERATOR": "cpu", "ACCELERATE_USE_DEEPSPEED": "true"}
    try:
        code = _run_group(command(step, resolved, _free_port()), environment)
    finally:
        resolved.unlink(missing_ok=True)
    if code == Interrupted.exit_code:
        raise Interrupted(f"stage {step.name!r} was stopped; run it again to go on")
    if code == RolledBack.exit_code:
        raise RolledBack("its training went back to an earlier state, as told above")
    if code != 0:
        raise LlamitaError(
            f"stage {step.name!r} failed under the deepspeed launcher; the reason stands above"
        )


def command(step: Step, resolved: Path, port: int) -> list[str]:
    """The command line of the launcher for one machine."""
    return [
        *(sys.executable, "-m", "deepspeed.launcher.runner"),
        *("--num_accelerators", str(step.processes), "--master_port", str(port), "--no_local_rank"),
        *("--module", "llamita.cli", step.kind, str(resolved), "--name", step.name),
    ]


def _run_group(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a command in a process group of its own, which ends with this call at the latest."""
    process = subprocess.Popen(arguments, env=environment, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        raise


def _gpus_visible() -> bool:
    import torch

    return torch.cuda.is_available()


def _free_port() -> int:
    """A port nobody listens on: two runs on one machine must not meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
