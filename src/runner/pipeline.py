"""Reads a `pipeline.yaml` and resolves the settings and folders of all its stages and rounds.

    name: smoke
    seed: 0                   # seed of every stage whose own YAML sets none
    roots: {data: null}       # folders given on the command line: roots.data=FOLDER
    stages:
      - {name: sft, stage: sft, config: sft.yaml, inputs: {model: pretrain, data: data}}
      - rounds: [v1, v2]      # stages v1/rejection and v2/rejection
        previous: sft
        stages:
          - {name: rejection, stage: rejection, config: rejection.yaml, inputs: {model: previous, …}}

Stage `sft` writes `runs/<run>/sft`, stage `v1/rejection` writes `runs/<run>/v1/rejection`.
See docs/pipeline.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..config import parse_settings
from ..errors import ConfigError
from ..hub import fetch, is_hub_id
from ..settings import StageSettings
from ..trainer_names import check_trainer_section
from ..yaml_file import KeyPath, YamlFile, brief, key_path, leaves, nearest, read_yaml, split_override
from . import stages
from .entries import PipelineSettings, StageEntry
from .identity import StageRun, Status
from .references import Reference, Resolver, is_list
from .rounds import MisplacedError, PlacedStage, expand, not_in_round

T = TypeVar("T")
R = TypeVar("R")

RUNS = Path("runs")
ENTRY_KEYS = ("inputs", "processes")  # keys of an override that belong to the entry, not to the settings


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the pipeline with the YAML file of its settings and its status."""

    stage_run: StageRun
    yaml_file: YamlFile
    status: Status | None = None


def read_pipeline(
    path: str | Path, overrides: Sequence[str] = (), *, folders_needed: bool = True
) -> list[PlannedStage]:
    """Resolves a pipeline and the settings of all its stages; see `check_trainers` for `trainer:` sections.

    Args:
        overrides: keys of the pipeline (`seed=1`) or of a stage (`sft.trainer.max_steps=9`); `ppo.seed=1`
            applies to stage `ppo` of every round, `v2/ppo.seed=1` to one round.
        folders_needed: whether roots and paths must exist; False to check the YAML files alone.

    Raises ConfigError with all problems, one line each.
    """
    yaml_file = read_yaml(path)
    if yaml_file.data and not yaml_file.data.keys() & {"name", "stages", "roots"}:
        raise yaml_file.error((), "not a pipeline; run the YAML of one stage with `llamita KIND CONFIG.yaml`")
    stage_overrides = _apply_overrides(yaml_file, overrides)
    settings = parse_settings(yaml_file, PipelineSettings)
    try:
        placed = expand(settings)
    except MisplacedError as error:
        raise yaml_file.error(error.key, str(error)) from None
    _check_overrides(stage_overrides, placed, yaml_file.path)
    context = _Context(yaml_file, settings, placed, overrides=stage_overrides, folders_needed=folders_needed)
    return _all_or_errors(range(len(placed)), lambda index: _planned(context, index))


def check_trainers(planned: Sequence[PlannedStage]) -> None:
    """Checks the `trainer:` sections; importing the trainers' classes takes seconds. Raises ConfigError."""
    _all_or_errors(planned, lambda item: check_trainer_section(item.yaml_file, type(item.stage_run.settings)))


def _all_or_errors(items: Iterable[T], function: Callable[[T], R]) -> list[R]:
    """Results of the function for all items. Raises ConfigError with all errors, duplicates once."""
    results, errors = [], []
    for item in items:
        try:
            results.append(function(item))
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(dict.fromkeys(errors)))
    return results


# ------------------------------------------------------------------------------------------- overrides


@dataclass(frozen=True)
class _Override:
    """`stage.key=value` from the command line."""

    stage: str
    key: KeyPath
    value: str
    _: KW_ONLY
    text: str


def _apply_overrides(yaml_file: YamlFile, overrides: Sequence[str]) -> list[_Override]:
    """Applies the overrides of the pipeline's own keys; returns those of its stages."""
    stage_overrides = []
    for text in overrides:
        key, value = split_override(text)
        if key[0] in PipelineSettings.model_fields:
            _check_root(yaml_file, key, text)
            yaml_file.override(key, value, text)
        else:
            stage_overrides.append(_Override(str(key[0]), key[1:], value, text=text))
    return stage_overrides


