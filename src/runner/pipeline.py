"""The stages of a run in sequence: what is done is not done again, what broke goes on.

`pipeline.yaml` lists the stages in order and what each takes from which:

    name: smoke
    seed: 0                   # every stage's seed, unless its own YAML sets one
    roots: {data: null}       # folders that are given on the command line: roots.data=DIR
    stages:
      - {name: sft, stage: sft, config: sft.yaml, inputs: {model: pretrain, data: world}}

An input names an earlier stage, a root, a path, or a model on the Hub (`org/name`). Stage `sft` writes
`runs/<run>/sft`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from .. import artifact, working
from ..config import parse_settings
from ..console import duration, say
from ..document import Document, KeyPath, brief, flatten, nearest, read_document, split_override
from ..errors import ConfigError, LlamitaError
from ..hub import fetch, is_hub_id
from ..settings import Settings
from ..trainer_names import check_trainer_section
from . import stages
from .identity import Status, Step
from .identity import status as status_of

RUNS = Path("runs")


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name!r} becomes a folder: letters, digits, '-' and '_' only")
    return name


FolderName = Annotated[str, AfterValidator(_folder_name)]


class StageEntry(Settings):
    """One stage of a pipeline."""

    name: FolderName
    """of the artifact's folder, and what later stages take it by"""
    stage: str
    """its kind"""
    config: str
    """its YAML, relative to this one"""
    inputs: dict[str, str] = {}
    """input name -> an earlier stage, a root, a path, or a model on the Hub as org/name[@revision]"""
    processes: Annotated[int, Field(ge=1)] = 1
    """ranks of a stage whose YAML names a DeepSpeed file"""


class PipelineSettings(Settings):
    """A `pipeline.yaml`."""

    name: FolderName
    """of the run: its folder is `runs/<name>`"""
    seed: int = 0
    """every stage's, unless its own YAML sets one"""
    roots: dict[str, str | None] = {}
    """folders given on the command line: `roots.data=FOLDER` for `{data: null}`"""
    stages: list[StageEntry]
    """in the order in which they run"""


@dataclass(frozen=True)
class Planned:
    """A step with the document that its settings come from, and what is to be done about it."""

    step: Step
    document: Document
    status: Status | None = None


# ------------------------------------------------------------------------------------------- reading


def read_pipeline(
    path: str | Path, overrides: Sequence[str] = (), *, folders_needed: bool = True
) -> list[Planned]:
    """Resolves a pipeline and the settings of all its stages, `trainer:` sections not yet checked.

    Overrides are keys of the pipeline (`seed=1`, `roots.data=DIR`) or of a stage (`sft.trainer.max_steps=9`).
    `folders_needed=False` lets roots and paths be absent, for a check of the files alone.
    Raises ConfigError with all that is wrong.
    """
    document = read_document(path)
    entries = document.data.get("stages")
    names = [e.get("name") for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    stage_overrides = _apply_overrides(document, overrides, names)
    settings = parse_settings(document, PipelineSettings)
    planned, errors = [], []
    for index in range(len(settings.stages)):
        try:
            planned.append(_planned(document, settings, index, stage_overrides, folders_needed))
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return planned


def _apply_overrides(
    document: Document, overrides: Sequence[str], names: list[Any]
) -> dict[str, list[tuple[KeyPath, str, str]]]:
    """Applies those of the pipeline itself; returns those of its stages' YAMLs by stage."""
    by_stage: dict[str, list[tuple[KeyPath, str, str]]] = {}
    for text in overrides:
        key, value = split_override(text)
        if key[0] in PipelineSettings.model_fields:
            document.override(key, value, text)
        elif key[0] not in names or len(key) < 2:
            allowed = [*PipelineSettings.model_fields, *(str(name) for name in names)]
            raise ConfigError(
                f"override '{text}': {key[0]!r} is no stage and no key of {document.path}"
                f"{nearest(key[0], allowed)}; expected stage.key=value or one of {', '.join(allowed)}"
            )
        elif key[1] in ("inputs", "processes"):
            document.override(("stages", names.index(key[0]), *key[1:]), value, text)
        else:
            by_stage.setdefault(str(key[0]), []).append((key[1:], value, text))
    return by_stage


def _planned(
    document: Document,
    settings: PipelineSettings,
    index: int,
    overrides: dict[str, list[tuple[KeyPath, str, str]]],
    folders_needed: bool,
) -> Planned:
    entry, place = settings.stages[index], ("stages", index)
    if entry.name in [other.name for other in settings.stages[:index]]:
        raise document.error((*place, "name"), f"there is a stage {entry.name!r} above already")
    if entry.name in PipelineSettings.model_fields:
        raise document.error(
            (*place, "name"), f"{entry.name!r} is a key of the pipeline; choose another name"
        )
    if entry.stage not in stages.REGISTRY:
        hint = nearest(entry.stage, stages.REGISTRY)
        allowed = ", ".join(stages.REGISTRY)
        raise document.error((*place, "stage"), f"no such stage: {entry.stage!r}{hint}; there are {allowed}")
    config = document.absolute_path((*place, "config"), entry.config)
    if not config.is_file():
        siblings = [path.name for path in config.parent.glob("*.yaml")]
        raise document.error((*place, "config"), f"no such file: {config}{nearest(config.name, siblings)}")
    stage_document = read_document(config)
    for key, text_value, text in overrides.get(entry.name, []):
        stage_document.override(key, text_value, text)
    stage_document.data.setdefault("seed", settings.seed)
    stage_settings = parse_settings(stage_document, stages.settings_class(entry.stage))
    if wrong := stages.check_inputs(entry.stage, stage_settings, entry.inputs):
        raise document.error((*place, "inputs", wrong[0]), wrong[1])

    inputs, upstream = {}, {}
    for name, value in entry.inputs.items():
        if value in [other.name for other in settings.stages[:index]]:
            upstream[name], inputs[name] = value, (RUNS / settings.name / value).absolute()
        else:
            inputs[name] = _outside_folder(document, settings, index, name, folders_needed)
    final = (RUNS / settings.name / entry.name).absolute()
    return Planned(
        Step(entry.stage, stage_settings, inputs, final, entry.processes, upstream), stage_document
    )


def _outside_folder(
    document: Document, settings: PipelineSettings, index: int, name: str, needed: bool
) -> Path:
    """An input that no earlier stage makes: a root or a path."""
    key: KeyPath = ("stages", index, "inputs", name)
    value = settings.stages[index].inputs[name]
    if value in settings.roots:
        key = ("roots", value)
        root = settings.roots[value]
        if root is None and needed:
            raise document.error(key, f"no folder given; add roots.{value}=FOLDER to the command")
        value = root or "."
    folder = document.absolute_path(key, value)
    if needed and not folder.exists():
        if is_hub_id(value):
            return _fetched(document, key, value)
        earlier = [stage.name for stage in settings.stages[:index]]
        later = [stage.name for stage in settings.stages[index:]]
        if value in later:
            raise document.error(key, f"stage {value!r} does not come before; put it above this one")
        names = [*earlier, *settings.roots]
        raise document.error(
            key,
            f"{value!r} is no earlier stage, no root and no folder{nearest(value, names)}; "
            f"expected one of {', '.join(names) or 'none'} or a path",
        )
    return folder


def _fetched(document: Document, key: KeyPath, name: str) -> Path:
    try:
        return fetch(name)
    except ConfigError as error:
        raise document.error(key, str(error)) from None


def check_trainers(planned: Sequence[Planned]) -> None:
    """Checks the `trainer:` sections, which imports the trainers' classes (seconds). Raises ConfigError."""
    errors = []
    for item in planned:
        try:
            check_trainer_section(item.document, type(item.step.settings))
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))


