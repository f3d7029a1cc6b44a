"""The command line: `llamita run PIPELINE.yaml`, single stages, validate, chat, report."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__, artifact, working
from .config import load_settings
from .console import error_console, say
from .errors import ConfigError, DataError, Interrupted, LlamitaError
from .processes import is_main_process
from .runner import execution, pipeline, schedule, stages
from .runner.identity import StageRun
from .runner.identity import status as status_of
from .terminal import ending_signals, print_whatever_happens
from .yaml_file import nearest, read_yaml

STAGE_HELP = {
    "world": "Make the miniature world: text, dialogues and comparisons with a known truth.",
    "tokenizer": "Train a tokenizer on text.",
    "prepare": "Turn text into token shards, which pretraining reads.",
    "gatt": "Sample dialogues that keep an instruction, for Ghost Attention.",
    "pretrain": "Train a base model on text.",
    "sft": "Teach a base model to chat: supervised fine-tuning, with Ghost Attention.",
    "reward": "Train a reward model on comparisons (helpfulness or safety).",
    "rejection": "Sample answers, select the best of each prompt and fine-tune on them: rejection sampling.",
    "ppo": "Improve a chat model against reward models by PPO.",
    "evaluate": "Measure the versions of a chat model.",
}

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings that replace those of the YAML, as in seed=1."),
]


class _Commands(TyperGroup):
    """Turns every error into one clear message and an exit code; the traceback is for --debug."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _complain("stopped; what is finished is kept, the same command goes on with the rest")
            raise typer.Exit(130) from None
        except Exception as error:
            if hasattr(error, "exit_code") and not isinstance(error, LlamitaError):
                raise  # typer's own: wrong usage, --help
            if ctx.params.get("debug"):
                traceback.print_exc()
            _complain(_message(error))
            raise typer.Exit(error.exit_code if isinstance(error, LlamitaError) else 1) from None


def _message(error: Exception) -> str:
    if isinstance(error, LlamitaError):
        return str(error)
    if execution.disk_is_full(error):
        return f"no space left on the disk: {getattr(error, 'filename', None) or error}"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return f"{type(error).__name__}: {error} (not foreseen; `llamita --debug …` shows where it happened)"


def _complain(message: str) -> None:
    who = "" if is_main_process() else f"rank {os.environ['RANK']}: "
    error_console.print(f"{who}error: {message}", markup=False, soft_wrap=True, style="red")


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Raises a chat model from raw text, the way the Llama 2 paper describes: tokenizer, pretraining, "
    "supervised fine-tuning, reward models, RLHF, evaluation, report. Begin with "
    "`llamita run configs/smoke/pipeline.yaml`: a miniature of everything, in minutes on a laptop.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"llamita {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(short_help="Run a pipeline, from text to report.")
def run(
    config: Annotated[Path, typer.Argument(metavar="PIPELINE.yaml", help="Which stages, in which order.")],
    overrides: Overrides = None,
    *,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show the plan: settings, what is done, what is to do and why."),
    ] = False,
    until: Annotated[
        str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage, as sft or v1/ppo.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STAGE",
            help="Start at this stage and reuse earlier stages' outputs without checking them.",
        ),
    ] = None,
) -> None:
    """Run a pipeline: all its stages in order, each into runs/NAME/STAGE (of a round: runs/NAME/v1/STAGE).

    What is done and unchanged is not done again, so the same command also goes on after a stop.
    Settings of the pipeline and of its stages can be given behind:
    name=my_run seed=1 roots.data=FOLDER sft.trainer.learning_rate=1e-4 v2/ppo.processes=2
    """
    chosen = schedule.plan(pipeline.read_pipeline(config, overrides or []), start, until)
    pipeline.check_trainers([item for item in chosen if item.status and not item.status.done])
    if dry_run:
        schedule.show(chosen)
    else:
        schedule.run(chosen)


def _stage_command(kind: str) -> Callable[..., None]:
    def command(
        config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The settings of the stage.")],
        overrides: Overrides = None,
        *,
        processes: Annotated[
            int, typer.Option(min=1, help="Ranks to start, where the YAML names a DeepSpeed file.")
        ] = 1,
        name: Annotated[str | None, typer.Option(hidden=True, help="Its name in a pipeline.")] = None,
    ) -> None:
        settings = load_settings(config, stages.settings_class(kind), overrides or [])
        stage_run = stages.standalone_run(kind, settings, config, processes=processes, name=name)
        if is_main_process():
            working.recover(stage_run.final)
        status = status_of(stage_run)
        if status.done:
            say(f"{stage_run.name}: done before, nothing has changed: {stage_run.final}")
        else:
            say(f"{stage_run.name}: {status.reason}")
            execution.execute(stage_run)
            say(f"{stage_run.name}: {stage_run.final}")

    return command


