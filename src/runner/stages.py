"""One stage: its kind, its settings, and making its artifact."""

from __future__ import annotations

import errno
import importlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from .. import __version__, artifact, working
from ..console import say
from ..document import nearest
from ..errors import ConfigError, LlamitaError, RolledBack
from ..hub import fetch, is_hub_id
from ..processes import is_main_process
from ..settings import StageSettings
from .identity import Step, identity, input_hashes, standing
from .launcher import launch

StageRun = Callable[[StageSettings, Mapping[str, Path], Path], dict[str, Any]]

# kind -> package with settings.py and stage.py, name of its settings class
REGISTRY: dict[str, tuple[str, str]] = {
    "world": ("llamita.world", "WorldSettings"),
    "tokenizer": ("llamita.tokenizer", "TokenizerSettings"),
    "prepare": ("llamita.prepare", "PrepareSettings"),
    "pretrain": ("llamita.pretrain", "PretrainSettings"),
    "gatt": ("llamita.gatt", "GattSettings"),
    "sft": ("llamita.sft", "SftSettings"),
    "reward": ("llamita.reward", "RewardSettings"),
    "rejection": ("llamita.rlhf.rejection", "RejectionSettings"),
    "ppo": ("llamita.rlhf.ppo", "PpoSettings"),
    "evaluate": ("llamita.evaluation", "EvaluateSettings"),
    "report": ("llamita.report", "ReportSettings"),
}
RLHF_NOW = """there is no stage 'rlhf' any more; write its rounds as a block of 'rejection' and 'ppo', as in
  - rounds: [v1, v2]
    previous: sft
    stages:
      - name: rejection
        stage: rejection
        config: rejection.yaml
        inputs:
          base: pretrain
          model: previous
          selections: all.rejection
          helpfulness: helpfulness
          safety: safety
          data: data
      - name: ppo
        stage: ppo
        config: ppo.yaml
        only: [v2]
        inputs: {start: rejection, helpfulness: helpfulness, safety: safety, data: data}
and `versions: all` among the inputs of stage 'evaluate'; see docs/pipeline.md"""
LIBRARIES = ("torch", "transformers", "trl", "accelerate", "deepspeed", "datasets", "tokenizers", "numpy")


def settings_class(kind: str) -> type[StageSettings]:
    """The settings of a kind of stage, imported only now."""
    package, name = REGISTRY[kind]
    return cast(type[StageSettings], getattr(importlib.import_module(f"{package}.settings"), name))


def stage_run(kind: str) -> StageRun:
    """The one entry of a kind of stage: `run(settings, inputs, out) -> metrics`."""
    package, _ = REGISTRY[kind]
    return cast(StageRun, importlib.import_module(f"{package}.stage").run)


def check_kind(kind: str) -> str | None:
    """What is wrong with the name of a kind, or None."""
    if kind in REGISTRY:
        return None
    if kind == "rlhf":
        return RLHF_NOW
    return f"no such stage: {kind!r}{nearest(kind, REGISTRY)}; there are {', '.join(REGISTRY)}"


def check_inputs(kind: str, settings: StageSettings, given: Collection[str]) -> tuple[str, str] | None:
    """What is wrong with the names of a stage's inputs: (input name, problem), or None."""
    required, optional = settings.inputs_taken()
    allowed = sorted(required | optional | settings.listed_inputs)
    takes = f"with its settings it takes {', '.join(allowed)}"
    for name in given:
        if name not in allowed and not settings.any_inputs:
            return name, f"stage {kind!r} has no such input{nearest(name, allowed)}; {takes}"
    for name in sorted(required - set(given)):
        return name, f"stage {kind!r} needs this input; {takes}"
    return None


def check_processes(kind: str, settings: StageSettings, processes: int) -> str | None:
    """What is wrong with a number of ranks, or None: without a launcher there is one."""
    if processes == 1 or getattr(settings, "deepspeed", None):
        return None
    if "deepspeed" not in type(settings).model_fields:
        return f"stage {kind!r} always runs in one process, found {processes}"
    return f"{processes} processes need a DeepSpeed file; name one in the stage's settings: deepspeed=FILE"


def single_step(
    kind: str, settings: StageSettings, config: Path, *, processes: int = 1, name: str | None = None
) -> Step:
    """A stage that is started alone, its folders given by `inputs.NAME=DIR` and `output=DIR`."""
    folders = settings.folders()
    if wrong := check_inputs(kind, settings, {key.partition(".")[0]: key for key in folders}):
        raise ConfigError(f"{config}: inputs.{wrong[0]}: {wrong[1]} (give inputs.{wrong[0]}=FOLDER)")
    for key in folders:
        of_list, dot, _ = key.partition(".")
        if bool(dot) != (of_list in settings.listed_inputs):
            right = f"one folder: inputs.{of_list}=FOLDER" if dot else f"a list: inputs.{of_list}.NAME=FOLDER"
            raise ConfigError(f"{config}: inputs.{of_list}: this input takes {right}")
    if problem := check_processes(kind, settings, processes):
        raise ConfigError(f"{config}: --processes: {problem}")
    if settings.output is None:
        raise ConfigError(f"{config}: output: where should the result go? Give output=FOLDER")
    inputs = {name: _input(f"{config}: inputs.{name}", value) for name, value in folders.items()}
    return Step(kind, settings, inputs, Path(settings.output), processes=processes, pipeline_name=name)


def _input(key: str, value: str) -> Path:
    if Path(value).exists():
        return Path(value)
    if not is_hub_id(value):
        raise ConfigError(f"{key}: no such folder: {value}")
    try:
        return fetch(value)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None


# ------------------------------------------------------------------------------------------- making it


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
