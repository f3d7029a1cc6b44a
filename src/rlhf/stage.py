"""Stage `rlhf`: rounds of rejection sampling and PPO, from RLHF-V0 to the last version (section 3.2.3)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..artifact import model_folder, working_folder
from ..chat_format.encoding import chat_format
from ..console import say
from ..distributed import group
from ..distributed.steps import made_folder, made_rows
from ..errors import ConfigError
from ..jsonl import Row
from ..processes import is_main_process
from ..training.tracking import Tracker
from .context import Context, prepare
from .improvement import improve
from .rejection import (
    best_answers,
    fine_tune,
    is_usable,
    round_prompts,
    rows_per_step,
    sample_answers,
    score_answers,
)
from .settings import RlhfSettings


def run(settings: RlhfSettings, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Makes a version of the model in each round; the last one is copied to `out/model`.

    Every step of a round is kept in `out/<round>/` and never made twice.

    Metrics: `versions` (name, its model's folder below the artifact and, after PPO, the version that it
    `start`ed from), `rounds` (by name: see `_select`, and under `rejection` and `ppo` what those steps
    measured), `prompts`, and those of `data.intake.Intake` (what was left out).
    Raises DataError for models or rows that don't fit together, ConfigError for settings that don't.
    """
    group.setup(settings.deepspeed)
    context = prepare(settings, inputs)
    context.intake.write(out)
    newest, versions, rounds = model_folder(inputs["sft"]), [], {}
    with Tracker(out, settings.model_dump(mode="json")) as tracker:
        for index, entry in enumerate(settings.rounds):
            folder = out / entry.name
            measured = _select(context, index, newest, folder)
            selections = [out / earlier.name / "selection.jsonl" for earlier in settings.rounds[: index + 1]]
            make = partial(fine_tune, context, selections, index, tracker)
            measured["rejection"] = made_folder(folder / "rejection", make)
            _check_rows(settings, folder / "rejection", measured["rejection"])
            newest = folder / "rejection" / "model"
            name = f"{entry.name}_rejection" if entry.ppo else entry.name
            versions.append({"name": name, "model": str(newest.relative_to(out))})
            if entry.ppo:
                measured["ppo"] = made_folder(
                    folder / "ppo", partial(improve, context, newest, index, tracker)
                )
                newest = folder / "ppo" / "model"
                version = {"name": entry.name, "model": str(newest.relative_to(out)), "start": name}
                versions.append(version)
            rounds[entry.name] = measured
    _copy_model(newest, out / "model")
    return {"versions": versions, "rounds": rounds, **context.counts}


def _select(context: Context, index: int, newest: Path, folder: Path) -> dict[str, Any]:
    """Samples answers from the newest model, scores them and keeps the best of each prompt.

    Returns `prompts`, `samples`, `finished_share`, `mean_score` of all samples, `best_score` (mean over the
    selected), `selected`, and the prompts without a selected answer: `without_answer` (all cut, empty or with
    control strings), `all_unsafe` (ordinary prompts whose usable answers are all below the safety threshold).
    """
    settings = context.settings

    def choose() -> list[Row]:
        places = round_prompts(len(context.pool), settings.rounds, index, settings.seed)
        return [{"pool": place, **context.pool[place].row()} for place in places]

    prompts = [context.pool[row["pool"]] for row in made_rows(folder / "prompts.jsonl", choose)]
    samples = made_rows(folder / "samples.jsonl", lambda: sample_answers(context, newest, prompts, index))
    scores = made_rows(folder / "scores.jsonl", lambda: score_answers(context, samples, prompts, index))
    marks = chat_format(context.tokenizer).marks
    selection = made_rows(
        folder / "selection.jsonl",
        lambda: best_answers(
            samples, scores, prompts, marks=marks, safety_threshold=settings.safety_threshold
        ),
    )
    answered = {row["prompt"] for row in samples if is_usable(row, marks)}
    counts = {
        "selected": len(selection),
        "without_answer": len(prompts) - len(answered),
        "all_unsafe": len(answered) - len(selection),
    }
    _say_selection(folder.name, len(prompts), counts)
    return counts | {
        "prompts": len(prompts),
        "samples": len(samples),
        "finished_share": _mean([row["finished"] for row in samples]),
        "mean_score": _mean([row["score"] for row in scores]),
        "best_score": _mean([row["score"] for row in selection]),
    }


def _say_selection(name: str, prompts: int, counts: Mapping[str, int]) -> None:
    say(
        f"{name}: answers selected for {counts['selected']:,} of {prompts:,} prompts; no usable answer for "
        f"{counts['without_answer']:,}, all answers unsafe for {counts['all_unsafe']:,}"
    )
    if not counts["selected"]:
        say(f"{name}: no answer was selected; the round trains on demonstrations and earlier rounds alone")


def _check_rows(settings: RlhfSettings, folder: Path, measured: Mapping[str, Any]) -> None:
    """All rounds take steps of the same rows; one that was finished before has no checkpoint that says so."""
    before, now = measured["rows_per_step"], rows_per_step(settings)
    if before != now:
        raise ConfigError(
            f"{folder}: its steps had {before} rows, now they would have {now}; set batch size and "
            f"accumulation in `trainer` such that all ranks together have {before} rows a step"
        )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _copy_model(source: Path, target: Path) -> None:
    if is_main_process() and not target.exists():
        aside = working_folder(target)
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(source, aside)
        aside.rename(target)
    group.barrier()
