"""What a step is made from: by this a finished stage is known to be done, and an unfinished one resumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__, artifact, hashes, working
from ..data.source_hash import data_hash
from ..errors import LlamitaError
from ..settings import StageSettings
from ..yaml_file import brief


@dataclass(frozen=True)
class Step:
    """One stage of a run, resolved: what to make, from what, and where."""

    kind: str
    settings: StageSettings
    inputs: Mapping[str, Path]
    final: Path
    _: KW_ONLY
    processes: int = 1
    upstream: Mapping[str, str] = field(default_factory=dict)  # input name -> the stage that makes it
    pipeline_name: str | None = None  # `v1/ppo` of a stage in a round; None: that of its folder

    @property
    def name(self) -> str:
        return self.pipeline_name or self.final.name


@dataclass(frozen=True)
class Status:
    """Whether a step's artifact stands, and if not, why it is made (again)."""

    done: bool
    why: str
    seconds: float | None = None  # how long it took the last time


@dataclass(frozen=True)
class Identity:
    """Kind, deciding settings, contents of the inputs, version of the code."""

    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    version: str

    @property
    def fingerprint(self) -> str:
        return hashes.digest([self.kind, dict(self.settings), dict(self.inputs), self.version])

    def marker(self) -> dict[str, Any]:
        """What is noted in a folder that is begun for it."""
        named = {"settings": self.settings, "inputs": self.inputs, "version": self.version}
        return {"fingerprint": self.fingerprint, **named}

    def changes(self, before: Mapping[str, Any]) -> list[str]:
        """Old -> new, setting by setting and input by input; `before` has the names of the fields above."""
        old, new, missing = before["settings"], self.settings, object()
        found = [
            f"{key}: {_brief(old, key)} -> {_brief(new, key)}"
            for key in sorted({*old, *new})
            if old.get(key, missing) != new.get(key, missing)
        ]
        known, given = before["inputs"], self.inputs
        for name in sorted({*known, *given}):
            if known.get(name) != given.get(name):
                how = "is new" if name not in known else "is gone" if name not in given else None
                found.append(f"input {name} {how or 'has other contents'}")
        if before["version"] != self.version:
            found.append(f"llamita {before['version']} -> {self.version}")
        return found


def _brief(settings: Mapping[str, Any], key: str) -> str:
    return brief(settings[key]) if key in settings else "unset"


def identity(step: Step, hashes: Mapping[str, str], resuming: bool = False) -> Identity:
    """Where this has not changed the artifact is done; with `resuming`, an unfinished run resumes."""
    settings = step.settings.decisive(step.settings.fingerprinted(), resuming)
    return Identity(step.kind, settings, hashes, __version__)


def input_hashes(step: Step) -> dict[str, str]:
    """A hash of what the stage reads of each input. Raises DataError where something is missing."""
    read = step.settings.data_read(step.inputs)
    return {
        name: data_hash(read[name], path) if name in read else hashes.input_hash(path)
        for name, path in sorted(step.inputs.items())
    }


def status(step: Step) -> Status:
    """Compares what stands with what is asked for. Raises LlamitaError for a folder that is another's."""
    hashes = input_hashes(step)
    wanted = identity(step, hashes)
    manifest = standing(step)
    seconds = manifest.get("wall_seconds") if manifest else None
    if manifest and manifest.get("fingerprint") == wanted.fingerprint:
        return Status(True, "done", seconds)
    if (begun := working.begun_for(step.final)) is not None:
        return Status(False, f"unfinished, {_of_unfinished(step, begun, hashes)}", seconds)
    if manifest is None:
        return Status(False, "new")
    changes = wanted.changes(_of_manifest(step, manifest)) or ["its fingerprint"]
    return Status(False, f"changed: {'; '.join(changes)}", seconds)


def _of_unfinished(step: Step, begun: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    if not step.settings.resumable:
        return "starts again"
    wanted = identity(step, hashes, resuming=True)
    if begun["fingerprint"] == wanted.fingerprint:
        return "goes on"
    changes = wanted.changes(begun) if "settings" in begun else []
    since = f"begun with other settings or inputs ({'; '.join(changes or ['its fingerprint'])})"
    if working.set_aside_for(step.final, wanted.fingerprint):
        return f"{since}; resumes from what was set aside for these"
    return f"{since}; starts again, and what was made so far is set aside"


def standing(step: Step) -> dict[str, Any] | None:
    """The manifest of what was published before; anything else in its place is refused, never overwritten."""
    if not step.final.exists() or working.is_empty(step.final):
        return None
    if not (step.final / artifact.MANIFEST).is_file():
        raise LlamitaError(
            f"{step.final}: exists and was not made by llamita; move it away or name another output"
        )
    manifest = artifact.read_manifest(step.final)
    if manifest.get("stage") != step.kind:
        raise LlamitaError(
            f"{step.final}: holds the result of a {manifest.get('stage')!r} stage, not of {step.kind!r}; "
            "move it away or name another output"
        )
    return manifest


def _of_manifest(step: Step, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest with the names of `Identity`."""
    return {
        "settings": step.settings.decisive(manifest.get("settings") or {}),
        "inputs": {name: given.get("hash") for name, given in (manifest.get("inputs") or {}).items()},
        "version": (manifest.get("versions") or {}).get("llamita"),
    }
