"""Test prompts that occur in the rows on which the evaluated versions were trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple

from ..artifact import MANIFEST, read_manifest
from ..console import say, track
from ..data.intake import Intake
from ..data.reading import outcomes
from ..data.rows import Message, Prompt
from ..data.settings import DialogueSettings
from ..data.sources import PROMPTS
from ..errors import DataError
from ..settings import Source
from .prompts import EvaluationPrompt, Kind

TRAINED = ("sft", "reward", "rejection", "ppo")
"""Kinds of stages whose rows are compared."""
SETTINGS = (
    "dialogues",
    "ghost_attention",
    "distillation",
    "comparisons",
    "mix",
    "evasions.dialogues",
    "prompts",
)
"""Settings with the sources of these rows."""


DATA = frozenset({"data", *DialogueSettings.below.values()})
"""Inputs with rows; one that is missing is an error of the sources below it."""


class _Stage(NamedTuple):
    """A stage that trained a model: its unique name and the sources of its rows, with their folders."""

    name: str
    sources: list[tuple[Path, Source]]


def compare_with_training(prompts: Sequence[EvaluationPrompt], inputs: Mapping[str, Path]) -> dict[str, Any]:
    """Counts the test prompts that occur in training rows, and reports them on the terminal.

    A prompt occurs in a row if its last message is a user message of the row, apart from case and white
    space. The rows are those of the stages that trained the inputs, of the stages before them, and so on:
    manifests say where they are. All usable rows of their sources count, also those that a stage held out
    (`held_out`), skipped as too long or did not draw: the counts are upper bounds.

    Returns:
        `prompts`: number of test prompts found by kind; `stages`: for each stage `rows` (number of them) and
        `prompts` (found in them, by kind); `not_compared`: reason by input or stage. The second stage of a
        name, of another run, is `NAME (2)`.
    """
    wanted: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        wanted.setdefault(_normalised(prompt.messages[-1]), []).append(number)
    counts = Counter(prompt.kind for prompt in prompts)

    def by_kind(found: Collection[int]) -> dict[Kind, int]:
        return {kind: sum(prompts[number].kind == kind for number in found) for kind in counts}

    stages: dict[str, dict[str, Any]] = {}
    trained, missing = _trained(inputs.values())
    not_compared = {
        name: "not the output of a stage" for name, path in inputs.items() if not (path / MANIFEST).is_file()
    } | missing
    everything: set[int] = set()
    read: dict[str, tuple[int, set[int]]] = {}
    for stage in track(trained, "comparing training rows", unit="stages"):
        found: set[int] = set()
        rows = 0
        try:
            for root, source in stage.sources:
                place = f"{root.resolve()} {source.model_dump_json()}"
                if place not in read:  # several stages may train on it
                    read[place] = _found(source, root, wanted)
                rows += read[place][0]
                found |= read[place][1]
        except DataError as error:
            not_compared[_free(stage.name, not_compared)] = str(error)
            continue
        stages[stage.name] = {"rows": rows, "prompts": by_kind(found)}
        everything |= found
    result = {"prompts": by_kind(everything), "stages": stages, "not_compared": not_compared}
    _report(result, counts)
    return result


def _normalised(message: Message) -> str:
    return " ".join(message["content"].casefold().split())


def _free(name: str, taken: Container[str]) -> str:
    """Returns a name, with a number if it is taken."""
    numbered = (f"{name} ({number})" for number in count(2))
    return next(one for one in chain([name], numbered) if one not in taken)


def _trained(folders: Iterable[Path]) -> tuple[list[_Stage], dict[str, str]]:
    """Returns the stages that trained these artifacts and those before them, each once.

    Folders before them that do not exist are the second result: reason by input.
    """
    stages: list[_Stage] = []
    missing: dict[str, str] = {}
    names = set[str]()
    waiting, known = list(folders), set[Path]()
    while waiting:
        folder = waiting.pop(0).resolve()
        if folder in known or not (folder / MANIFEST).is_file():
            continue
        known.add(folder)
        manifest = read_manifest(folder)
        taken = manifest.get("inputs") or {}
        inputs = {name: Path(one["path"]) for name, one in taken.items() if "path" in one}
        names.add(stage := _free(str(manifest.get("name") or folder.name), names))
        for name, path in inputs.items():
            if name not in DATA and not path.exists() and path not in known:
                known.add(path)
                missing[f"input {name} of {stage}"] = f"{path} does not exist"
        waiting += inputs.values()
        if manifest.get("stage") in TRAINED:
            stages.append(_Stage(stage, list(_sources(manifest.get("settings") or {}, inputs))))
    return stages, missing


def _sources(settings: Mapping[str, Any], inputs: Mapping[str, Path]) -> Iterator[tuple[Path, Source]]:
    for setting in SETTINGS:
        value: Any = settings
        for part in setting.split("."):
            value = (value or {}).get(part)
        below = DialogueSettings.below.get(setting, "data")
        root = inputs.get(below, inputs.get("data", Path()))
        for source in value or ():
            yield root, Source(**{name: source[name] for name in Source.model_fields if name in source})


def _found(source: Source, root: Path, wanted: Mapping[str, list[int]]) -> tuple[int, set[int]]:
    """Returns the number of usable rows of a source, and the numbers of the prompts in them."""
    rows, found = 0, set[int]()
    for outcome in outcomes(source, root, PROMPTS[source.format], intake=Intake()):
        if isinstance(outcome.result, DataError):
            continue  # the stage itself has skipped and counted it
        for row in outcome.result:
            if not isinstance(row, Prompt):
                continue
            rows += 1
            for message in row.messages:
                if message["role"] == "user":
                    found.update(wanted.get(_normalised(message), ()))
    return rows, found


def _report(result: Mapping[str, Any], counts: Mapping[Kind, int]) -> None:
    for name, reason in result["not_compared"].items():
        say(f"test prompts were not compared with the training rows of {name}: {reason}")
    stages = result["stages"]
    for kind, found in result["prompts"].items():
        if found:
            by_stage = {name: one["prompts"][kind] for name, one in stages.items()}
            named = ", ".join(f"{name} ({count:,})" for name, count in by_stage.items() if count)
            say(f"warning: {found:,} of {counts[kind]:,} {kind} test prompts occur in training rows: {named}")
    if stages and not any(result["prompts"].values()):
        say(f"no test prompt occurs in a training row of {', '.join(stages)}")