for _kind, _help in STAGE_HELP.items():
    _inputs = "Folders are given behind: inputs.NAME=FOLDER output=FOLDER"
    app.command(_kind, help=f"{_help} {_inputs}", short_help=_help)(_stage_command(_kind))


@app.command("rlhf", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def _rlhf() -> None:
    raise ConfigError(stages.RLHF_REMOVED)


@app.command(short_help="Check YAML files without running anything.")
def validate(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG.yaml...", help="Pipelines or stages.")],
    stage: Annotated[
        str | None, typer.Option(help="The kind of stage, where the file's name does not begin with it.")
    ] = None,
) -> None:
    """Check YAML files without running anything: keys, types, names, what takes what from which stage."""
    for config in configs:
        if "stages" in read_yaml(config).data:
            pipeline.check_trainers(pipeline.read_pipeline(config, folders_needed=False))
        else:
            load_settings(config, stages.settings_class(kind_of(config, stage)))
        say(f"{config}: ok")


def kind_of(config: Path, stage: str | None = None) -> str:
    """The kind of a stage's YAML: as given, as the file's name begins, or as the pipeline beside it says.

    Raises ConfigError where none of these tells.
    """
    named = [kind for kind in (*stages.REGISTRY, "rlhf") if config.stem.startswith(kind)]
    kind = stage or (named[0] if named else _kind_in_pipeline(config))
    if kind == "rlhf":
        raise ConfigError(f"{config}: {stages.RLHF_REMOVED}")
    if kind not in stages.REGISTRY:
        hint = nearest(kind or config.stem, stages.REGISTRY)
        raise ConfigError(
            f"{config}: which stage is this?{hint} Give --stage, one of {', '.join(stages.REGISTRY)}"
        )
    return kind


def _kind_in_pipeline(config: Path) -> str | None:
    beside = config.with_name("pipeline.yaml")
    entries = read_yaml(beside).data.get("stages") if beside.is_file() else None
    naming = (entry for entry in _stages_in(entries) if entry.get("config") == config.name)
    return next((entry.get("stage") for entry in naming), None)


def _stages_in(entries: Any) -> Iterator[dict[str, Any]]:
    """The entries of stages, those of blocks included, of a pipeline that was not yet checked."""
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            yield entry
            yield from _stages_in(entry.get("stages"))


@app.command()
def chat(
    model: Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="A model's folder, or a stage's.")],
    *,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest word.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
) -> None:
    """Talk with a model. /system TEXT, /reset and /save FILE work inside; Ctrl-D ends."""
    from .chat import run as run_chat

    run_chat(model, system=system, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)


@app.command(short_help="Draw the report of a run anew.")
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="As runs/smoke.")],
) -> None:
    """Draw the report of a run anew, from the stages that are finished so far, into RUN_DIR/report.

    A folder such as sft.old beside sft is a backup and left out.
    """
    inputs = _finished(run_folder)
    inputs.pop("report", None)
    if not inputs:
        raise DataError(f"{run_folder}: no finished stage here; expected a run's folder, such as runs/smoke")
    artifact.check_single_run(run_folder, inputs.values())
    settings = stages.settings_class("report")()
    execution.execute(StageRun("report", settings, inputs, run_folder.absolute() / "report"))


def _finished(run_folder: Path) -> dict[str, Path]:
    """The finished stages of a run by their names, those of rounds as `v1/ppo`; no backups."""
    flat = [path.parent for path in run_folder.glob(f"*/{artifact.MANIFEST}")]
    nested = [path.parent for path in run_folder.glob(f"*/*/{artifact.MANIFEST}")]
    nested = [folder for folder in nested if folder.parent not in flat and "." not in folder.parent.name]
    folders = sorted(folder for folder in (*flat, *nested) if folder.suffix != artifact.PARTIAL)
    found = {folder.relative_to(run_folder).as_posix(): folder for folder in folders}
    return {name: found[name] for name in found if name.partition(".")[0] not in found.keys() - {name}}


def _end(*_: object) -> None:
    """Unwinds, so that launched ranks end too; the same command resumes whatever was under way."""
    for one in ending_signals():  # a shell and its terminal both send SIGHUP
        signal.signal(one, signal.SIG_IGN)
    sys.exit(Interrupted.exit_code)


def main() -> None:
    """The console script. `--debug` may stand anywhere, also behind the command."""
    print_whatever_happens()
    if "RANK" not in os.environ:
        for one in ending_signals():
            signal.signal(one, _end)
    arguments = sys.argv[1:]
    if "--debug" in arguments:
        arguments = ["--debug", *(argument for argument in arguments if argument != "--debug")]
    app(arguments, prog_name="llamita")


if __name__ == "__main__":
    main()