# ------------------------------------------------------------------------------------------- planning


def plan(planned: Sequence[Planned], first: str | None = None, last: str | None = None) -> list[Planned]:
    """The part of the pipeline from `first` to `last`, each step with its status.

    What stands before `first` is taken as it is. A step whose input is made again waits for it: if the new
    input has the same contents, the step is done after all.
    """
    names = [item.step.name for item in planned]
    for option, name in (("--from", first), ("--until", last)):
        if name is not None and name not in names:
            raise ConfigError(
                f"{option} {name}: no such stage{nearest(name, names)}; there are {', '.join(names)}"
            )
    start = names.index(first) if first else 0
    end = names.index(last) + 1 if last else len(names)
    if start >= end:
        raise ConfigError(f"--from {first} comes after --until {last}")
    chosen: list[Planned] = []
    for item in planned[:end]:
        working.recover(item.step.final)
        if names.index(item.step.name) >= start:
            chosen.append(Planned(item.step, item.document, _status(item.step, chosen)))
    return chosen


def _status(step: Step, before: Sequence[Planned]) -> Status:
    remade = {item.step.name for item in before if item.status and not item.status.done}
    waits = sorted(remade & set(step.upstream.values()))
    for name, folder in step.inputs.items():
        if step.upstream.get(name) not in remade and not folder.exists():
            raise LlamitaError(
                f"stage {step.name!r} needs {folder}, which is not there yet; run without --from, or from "
                f"{step.upstream.get(name)!r}"
            )
    if not waits:
        return status_of(step)
    seconds = None
    if (step.final / artifact.MANIFEST).is_file():
        seconds = artifact.read_manifest(step.final).get("wall_seconds")
    again = "new" if seconds is None else "made again if its inputs come out different"
    return Status(False, f"{again}, after {', '.join(waits)}", seconds)


def show(chosen: Sequence[Planned]) -> None:
    """Prints the plan with the resolved settings of every stage."""
    for item in chosen:
        step = item.step
        say(f"{step.name}: {item.status.why if item.status else 'not compared'}")
        say(f"    stage {step.kind}, settings from {item.document.path}")
        for name, folder in step.inputs.items():
            say(f"    input {name}: {folder}")
        say(f"    output {step.final}")
        for key, value in flatten(step.settings.model_dump(exclude={"inputs", "output"})).items():
            say(f"    {key}: {brief(value, 200)}")


# ------------------------------------------------------------------------------------------- running


def run(chosen: Sequence[Planned]) -> None:
    """Makes what is not done, in order. Raises what a stage raises; what was published before it stays."""
    to_do = [item for item in chosen if item.status and not item.status.done]
    for number, item in enumerate(chosen, start=1):
        step = item.step
        prefix = f"[{number}/{len(chosen)}] {step.name}"
        to_do = [other for other in to_do if other is not item]
        status = status_of(step)  # again: its inputs may have been made anew, or come out the same
        if status.done:
            say(f"{prefix}: done before")
            continue
        say(f"{prefix}: {status.why}")
        stages.execute(step)
        seconds = artifact.read_manifest(step.final)["wall_seconds"]
        say(f"{prefix}: done in {duration(seconds)}{_time_left(to_do)}")
    say(f"all done: {chosen[-1].step.final.parent}")


def _time_left(to_do: Sequence[Planned]) -> str:
    """What the rest took the last time, where that is known of every stage."""
    known = [item.status.seconds for item in to_do if item.status and item.status.seconds]
    return f"; about {duration(sum(known))} left" if to_do and len(known) == len(to_do) else ""