def _check_root(yaml_file: YamlFile, key: KeyPath, text: str) -> None:
    """Raises ConfigError for an override of a root that the pipeline does not declare."""
    roots = yaml_file.data.get("roots") or {}
    if key[0] == "roots" and len(key) == 2 and isinstance(roots, dict) and key[1] not in roots:
        problem = f"{yaml_file.path} declares no root {key[1]!r}{nearest(key[1], map(str, roots))}"
        raise ConfigError(f"override '{text}': {problem}; its roots: {', '.join(map(str, roots)) or 'none'}")


def _check_overrides(overrides: Sequence[_Override], placed: Sequence[PlacedStage], path: Path) -> None:
    names = list(dict.fromkeys(name for stage in placed for name in (stage.entry.name, stage.name)))
    for override in overrides:
        if override.stage not in names or not override.key:
            keys = list(PipelineSettings.model_fields)
            unknown = (
                f"{override.stage!r} is neither a stage nor a key of {path}"
                f"{nearest(override.stage, [*keys, *names])}; keys: {', '.join(keys)}; "
                f"stages, as STAGE.KEY=VALUE: {', '.join(names)}"
            )
            if override.stage in names:
                problem = f"{override.stage!r} is a stage; expected {override.stage}.KEY=VALUE"
            else:
                problem = not_in_round(override.stage, names) or unknown
            raise ConfigError(f"override '{override.text}': {problem}")


# ------------------------------------------------------------------------------------------- one stage


@dataclass(frozen=True)
class _Context:
    """The whole pipeline, for resolving one of its stages."""

    yaml_file: YamlFile
    settings: PipelineSettings
    placed: Sequence[PlacedStage]
    _: KW_ONLY
    overrides: Sequence[_Override]
    folders_needed: bool

    def resolver(self, index: int) -> Resolver:
        return Resolver(self.placed, index, roots=self.settings.roots, publishes=_publishes_language_model)

    def overrides_of(self, stage: PlacedStage, *, entry: bool) -> list[_Override]:
        """Overrides of the stage's entry (`entry=True`) or of its settings."""
        return [
            override
            for override in self.overrides
            if override.stage in (stage.name, stage.entry.name) and (override.key[0] in ENTRY_KEYS) is entry
        ]


def _planned(context: _Context, index: int) -> PlannedStage:
    stage = context.placed[index]
    context, entry = _with_entry_overrides(context, stage)
    if problem := stages.check_kind(entry.stage):
        raise context.yaml_file.error((*stage.place, "stage"), problem)
    yaml_file = _settings_yaml(context, stage)
    settings = parse_settings(yaml_file, stages.settings_class(entry.stage))
    if wrong := stages.check_inputs(entry.stage, settings, entry.inputs):
        raise context.yaml_file.error((*stage.place, "inputs", wrong[0]), wrong[1])
    if problem := stages.check_processes(entry.stage, settings, entry.processes):
        raise context.yaml_file.error((*stage.place, "processes"), problem)
    references = _references(context, index, entry, schema=type(settings))
    inputs = {name: _folder(context, index, reference) for name, reference in references.items()}
    upstream = {name: reference.text for name, reference in references.items() if reference.is_stage}
    stage_run = StageRun(
        entry.stage,
        settings,
        inputs,
        (RUNS / context.settings.name / stage.name).absolute(),
        processes=entry.processes,
        upstream=upstream,
        pipeline_name=stage.name,
    )
    return PlannedStage(stage_run, yaml_file)


def _with_entry_overrides(context: _Context, stage: PlacedStage) -> tuple[_Context, StageEntry]:
    """The pipeline and entry with the overrides of this stage, which may apply to one round only."""
    overrides = context.overrides_of(stage, entry=True)
    if not overrides:
        return context, stage.entry
    yaml_file = context.yaml_file.copy()
    for override in overrides:
        yaml_file.override((*stage.place, *override.key), override.value, override.text)
    entry: Any = parse_settings(yaml_file, PipelineSettings)
    for part in stage.place:
        entry = entry[part] if isinstance(part, int) else getattr(entry, part)
    return replace(context, yaml_file=yaml_file), entry


