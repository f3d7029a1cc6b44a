"""Reading a `pipeline.yaml`: its stages and blocks of rounds become steps with settings and folders.

    name: smoke
    seed: 0                   # every stage's seed, unless its own YAML sets one
    roots: {data: null}       # folders that are given on the command line: roots.data=DIR
    stages:
      - {name: sft, stage: sft, config: sft.yaml, inputs: {model: pretrain, data: data}}
      - rounds: [v1, v2]      # stages v1/rejection and v2/rejection
        previous: sft
        stages:
          - {name: rejection, stage: rejection, config: rejection.yaml, inputs: {model: previous, …}}

Stage `sft` writes `runs/<run>/sft`, stage `v1/rejection` writes `runs/<run>/v1/rejection`; docs/pipeline.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..config import parse_settings
from ..errors import ConfigError
from ..hub import fetch, is_hub_id
from ..settings import StageSettings
from ..trainer_names import check_trainer_section
from ..yaml_file import KeyPath, YamlFile, brief, key_path, nearest, read_yaml, split_override
from . import stages
from .entries import PipelineSettings, StageEntry
from .identity import Status, Step
from .references import Reference, Resolver, is_list
from .rounds import MisplacedError, PlacedStage, expand, not_in_round

T = TypeVar("T")
R = TypeVar("R")

RUNS = Path("runs")
OF_THE_ENTRY = ("inputs", "processes")  # keys of an override that are not settings of the stage


@dataclass(frozen=True)
class Planned:
    """A step with the document that its settings come from, and what is to be done about it."""

    step: Step
    document: YamlFile
    status: Status | None = None


def read_pipeline(
    path: str | Path, overrides: Sequence[str] = (), *, folders_needed: bool = True
) -> list[Planned]:
    """Resolves a pipeline and the settings of all its stages, `trainer:` sections not yet checked.

    Overrides are keys of the pipeline (`seed=1`, `roots.data=DIR`) or of a stage (`sft.trainer.max_steps=9`);
    the name of a stage in rounds means that of every round, `v2/ppo.seed=1` that of one.
    `folders_needed=False` lets roots and paths be absent, for a check of the files alone.
    Raises ConfigError with all that is wrong.
    """
    document = read_yaml(path)
    of_stages = _apply_overrides(document, overrides)
    settings = parse_settings(document, PipelineSettings)
    try:
        placed = expand(settings)
    except MisplacedError as error:
        raise document.error(error.key, str(error)) from None
    _check_overrides(of_stages, placed, document.path)
    context = _Context(document, settings, placed, overrides=of_stages, folders_needed=folders_needed)
    return _all_or_errors(range(len(placed)), lambda at: _planned(context, at))


def check_trainers(planned: Sequence[Planned]) -> None:
    """Checks the `trainer:` sections, which imports the trainers' classes (seconds). Raises ConfigError."""
    _all_or_errors(planned, lambda item: check_trainer_section(item.document, type(item.step.settings)))


def _all_or_errors(items: Iterable[T], make: Callable[[T], R]) -> list[R]:
    """What is made of each; or the errors of all, those that several rounds share once."""
    made, errors = [], []
    for item in items:
        try:
            made.append(make(item))
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(dict.fromkeys(errors)))
    return made


# ------------------------------------------------------------------------------------------- overrides


@dataclass(frozen=True)
class _Override:
    """`stage.key=value` of the command line."""

    stage: str
    key: KeyPath
    value: str
    _: KW_ONLY
    text: str


def _apply_overrides(document: YamlFile, overrides: Sequence[str]) -> list[_Override]:
    """Applies those of the pipeline itself; returns those of its stages."""
    of_stages = []
    for text in overrides:
        key, value = split_override(text)
        if key[0] in PipelineSettings.model_fields:
            document.override(key, value, text)
        else:
            of_stages.append(_Override(str(key[0]), key[1:], value, text=text))
    return of_stages


def _check_overrides(overrides: Sequence[_Override], placed: Sequence[PlacedStage], path: Path) -> None:
    names = list(dict.fromkeys(name for one in placed for name in (one.entry.name, one.name)))
    for one in overrides:
        if one.stage not in names or not one.key:
            allowed = [*PipelineSettings.model_fields, *names]
            problem = not_in_round(one.stage, names) or (
                f"{one.stage!r} is no stage and no key of {path}{nearest(one.stage, allowed)}; "
                f"expected stage.key=value or one of {', '.join(allowed)}"
            )
            raise ConfigError(f"override '{one.text}': {problem}")


# ------------------------------------------------------------------------------------------- one stage


@dataclass(frozen=True)
class _Context:
    """A whole pipeline, of which one stage is read."""

    document: YamlFile
    settings: PipelineSettings
    placed: Sequence[PlacedStage]
    _: KW_ONLY
    overrides: Sequence[_Override]
    folders_needed: bool

    def resolver(self, at: int) -> Resolver:
        return Resolver(self.placed, at, roots=self.settings.roots, publishes=_publishes_language_model)

    def overrides_of(self, stage: PlacedStage, *, entry: bool) -> list[_Override]:
        """Those of its entry, or of its settings."""
        return [
            one
            for one in self.overrides
            if one.stage in (stage.name, stage.entry.name) and (one.key[0] in OF_THE_ENTRY) is entry
        ]


