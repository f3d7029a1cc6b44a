"""The kinds of stages: their settings, their entries, their inputs; and a stage that is started alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, cast

from ..errors import ConfigError
from ..hub import fetch, is_hub_id
from ..settings import StageSettings
from ..yaml_file import nearest
from .identity import Step

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