def _settings_yaml(context: _Context, stage: PlacedStage) -> YamlFile:
    """The stage's YAML with `with:`, overrides, and the pipeline's seed and round as defaults."""
    pipeline, entry = context.yaml_file, stage.entry
    if entry.config is None:
        yaml_file = YamlFile(pipeline.path, {}, {(): pipeline.lines.get(stage.place, 1)})
    else:
        yaml_file = read_yaml(_config(pipeline, stage.place, entry.config))
    for key, value in leaves(entry.with_):
        place = (*stage.place, "with", *key)
        inner = key_path(".".join(key).split("."))
        if inner[0] in ("inputs", "output"):
            hint = "write it beside `with`" if inner[0] == "inputs" else "the pipeline sets the output folder"
            raise pipeline.error(place, f"{inner[0]!r} is not a setting; {hint}")
        yaml_file.assign(inner, value, pipeline.origin(place))
    for override in context.overrides_of(stage, entry=False):
        yaml_file.override(override.key, override.value, override.text)
    yaml_file.data.setdefault("seed", context.settings.seed)
    if stage.round and "round" in stages.settings_class(entry.stage).model_fields:
        yaml_file.data.setdefault("round", stage.round)
    return yaml_file


def _config(pipeline: YamlFile, place: KeyPath, name: str) -> Path:
    config = pipeline.absolute_path((*place, "config"), name)
    if not config.is_file():
        siblings = [path.name for path in config.parent.glob("*.yaml")]
        raise pipeline.error((*place, "config"), f"no such file: {config}{nearest(config.name, siblings)}")
    return config


# ------------------------------------------------------------------------------------------- its inputs


def _references(
    context: _Context, index: int, entry: StageEntry, *, schema: type[StageSettings]
) -> dict[str, Reference]:
    """The reference of each input, members of a list as `NAME.STAGE`."""
    resolver = context.resolver(index)
    if schema.any_inputs and not entry.inputs:
        return {stage.name: Reference(stage.name, (), is_stage=True) for stage in resolver.before}
    references: dict[str, Reference] = {}
    for name, value in entry.inputs.items():
        key = (*resolver.stage.place, "inputs", name)
        try:
            if name in schema.listed_inputs:
                references |= _labelled(name, resolver.references(value, key))
            elif is_list(value):
                raise MisplacedError(key, f"this input takes one folder, found list {brief(value)}")
            else:
                references[name] = resolver.reference(str(value), key)
        except MisplacedError as error:
            raise context.yaml_file.error(error.key, str(error)) from None
    return references


def _publishes_language_model(stage: PlacedStage) -> bool:
    kind = stage.entry.stage
    return kind in stages.REGISTRY and stages.settings_class(kind).publishes_language_model


def _labelled(name: str, references: Sequence[Reference]) -> dict[str, Reference]:
    """The members of a list as `NAME.LABEL`; a path has its folder's name as label."""
    labelled: dict[str, Reference] = {}
    for reference in references:
        text = reference.text
        label = text if reference.is_stage or is_hub_id(text) else Path(text).name
        if f"{name}.{label}" in labelled:
            raise MisplacedError(reference.key, f"{label!r} is in the list twice; rename one of the folders")
        labelled[f"{name}.{label}"] = reference
    return labelled


def _folder(context: _Context, index: int, reference: Reference) -> Path:
    if reference.is_stage:
        return (RUNS / context.settings.name / reference.text).absolute()
    yaml_file, key, value = context.yaml_file, reference.key, reference.text
    if value in context.settings.roots:
        key = ("roots", value)
        root = context.settings.roots[value]
        if root is None and context.folders_needed:
            raise yaml_file.error(key, f"no folder given; add roots.{value}=FOLDER to the command line")
        value = root or "."
    folder = yaml_file.absolute_path(key, value)
    if folder.exists():
        return folder
    names = context.resolver(index).names()
    if context.folders_needed and is_hub_id(value):
        return _fetched(yaml_file, key, value)
    if context.folders_needed and key[0] == "roots":
        raise yaml_file.error(key, f"no such folder: {folder}")
    if context.folders_needed or (key[0] != "roots" and "/" not in value and nearest(value, names)):
        raise yaml_file.error(
            key,
            f"{value!r} is not an earlier stage, a root or an existing folder{nearest(value, names)}; "
            f"expected one of {', '.join(names) or 'none'} or a path",
        )
    return folder


def _fetched(yaml_file: YamlFile, key: KeyPath, name: str) -> Path:
    try:
        return fetch(name)
    except ConfigError as error:
        raise yaml_file.error(key, str(error)) from None