def _planned(context: _Context, at: int) -> Planned:
    stage = context.placed[at]
    context, entry = _with_entry_overrides(context, stage)
    if problem := stages.check_kind(entry.stage):
        raise context.document.error((*stage.place, "stage"), problem)
    document = _settings_document(context, stage)
    settings = parse_settings(document, stages.settings_class(entry.stage))
    if wrong := stages.check_inputs(entry.stage, settings, entry.inputs):
        raise context.document.error((*stage.place, "inputs", wrong[0]), wrong[1])
    if problem := stages.check_processes(entry.stage, settings, entry.processes):
        raise context.document.error((*stage.place, "processes"), problem)
    references = _references(context, at, entry, schema=type(settings))
    inputs = {name: _folder(context, at, reference) for name, reference in references.items()}
    upstream = {name: reference.text for name, reference in references.items() if reference.is_stage}
    step = Step(
        entry.stage,
        settings,
        inputs,
        (RUNS / context.settings.name / stage.name).absolute(),
        processes=entry.processes,
        upstream=upstream,
        pipeline_name=stage.name,
    )
    return Planned(step, document)


def _with_entry_overrides(context: _Context, stage: PlacedStage) -> tuple[_Context, StageEntry]:
    """The pipeline as this stage sees it: overrides may change the entry for one round alone."""
    overrides = context.overrides_of(stage, entry=True)
    if not overrides:
        return context, stage.entry
    document = context.document.copy()
    for one in overrides:
        document.override((*stage.place, *one.key), one.value, one.text)
    entry: Any = parse_settings(document, PipelineSettings)
    for part in stage.place:
        entry = entry[part] if isinstance(part, int) else getattr(entry, part)
    return replace(context, document=document), entry


def _settings_document(context: _Context, stage: PlacedStage) -> YamlFile:
    """The stage's YAML with what its entry, the command line, its round and the pipeline's seed add to it."""
    pipeline, entry = context.document, stage.entry
    if entry.config is None:
        document = YamlFile(pipeline.path, {}, {(): pipeline.lines.get(stage.place, 1)})
    else:
        document = read_yaml(_config(pipeline, stage.place, entry.config))
    for key, value in _leaves(entry.with_):
        place = (*stage.place, "with", *key)
        inner = key_path(".".join(key).split("."))
        if inner[0] in ("inputs", "output"):
            raise pipeline.error(place, f"{inner[0]!r} is no setting; inputs are a key of the entry itself")
        document.assign(inner, value, pipeline.origin(place))
    for one in context.overrides_of(stage, entry=False):
        document.override(one.key, one.value, one.text)
    document.data.setdefault("seed", context.settings.seed)
    if stage.round and "round" in stages.settings_class(entry.stage).model_fields:
        document.data.setdefault("round", stage.round)
    return document


def _leaves(section: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value of nested sections with its keys."""
    for key, value in section.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*above, key))
        else:
            yield (*above, key), value


def _config(pipeline: YamlFile, place: KeyPath, name: str) -> Path:
    config = pipeline.absolute_path((*place, "config"), name)
    if not config.is_file():
        siblings = [path.name for path in config.parent.glob("*.yaml")]
        raise pipeline.error((*place, "config"), f"no such file: {config}{nearest(config.name, siblings)}")
    return config


# ------------------------------------------------------------------------------------------- its inputs


def _references(
    context: _Context, at: int, entry: StageEntry, *, schema: type[StageSettings]
) -> dict[str, Reference]:
    """What each input refers to, those of a list as `NAME.STAGE`."""
    resolver = context.resolver(at)
    if schema.any_inputs and not entry.inputs:
        return {one.name: Reference(one.name, (), is_stage=True) for one in resolver.before}
    found: dict[str, Reference] = {}
    for name, value in entry.inputs.items():
        key = (*resolver.stage.place, "inputs", name)
        try:
            if name in schema.listed_inputs:
                found |= _labelled(name, resolver.several(value, key))
            elif is_list(value):
                raise MisplacedError(key, f"this input takes one folder, found the list {brief(value)}")
            else:
                found[name] = resolver.one(str(value), key)
        except MisplacedError as error:
            raise context.document.error(error.key, str(error)) from None
    return found


def _publishes_language_model(stage: PlacedStage) -> bool:
    kind = stage.entry.stage
    return kind in stages.REGISTRY and stages.settings_class(kind).publishes_language_model


def _labelled(name: str, references: Sequence[Reference]) -> dict[str, Reference]:
    """A path goes by the name of its folder."""
    found: dict[str, Reference] = {}
    for one in references:
        label = one.text if one.is_stage or is_hub_id(one.text) else Path(one.text).name
        if f"{name}.{label}" in found:
            raise MisplacedError(one.key, f"the list has another {label!r}; rename one of the folders")
        found[f"{name}.{label}"] = one
    return found


def _folder(context: _Context, at: int, reference: Reference) -> Path:
    if reference.is_stage:
        return (RUNS / context.settings.name / reference.text).absolute()
    document, key, value = context.document, reference.key, reference.text
    if value in context.settings.roots:
        key = ("roots", value)
        root = context.settings.roots[value]
        if root is None and context.folders_needed:
            raise document.error(key, f"no folder given; add roots.{value}=FOLDER to the command")
        value = root or "."
    folder = document.absolute_path(key, value)
    if context.folders_needed and not folder.exists():
        if is_hub_id(value):
            return _fetched(document, key, value)
        names = context.resolver(at).names()
        raise document.error(
            key,
            f"{value!r} is no earlier stage, no root and no folder{nearest(value, names)}; "
            f"expected one of {', '.join(names) or 'none'} or a path",
        )
    return folder


def _fetched(document: YamlFile, key: KeyPath, name: str) -> Path:
    try:
        return fetch(name)
    except ConfigError as error:
        raise document.error(key, str(error)) from None
