"""Identity of a stage's result: decides whether a finished stage is skipped and an unfinished one resumes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import __version__, artifact, hashes, working
from ..data.source_hash import data_hash
from ..errors import LlamitaError
from ..processes import world_size
from ..settings import StageSettings
from ..training.micro_batches import step_rows_on
from ..training.settings import ROWS, TrainedSettings
from ..yaml_file import brief


@dataclass(frozen=True)
class StageRun:
    """One stage that can be run: its kind, settings, input folders and output folder."""

    kind: str
    settings: StageSettings
    inputs: Mapping[str, Path]
    final: Path
    _: KW_ONLY
    processes: int = 1
    upstream: Mapping[str, str] = field(default_factory=dict)  # input name -> stage that produces it
    pipeline_name: str | None = None  # `v1/ppo` for a stage of a round; None: the name of `final`

    @property
    def name(self) -> str:
        return self.pipeline_name or self.final.name


@dataclass(frozen=True)
class Status:
    """Whether a stage is finished; if not, the reason to run it."""

    done: bool
    reason: str
    seconds: float | None = None  # duration of its last run


@dataclass(frozen=True)
class Identity:
    """What determines a stage's result: kind, settings, hashes of the inputs, version of the code.

    `inputs` is ordered: stages read the members of an input that takes a list one after the other.
    """

    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    version: str

    @property
    def fingerprint(self) -> str:
        parts = [self.kind, dict(self.settings), dict(self.inputs), self.version]
        # sorted lists have the fingerprint of earlier versions, which did not depend on the order
        unsorted = {name: labels for name, labels in _lists(self.inputs).items() if labels != sorted(labels)}
        return hashes.digest([*parts, unsorted] if unsorted else parts)

    def as_dict(self) -> dict[str, Any]:
        """The fields with the fingerprint, as they are stored in a working folder."""
        fields = {"settings": self.settings, "inputs": self.inputs, "version": self.version}
        return {"fingerprint": self.fingerprint, **fields}

    def changes(self, before: Mapping[str, Any]) -> list[str]:
        """Changed settings (`key: old -> new`), inputs and version; `before` has the keys of `as_dict`."""
        old, new, missing = before["settings"], self.settings, object()
        differences = [
            f"{key}: {_brief(old, key)} -> {_brief(new, key)}"
            for key in sorted({*old, *new})
            if old.get(key, missing) != new.get(key, missing)
        ]
        old_hashes, new_hashes = before["inputs"], self.inputs
        for name in sorted({*old_hashes, *new_hashes}):
            if old_hashes.get(name) != new_hashes.get(name):
                how = "added" if name not in old_hashes else "removed" if name not in new_hashes else None
                differences.append(f"input {name} {how}" if how else f"contents of input {name}")
        differences += _reordered(_lists(old_hashes), _lists(new_hashes))
        if before["version"] != self.version:
            differences.append(f"llamita {before['version']} -> {self.version}")
        return differences


def _lists(inputs: Iterable[str]) -> dict[str, list[str]]:
    """Labels of the inputs that take a list, in order, from names such as `versions.v1/ppo`."""
    lists: dict[str, list[str]] = {}
    for name in inputs:
        listed, dot, label = name.partition(".")
        if dot:
            lists.setdefault(listed, []).append(label)
    return lists


def _reordered(old: Mapping[str, list[str]], new: Mapping[str, list[str]]) -> list[str]:
    """The lists that have the same members as before in another order."""
    return [
        f"order of input {name}: {brief(old[name])} -> {brief(labels)}"
        for name, labels in sorted(new.items())
        if old.get(name, labels) != labels and sorted(old[name]) == sorted(labels)
    ]


def _brief(settings: Mapping[str, Any], key: str) -> str:
    return brief(settings[key]) if key in settings else "unset"


def identity(stage_run: StageRun, hashes: Mapping[str, str], resuming: bool = False) -> Identity:
    """Identity of a stage with these hashes of its inputs.

    A finished stage is skipped while its identity is unchanged. An unfinished one resumes while its identity
    with `resuming` is unchanged, which omits settings that may change in between.
    """
    settings = stage_run.settings.decisive(stage_run.settings.fingerprinted(), resuming)
    return Identity(stage_run.kind, settings, hashes, __version__)


def input_hashes(stage_run: StageRun, without: Collection[str] = ()) -> dict[str, str]:
    """Hashes of the files that the stage reads from each input, except the inputs `without`, in their order.

    Raises DataError if a file is missing.
    """
    read = stage_run.settings.data_read(stage_run.inputs)
    return {
        name: data_hash(read[name], path) if name in read else hashes.input_hash(path)
        for name, path in stage_run.inputs.items()
        if name not in without
    }


def status(stage_run: StageRun) -> Status:
    """Compares the published artifact and unfinished work with this run's identity.

    Raises LlamitaError if the output folder holds something else, see `published_manifest`.
    """
    hashes = input_hashes(stage_run)
    current = identity(stage_run, hashes)
    manifest = published_manifest(stage_run)
    seconds = manifest.get("wall_seconds") if manifest else None
    if manifest and (finished := _finished(stage_run, current, manifest)):
        return Status(True, finished, seconds)
    if (unfinished := working.unfinished_identity(stage_run.final)) is not None:
        return Status(False, f"unfinished, {_unfinished_status(stage_run, unfinished, hashes)}", seconds)
    if manifest is None:
        return Status(False, "first run")
    changes = current.changes(_published_identity(stage_run, manifest)) or ["fingerprint"]
    return Status(False, f"changed: {'; '.join(changes)}", seconds)


def _finished(stage_run: StageRun, current: Identity, manifest: Mapping[str, Any]) -> str | None:
    """`finished`, with a note if a step would now have another number of rows; None for another identity.

    A pipeline that was trained on eight GPUs can be continued on one, so a stage stays finished with the same
    rows on each rank, and, since training may resume on other ranks, with the same rows of all ranks.
    """
    settings, ranks = stage_run.settings, max(stage_run.processes, world_size())
    before = manifest.get("processes", ranks)
    if manifest.get("fingerprint") == current.fingerprint:
        if not isinstance(settings, TrainedSettings):
            return "finished"
        then, now = step_rows_on(settings, before), step_rows_on(settings, ranks)
        note = f" ({then:,} rows per step on {before} ranks; {now:,} on {ranks})"
        return f"finished{note if then != now else ''}"
    rows = current.settings.get(ROWS)
    if not isinstance(rows, int) or rows * ranks % before:  # no batch size, or an invalid one
        return None
    same_step = replace(current, settings={**current.settings, ROWS: rows * ranks // before})
    return "finished" if manifest.get("fingerprint") == same_step.fingerprint else None


def changes_before(stage_run: StageRun, manifest: Mapping[str, Any], pending: Collection[str]) -> list[str]:
    """Differences from a published artifact, as if the contents of the inputs `pending` were unchanged."""
    published = _published_identity(stage_run, manifest)
    hashes = input_hashes(stage_run, without=pending)
    expected = {name: hashes.get(name) or published["inputs"].get(name, "") for name in stage_run.inputs}
    return identity(stage_run, expected).changes(published)


def _unfinished_status(stage_run: StageRun, unfinished: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    """What happens to unfinished work, with the reason."""
    if not stage_run.settings.resumable:
        return "restarts (this stage cannot resume)"
    current = identity(stage_run, hashes, resuming=True)
    if unfinished["fingerprint"] == current.fingerprint:
        return "resumes"
    changes = current.changes(unfinished) if "settings" in unfinished else []
    reason = f"started with other settings or inputs ({'; '.join(changes or ['fingerprint'])})"
    if working.set_aside_folder(stage_run.final, current.fingerprint):
        return f"{reason}; resumes from the folder that was set aside for the current ones"
    return f"{reason}; restarts, and the unfinished work is set aside"


def published_manifest(stage_run: StageRun) -> dict[str, Any] | None:
    """Manifest of the artifact in the output folder, None if there is none.

    Raises LlamitaError for a folder of another origin or kind of stage, so that it is never overwritten.
    """
    if not stage_run.final.exists() or working.is_empty(stage_run.final):
        return None
    if not (stage_run.final / artifact.MANIFEST).is_file():
        raise LlamitaError(
            f"{stage_run.final}: exists, and llamita did not write it; move it, or choose another output"
        )
    manifest = artifact.read_manifest(stage_run.final)
    if manifest.get("stage") != stage_run.kind:
        raise LlamitaError(
            f"{stage_run.final}: holds the output of stage kind {manifest.get('stage')!r}, expected "
            f"{stage_run.kind!r}; move it, or choose another output"
        )
    return manifest


def _published_identity(stage_run: StageRun, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The identity in a manifest, with the keys of `Identity.as_dict`."""
    return {
        "settings": stage_run.settings.decisive(manifest.get("settings") or {}),
        "inputs": {name: stored.get("hash") for name, stored in (manifest.get("inputs") or {}).items()},
        "version": (manifest.get("versions") or {}).get("llamita"),
    }
