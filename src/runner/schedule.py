"""Plans and runs a pipeline: finished stages are skipped, unfinished ones resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import artifact, working
from ..console import duration, say
from ..errors import ConfigError, LlamitaError
from ..yaml_file import brief, flatten, nearest
from .execution import execute
from .identity import StageRun, Status, changes_before, published_manifest
from .identity import status as status_of
from .pipeline import PlannedStage
from .rounds import not_in_round


def plan(
    planned: Sequence[PlannedStage], first: str | None = None, last: str | None = None
) -> list[PlannedStage]:
    """The stages from `first` to `last`, each with its status.

    Outputs of stages before `first` are used without checking them. A stage whose inputs come from a stage
    that has to run is checked again after it, and skipped if the new inputs have the same contents.
    """
    names = [item.stage_run.name for item in planned]
    for option, name in (("--from", first), ("--until", last)):
        if name is not None and name not in names:
            raise ConfigError(f"{option} {name}: {_no_such_stage(name, names)}")
    start = names.index(first) if first else 0
    end = names.index(last) + 1 if last else len(names)
    if start >= end:
        raise ConfigError(f"--from {first} comes after --until {last}")
    chosen: list[PlannedStage] = []
    for item in planned[:end]:
        working.recover(item.stage_run.final)
        if names.index(item.stage_run.name) >= start:
            chosen.append(PlannedStage(item.stage_run, item.yaml_file, _status(item.stage_run, chosen)))
    return chosen


def _no_such_stage(name: str, names: Sequence[str]) -> str:
    if in_rounds := [other for other in names if other.endswith(f"/{name}")]:
        return f"this stage exists in several rounds; expected one of {', '.join(in_rounds)}"
    expected = f"expected one of {', '.join(names)}"
    return not_in_round(name, names) or f"no such stage{nearest(name, names)}; {expected}"


def _status(stage_run: StageRun, before: Sequence[PlannedStage]) -> Status:
    """Status of a stage, given the planned stages before it."""
    to_run = {item.stage_run.name for item in before if item.status and not item.status.done}
    pending = {name: stage for name, stage in stage_run.upstream.items() if stage in to_run}
    for name, folder in stage_run.inputs.items():
        if name not in pending and not folder.exists():
            raise LlamitaError(
                f"stage {stage_run.name!r} needs {folder}, which does not exist; run without --from, or from "
                f"{stage_run.upstream.get(name)!r}"
            )
    return _waiting_status(stage_run, pending) if pending else status_of(stage_run)


def _waiting_status(stage_run: StageRun, pending: Mapping[str, str]) -> Status:
    """Status of a stage whose inputs `pending` come from stages that run first (input name -> stage).

    Raises LlamitaError if the output folder holds something else, before any stage runs.
    """
    upstream = sorted(set(pending.values()))
    stages = ", ".join(upstream)
    manifest = published_manifest(stage_run)
    if manifest is None:
        return Status(False, f"first run, after {stages}")
    if changes := changes_before(stage_run, manifest, pending):
        reason = f"changed: {'; '.join(changes)}; runs after {stages}"
    else:
        reason = f"reruns only if {stages} {'changes' if len(upstream) == 1 else 'change'} its inputs"
    return Status(False, reason, manifest.get("wall_seconds"))


def show(chosen: Sequence[PlannedStage]) -> None:
    """Prints the plan with the inputs, output and resolved settings of every stage."""
    for item in chosen:
        stage_run = item.stage_run
        say(f"{stage_run.name}: {item.status.reason if item.status else 'status not checked'}")
        say(f"    kind {stage_run.kind}, settings from {item.yaml_file.path}")
        for name, folder in stage_run.inputs.items():
            say(f"    input {name}: {folder}")
        say(f"    output {stage_run.final}")
        if stage_run.processes > 1:
            say(f"    processes: {stage_run.processes}")
        for key, value in flatten(stage_run.settings.model_dump(exclude={"inputs", "output"})).items():
            say(f"    {key}: {brief(value, 200)}")


# ------------------------------------------------------------------------------------------- running


def run(chosen: Sequence[PlannedStage]) -> None:
    """Runs the stages that are not finished, in order. Raises what a stage raises."""
    to_do = [item for item in chosen if item.status and not item.status.done]
    for number, item in enumerate(chosen, start=1):
        stage_run = item.stage_run
        prefix = f"[{number}/{len(chosen)}] {stage_run.name}"
        to_do = [other for other in to_do if other is not item]
        status = status_of(stage_run)  # checked again: stages before it may have changed its inputs, or not
        if status.done:
            say(f"{prefix}: skipped, already {status.reason}")
            continue
        say(f"{prefix}: running ({status.reason})")
        execute(stage_run)
        seconds = artifact.read_manifest(stage_run.final)["wall_seconds"]
        say(f"{prefix}: finished in {duration(seconds)}{_time_left(to_do)}")
    last = chosen[-1].stage_run
    say(f"finished; output folder: {last.final.parents[last.name.count('/')]}")


def _time_left(to_do: Sequence[PlannedStage]) -> str:
    """Estimated time left: durations of the last runs, if all are known."""
    known = [item.status.seconds for item in to_do if item.status and item.status.seconds]
    return f"; about {duration(sum(known))} left" if to_do and len(known) == len(to_do) else ""
