"""The command line: `llamita run PIPELINE.yaml`, single stages and the commands around them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .commands import completion, recipes
from .commands.group import Commands
from .commands.kinds import kind_of
from .compare.command import compare
from .config import load_settings
from .console import say
from .errors import ConfigError
from .runner import execution, pipeline, schedule, stages
from .terminal import exit_on_signals, print_whatever_happens
from .yaml_file import read_yaml

STAGE_HELP = {
    "world": "Generate a synthetic data set: text, dialogues and comparisons with known ground truth.",
    "tokenizer": "Train a BPE tokenizer on text.",
    "prepare": "Tokenize text into shards, which pretraining reads.",
    "pretrain": "Train a base model on text.",
    "gatt": "Sample dialogues that follow an instruction, for Ghost Attention.",
    "distillation": "Sample safer answers with a safety preprompt, to train without it.",
    "sft": "Fine-tune a base model on dialogues (SFT), with Ghost Attention.",
    "reward": "Train a reward model on comparisons, for helpfulness, safety or as a judge.",
    "refusal_classifier": "Train a classifier of refusals on labelled answers.",
    "rejection": "Sample answers, select the best for each prompt and fine-tune on them.",
    "ppo": "Train a chat model against the reward models with PPO.",
    "evaluate": "Evaluate and compare all versions of a chat model.",
    "red_team": "Attack all versions of a chat model and measure safety violations.",
    "benchmark": "Run public benchmarks (MMLU, GSM8K, HumanEval, …) on base and chat models.",
    "contamination": "Search a training corpus for the samples of benchmarks.",
}
START, STAGES, USE = "Start", "Stages, run alone", "Use"

Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings that override those in the YAML, such as seed=1."),
]


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Trains a chat model from raw text as the Llama 2 paper describes: tokenizer, pretraining, "
    "supervised fine-tuning, reward models, RLHF, evaluation, report. To start, type `llamita init smoke "
    "smoke` and `llamita run smoke/pipeline.yaml`: raw text to report, small, in minutes on a laptop.",
)


def _show_version(asked_for: bool) -> None:
    if asked_for:
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


@app.command(short_help="Copy a shipped recipe into a new folder.", rich_help_panel=START)
def init(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="Name of the recipe.", autocompletion=completion.recipes),
    ] = None,
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="New or empty folder to copy it to.")
    ] = None,
) -> None:
    """Copy a shipped recipe, the YAML files of a pipeline, into a new folder; without arguments list them."""
    if recipe is None:
        say("\n".join(["llamita init RECIPE FOLDER copies one of these recipes:", *recipes.recipe_list()]))
        return
    if folder is None:
        raise ConfigError(f"no folder given; type `llamita init {recipe} FOLDER`, with a new or empty folder")
    written = recipes.copy_recipe(recipe, folder)
    say(f"{folder}: wrote {', '.join(path.relative_to(folder).as_posix() for path in written)}")
    say("\n".join(["next:", *(f"  {command}" for command in recipes.next_commands(folder))]))


@app.command(short_help="Run a pipeline, from text to report.", rich_help_panel=START)
def run(
    config: Annotated[Path, typer.Argument(metavar="PIPELINE.yaml", help="The pipeline to run.")],
    overrides: Overrides = None,
    *,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show the plan: each stage, its settings, and why it would run."),
    ] = False,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="STAGE",
            help="Stop after this stage, such as sft or v1/ppo.",
            autocompletion=completion.stages,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="STAGE",
            help="Start at this stage and reuse earlier stages' outputs without checking them.",
            autocompletion=completion.stages,
        ),
    ] = None,
) -> None:
    """Run the stages of a pipeline in order, each into runs/NAME/STAGE (in a round: runs/NAME/v1/STAGE).

    NAME is the pipeline's `name`; runs/ is in the current folder. Finished stages whose settings and inputs
    are unchanged are skipped, so after a stop the same command resumes. Pass settings of the pipeline and of
    its stages as arguments:
    name=my_run seed=1 roots.data=FOLDER sft.trainer.learning_rate=1e-4 v2/ppo.processes=2
    """
    chosen = schedule.plan(pipeline.read_pipeline(config, overrides or []), start, until)
    pipeline.check_trainers([item for item in chosen if item.status and not item.status.done])
    if dry_run:
        schedule.show(chosen)
    else:
        schedule.run(chosen)


@app.command(short_help="Check YAML files without running anything.", rich_help_panel=START)
def validate(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG.yaml...", help="Pipelines or stages.")],
    stage: Annotated[
        str | None,
        typer.Option(
            help="Kind of stage, if the file's name does not begin with it.", autocompletion=completion.kinds
        ),
    ] = None,
) -> None:
    """Check YAML files without running anything: keys, types, names, and which stage reads which.

    An input that does not resemble the name of a stage or root counts as a path; `llamita run … --dry-run`
    checks that it exists.
    """
    for config in configs:
        if "stages" in read_yaml(config).data:
            pipeline.check_trainers(pipeline.read_pipeline(config, folders_needed=False))
        else:
            load_settings(config, stages.settings_class(kind_of(config, stage)))
        say(f"{config}: ok")


def _stage_command(kind: str) -> Callable[..., None]:
    def command(
        config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="YAML of the stage.")],
        overrides: Overrides = None,
        *,
        processes: Annotated[
            int, typer.Option(min=1, help="Number of ranks; more than 1 needs deepspeed=FILE.")
        ] = 1,
        name: Annotated[str | None, typer.Option(hidden=True, help="Name in the pipeline.")] = None,
    ) -> None:
        settings = load_settings(config, stages.settings_class(kind), overrides or [])
        with execution.together(settings):
            stage_run = stages.standalone_run(kind, settings, config, processes=processes, name=name)
            status = execution.recovered_status(stage_run)
            if status.done:
                say(f"{stage_run.name}: skipped, already {status.reason}; output folder: {stage_run.final}")
            else:
                say(f"{stage_run.name}: running ({status.reason})")
                execution.execute(stage_run)
                say(f"{stage_run.name}: finished; output folder: {stage_run.final}")

    return command


@app.command("show", short_help="Print rows as the model sees them.", rich_help_panel=START)
def show_rows(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="YAML of a pipeline or of a stage.")],
    stage: Annotated[
        str | None,
        typer.Argument(
            metavar="STAGE",
            help="Stage of the pipeline, such as sft or v1/rejection.",
            autocompletion=completion.stages,
        ),
    ] = None,
    overrides: Overrides = None,
    *,
    rows: Annotated[int, typer.Option(min=0, help="Number of rows.")] = 5,
) -> None:
    """Print rows as the model sees them, and a table of their lengths.

    For pretrain, sft, rejection, reward and distillation. Trained tokens are green; without colours they are
    between ⟦ and ⟧. A stage of a pipeline reads the outputs of finished stages; for the YAML of a stage pass
    inputs.NAME=FOLDER.
    """
    from .commands.target import find_target

    words = [*([stage] if stage else []), *(overrides or [])]
    name = words.pop(0) if words and "=" not in words[0] else None
    target = find_target(config, name, words)
    from .commands.show import show

    show(target, rows)


for _kind, _help in STAGE_HELP.items():
    _folders = "Pass folders as arguments: inputs.NAME=FOLDER … output=FOLDER"
    app.command(_kind, help=f"{_help} {_folders}", short_help=_help, rich_help_panel=STAGES)(
        _stage_command(_kind)
    )


@app.command("rlhf", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def _rlhf() -> None:
    raise ConfigError(stages.RLHF_REMOVED)


@app.command(short_help="Talk with a model.", rich_help_panel=USE)
def chat(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL_DIR", help="Folder of a model, or of a stage that trained one.")
    ],
    *,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")] = 1.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the sampled answers.")] = 0,
) -> None:
    """Talk with a model. The commands /system TEXT, /reset and /save FILE work inside; Ctrl-D ends."""
    from .chat import run as run_chat

    run_chat(model, system=system, temperature=temperature, max_new_tokens=max_new_tokens, seed=seed)


app.command(short_help="Compare the answers of two models.", rich_help_panel=USE)(compare)


@app.command(short_help="Write a run's report again, or compare runs.", rich_help_panel=USE)
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Folders of runs, such as runs/smoke.")
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With several runs: folder to write a page with figures to."),
    ] = None,
) -> None:
    """Write the report of a run again, from the stages finished so far, into RUN_DIR/report.

    A folder such as sft.old beside sft is a backup and is ignored.

    With several runs: show their reports side by side, with the differences to the first one and the settings
    that differ. Nothing is written but the page in --output.
    """
    from .commands.report import compare_runs, write_report

    if len(runs) > 1:
        compare_runs(runs, output)
    elif output:
        raise ConfigError("--output is for several runs; the report of one run is written into its folder")
    else:
        write_report(runs[0])


@app.command(short_help="Print a JSON schema, with which editors check a YAML.", rich_help_panel=USE)
def schema(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND", help="Kind of stage, or `pipeline`.", autocompletion=completion.schemas
        ),
    ],
) -> None:
    """Print the JSON schema of a stage's YAML, or of pipeline.yaml, for editors.

    Save it and name it in the first line of a YAML: # yaml-language-server: $schema=FILE
    """
    from .commands.schema import schema_text

    say(schema_text(kind).rstrip())


def main() -> None:
    """The console script. `--debug` is accepted anywhere, also after the command."""
    print_whatever_happens()
    if "RANK" not in os.environ:
        exit_on_signals()
    arguments = sys.argv[1:]
    if "--debug" in arguments:
        arguments = ["--debug", *(argument for argument in arguments if argument != "--debug")]
    app(arguments, prog_name="llamita")


if __name__ == "__main__":
    main()
