"""What `llamita show` shows: a stage with its settings, its inputs and the tokenizer that it will use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import parse_settings
from ..errors import ConfigError
from ..hub import fetch, is_hub_id
from ..runner import stages
from ..runner.identity import StageRun
from ..runner.pipeline import read_pipeline
from ..settings import StageSettings
from ..yaml_file import nearest, read_yaml
from .kinds import kind_of

SHOWN = ("pretrain", "sft", "rejection", "reward", "distillation")
LLAMA2 = "llama2"


@dataclass(frozen=True)
class Target:
    """A stage whose rows are shown.

    Attributes:
        inputs: those that exist.
        tokenizer: the folder to load the tokenizer from.
        chat_format: `llama2` if a stage replaces the tokenizer's chat template, else `own`.
        model: the model that is trained; None if it does not exist yet.
        output: the folder of the stage; None for a stage that is not part of a pipeline and names none.
    """

    kind: str
    settings: StageSettings
    inputs: Mapping[str, Path]
    tokenizer: Path
    chat_format: str
    model: Path | None
    output: Path | None


def find_target(config: Path, stage: str | None, overrides: Sequence[str]) -> Target:
    """The stage of a pipeline, or the stage that a YAML configures.

    Args:
        stage: name of the stage in the pipeline, or the kind of stage of the YAML.
        overrides: `key=value`, as for the commands `run` and of a stage.

    Raises ConfigError for wrong settings, an unknown stage, and an input that is missing.
    """
    if "stages" in read_yaml(config).data:
        return _in_pipeline(config, stage, overrides)
    kind = _shown_kind(config, kind_of(config, stage), ", ".join(SHOWN))
    settings = parse_settings(read_yaml(config, overrides), stages.settings_class(kind))
    folders = {name: value for name, value in settings.inputs.items() if isinstance(value, str)}
    inputs = {name: _folder(f"{config}: inputs.{name}", value) for name, value in folders.items()}
    output = Path(settings.output) if settings.output else None
    stage_run = StageRun(kind, settings, inputs, output or Path())
    for name in (*_tokenizer_inputs(stage_run), *_data_inputs(stage_run)):
        if name not in inputs:
            raise ConfigError(f"{config}: inputs.{name}: needed to read the rows; add inputs.{name}=FOLDER")
    return _target(stage_run, {}, output)


def _folder(key: str, value: str) -> Path:
    if not Path(value).exists() and not is_hub_id(value):
        raise ConfigError(f"{key}: no such folder: {value}")
    return Path(value) if Path(value).exists() else fetch(value)


def _shown_kind(place: object, kind: str, expected: str) -> str:
    if kind not in SHOWN:
        raise ConfigError(f"{place}: stage {kind!r} has no training rows; expected one of {expected}")
    return kind


def _in_pipeline(config: Path, stage: str | None, overrides: Sequence[str]) -> Target:
    stage_runs = {item.stage_run.name: item.stage_run for item in read_pipeline(config, overrides)}
    names = [name for name, stage_run in stage_runs.items() if stage_run.kind in SHOWN]
    if stage is None:
        raise ConfigError(f"{config}: no stage given; add one of {', '.join(names)}")
    if stage not in stage_runs:
        raise ConfigError(
            f"{config}: no stage {stage!r}{nearest(stage, names)}; expected one of {', '.join(names)}"
        )
    stage_run = stage_runs[stage]
    _shown_kind(f"{config}: {stage}", stage_run.kind, ", ".join(names))
    for name in _data_inputs(stage_run):
        if not stage_run.inputs[name].exists():
            made_by = stage_run.upstream.get(name)
            remedy = f"; type `llamita run {config} --until {made_by}` first" if made_by else ""
            raise ConfigError(
                f"{config}: stage {stage!r} reads {stage_run.inputs[name]}, which does not exist{remedy}"
            )
    return _target(stage_run, stage_runs, stage_run.final)


def _target(stage_run: StageRun, stage_runs: Mapping[str, StageRun], output: Path | None) -> Target:
    folder, chat_format = _tokenizer(stage_run, stage_runs)
    own = getattr(stage_run.settings, "chat_format", "own")
    trained = stage_run.inputs.get("base") or stage_run.inputs.get("model")
    return Target(
        stage_run.kind,
        stage_run.settings,
        {name: path for name, path in stage_run.inputs.items() if path.exists()},
        folder,
        chat_format=LLAMA2 if LLAMA2 in (own, chat_format) else "own",
        model=trained if trained and trained.exists() else None,
        output=output,
    )


def _tokenizer(stage_run: StageRun, stage_runs: Mapping[str, StageRun]) -> tuple[Path, str]:
    """The folder of a stage's tokenizer, and the chat format that a stage before it sets.

    If the model to start from does not exist yet, its tokenizer is found where that model will get it from.
    """
    [name] = _tokenizer_inputs(stage_run)
    if stage_run.inputs[name].exists():
        return stage_run.inputs[name], "own"
    maker = stage_runs[stage_run.upstream[name]]
    if not _tokenizer_inputs(maker):
        raise ConfigError(
            f"{stage_run.inputs[name]}: no tokenizer yet; run the pipeline with --until {maker.name} first"
        )
    folder, chat_format = _tokenizer(maker, stage_runs)
    return folder, LLAMA2 if getattr(maker.settings, "chat_format", "own") == LLAMA2 else chat_format


def _tokenizer_inputs(stage_run: StageRun) -> tuple[str, ...]:
    """The input whose tokenizer a stage uses; none for a stage that trains the tokenizer."""
    if stage_run.kind == "pretrain":
        return ("tokenizer",) if getattr(stage_run.settings, "model", None) is not None else ("model",)
    return {"ppo": ("start",), "tokenizer": ()}.get(stage_run.kind, ("model",))


def _data_inputs(stage_run: StageRun) -> list[str]:
    """The inputs whose rows a stage reads; those of a stage that is not part of a pipeline may be missing."""
    if stage_run.kind == "pretrain":
        return ["data"] if getattr(stage_run.settings, "documents", None) else ["corpus"]
    below = stage_run.settings.below.values()
    return ["data", *(name for name in below if name in stage_run.inputs)]
