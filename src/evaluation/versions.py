"""The models to compare: `sft` and the versions that later stages made of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact import MANIFEST, read_manifest
from ..console import say
from ..errors import DataError
from ..hashes import input_hash

SFT = "sft"


@dataclass(frozen=True)
class Version:
    """A model to compare, and the name of the version that its PPO started from, if that is compared too."""

    name: str
    folder: Path
    start: str | None = None


def list_versions(sft: Path, later: Mapping[str, Path]) -> list[Version]:
    """`sft` and the later versions in their order; manifests show which of them a version started from.

    Raises:
        DataError: a name that can't be a folder, or two names whose folders would be one inside the other.
    """
    folders = {SFT: sft}
    for name, folder in later.items():
        _check_name(name, folders)
        folders[name] = folder
    hashes = {name: input_hash(folder) for name, folder in folders.items()}
    versions = []
    for name, folder in folders.items():
        wanted = _hash_of_start(folder)
        others = (other for other, found in hashes.items() if found == wanted and other != name)
        start = next(others, None)
        if wanted is not None and start is None:
            say(f"{name}: kl_to_start is not measured: the model that it started from is not compared")
        versions.append(Version(name, folder, start))
    return versions


def _check_name(name: str, before: Mapping[str, Any]) -> None:
    if not re.fullmatch(r"[\w@-][\w.@-]*(/[\w@-][\w.@-]*)*", name, re.ASCII):
        raise DataError(
            f"input versions: {name!r} becomes a folder; expected letters, digits, '.', '-', '_', '@', "
            "separated by '/', and no '.' in front"
        )
    for other in before:
        if f"{name}/".startswith(f"{other}/") or f"{other}/".startswith(f"{name}/"):
            raise DataError(
                f"input versions: {name!r} can't be compared beside {other!r}, their results would share a "
                "folder; expected names of which none begins another, and `sft` as the input sft alone"
            )


def _hash_of_start(folder: Path) -> str | None:
    """The hash of the input `start` of the stage that made a model; a plain folder of weights has none."""
    if not (folder / MANIFEST).is_file():
        return None
    inputs: dict[str, Any] = read_manifest(folder).get("inputs") or {}
    return (inputs.get("start") or {}).get("hash")
