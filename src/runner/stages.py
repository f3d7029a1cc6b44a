"""The kinds of stages: settings classes, functions and inputs; and stages that are started alone."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, cast

from ..errors import ConfigError
from ..hub import fetch, is_hub_id
from ..processes import advanced, world_size
from ..settings import RankSettings, StageSettings
from ..yaml_file import nearest
from .identity import StageRun

StageFunction = Callable[[StageSettings, Mapping[str, Path], Path], dict[str, Any]]

# kind -> package with settings.py and stage.py, name of its settings class
REGISTRY: dict[str, tuple[str, str]] = {
    "world": ("llamita.world", "WorldSettings"),
    "tokenizer": ("llamita.tokenizer", "TokenizerSettings"),
    "prepare": ("llamita.prepare", "PrepareSettings"),
    "pretrain": ("llamita.pretrain", "PretrainSettings"),
    "gatt": ("llamita.gatt", "GattSettings"),
    "distillation": ("llamita.distillation", "DistillationSettings"),
    "sft": ("llamita.sft", "SftSettings"),
    "reward": ("llamita.reward", "RewardSettings"),
    "refusal_classifier": ("llamita.refusal_classifier", "RefusalClassifierSettings"),
    "rejection": ("llamita.rlhf.rejection", "RejectionSettings"),
    "ppo": ("llamita.rlhf.ppo", "PpoSettings"),
    "evaluate": ("llamita.evaluation", "EvaluateSettings"),
    "red_team": ("llamita.red_team", "RedTeamSettings"),
    "benchmark": ("llamita.benchmark", "BenchmarkSettings"),
    "contamination": ("llamita.contamination", "ContaminationSettings"),
    "report": ("llamita.report", "ReportSettings"),
}
RLHF_REMOVED = """stage 'rlhf' was removed; write a block of rounds with 'rejection' and 'ppo', for example
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
and add `versions: all` to the inputs of stage 'evaluate'; see docs/pipeline.md"""


def settings_class(kind: str) -> type[StageSettings]:
    """The settings class of a kind of stage, imported on first use."""
    package, name = REGISTRY[kind]
    return cast(type[StageSettings], getattr(importlib.import_module(f"{package}.settings"), name))


def stage_function(kind: str) -> StageFunction:
    """The function that runs a kind of stage: `run(settings, inputs, out) -> metrics`."""
    package, _ = REGISTRY[kind]
    return cast(StageFunction, importlib.import_module(f"{package}.stage").run)


def check_kind(kind: str) -> str | None:
    """The problem with the name of a kind, or None."""
    if kind in REGISTRY:
        return None
    if kind == "rlhf":
        return RLHF_REMOVED
    return f"unknown kind of stage {kind!r}{nearest(kind, REGISTRY)}; expected one of {', '.join(REGISTRY)}"


def check_inputs(kind: str, settings: StageSettings, given: Collection[str]) -> tuple[str, str] | None:
    """The problem with the names of a stage's inputs, as (input name, problem), or None."""
    required, optional = settings.inputs_taken()
    allowed = sorted(required | optional | settings.listed_inputs)
    expected = f"with these settings it takes {', '.join(allowed)}"
    for name in given:
        if name not in allowed and not settings.any_inputs:
            return name, f"stage {kind!r} has no such input{nearest(name, allowed)}; {expected}"
    for name in sorted(required - set(given)):
        return name, f"stage {kind!r} needs this input; {expected}"
    return None


def check_processes(kind: str, settings: StageSettings, processes: int) -> str | None:
    """The problem with a number of ranks, or None; several ranks need the DeepSpeed launcher."""
    if processes == 1:
        return None
    if "deepspeed" not in type(settings).model_fields:
        return f"stage {kind!r} runs in one process only, found {processes}"
    if not getattr(settings, "deepspeed", None):
        return f"{processes} processes need a DeepSpeed file; set `deepspeed` in the stage's settings"
    return settings.problem_with_ranks(processes) if isinstance(settings, RankSettings) else None


def standalone_run(
    kind: str, settings: StageSettings, config: Path, *, processes: int = 1, name: str | None = None
) -> StageRun:
    """A stage that is started alone, its folders given as `inputs.NAME=FOLDER` and `output=FOLDER`."""
    folders = settings.folders()
    if wrong := check_inputs(kind, settings, {key.partition(".")[0]: key for key in folders}):
        raise ConfigError(f"{config}: inputs.{wrong[0]}: {wrong[1]} (pass inputs.{wrong[0]}=FOLDER)")
    for key in folders:
        input_name, dot, _ = key.partition(".")
        if bool(dot) != (input_name in settings.listed_inputs):
            form = f"one folder: inputs.{input_name}" if dot else f"a list: inputs.{input_name}.NAME"
            raise ConfigError(f"{config}: inputs.{input_name}: this input takes {form}=FOLDER")
    if problem := check_processes(kind, settings, processes):
        raise ConfigError(f"{config}: --processes: {problem}")
    if settings.output is None:
        raise ConfigError(f"{config}: output: no output folder given; pass output=FOLDER")
    inputs = _by_rank_0(
        lambda: {name: _input(f"{config}: inputs.{name}", value) for name, value in folders.items()}
    )
    return StageRun(kind, settings, inputs, Path(settings.output), processes=processes, pipeline_name=name)


def _by_rank_0(find: Callable[[], dict[str, Path]]) -> dict[str, Path]:
    """The inputs' folders, which rank 0 finds or downloads for all ranks."""
    if world_size() == 1:
        return find()
    from ..distributed.group import once, wait_until_visible

    inputs = once("fetching inputs", lambda: _advancing(find))
    for folder in inputs.values():
        wait_until_visible(folder)
    return inputs


def _advancing(find: Callable[[], dict[str, Path]]) -> dict[str, Path]:
    with ThreadPoolExecutor(max_workers=1) as pool:
        found = pool.submit(find)
        while not wait([found], timeout=1).done:
            advanced()  # a download takes longer than the watchdog waits for a sign of life
        return found.result()


def _input(key: str, value: str) -> Path:
    if Path(value).exists():
        return Path(value)
    if not is_hub_id(value):
        raise ConfigError(f"{key}: no such folder: {value}")
    try:
        return fetch(value)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
