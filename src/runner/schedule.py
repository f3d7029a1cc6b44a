"""The plan of a run, and the run: finished stages are skipped, unfinished ones resume."""

from __future__ import annotations

from collections.abc import Sequence

from .. import artifact, working
from ..console import duration, say
from ..errors import ConfigError, LlamitaError
from ..yaml_file import brief, flatten, nearest
from .execution import execute
from .identity import Status, Step
from .identity import status as status_of
from .pipeline import Planned
from .rounds import not_in_round


def plan(planned: Sequence[Planned], first: str | None = None, last: str | None = None) -> list[Planned]:
    """The part of the pipeline from `first` to `last`, each step with its status.

    What stands before `first` is taken as it is. A step whose input is made again waits for it: if the new
    input has the same contents, the step is done after all.
    """
    names = [item.step.name for item in planned]
    for option, name in (("--from", first), ("--until", last)):
        if name is not None and name not in names:
            raise ConfigError(f"{option} {name}: {_no_such_stage(name, names)}")
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


def _no_such_stage(name: str, names: Sequence[str]) -> str:
    if in_rounds := [one for one in names if one.endswith(f"/{name}")]:
        return f"this stage is in several rounds; expected one of {', '.join(in_rounds)}"
    return not_in_round(name, names) or f"no such stage{nearest(name, names)}; there are {', '.join(names)}"


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
        execute(step)
        seconds = artifact.read_manifest(step.final)["wall_seconds"]
        say(f"{prefix}: done in {duration(seconds)}{_time_left(to_do)}")
    last = chosen[-1].step
    say(f"all done: {last.final.parents[last.name.count('/')]}")


def _time_left(to_do: Sequence[Planned]) -> str:
    """What the rest took the last time, where that is known of every stage."""
    known = [item.status.seconds for item in to_do if item.status and item.status.seconds]
    return f"; about {duration(sum(known))} left" if to_do and len(known) == len(to_do) else ""
