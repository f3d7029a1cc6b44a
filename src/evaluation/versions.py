"""The models to compare: `sft` and the versions trained from it by later stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact import MANIFEST, check_version_name, read_manifest
from ..console import say
from ..errors import DataError
from ..hashes import input_hash
from ..model.checkpoint import load_tokenizer, tokenizer_hash

SFT = "sft"


@dataclass(frozen=True)
class Version:
    """A model to compare. `start`: the version that its PPO started from, if that is compared as well."""

    name: str
    folder: Path
    start: str | None = None


def list_versions(sft: Path, later: Mapping[str, Path]) -> list[Version]:
    """Returns `sft` and the later versions in their order; manifests contain the version each started from.

    Raises:
        DataError: a name can't be a folder, or the folder of one name would contain that of another.
    """
    folders = {SFT: sft}
    for name, folder in later.items():
        _check_name(name, folders, "versions")
        folders[name] = folder
    hashes = {name: input_hash(folder) for name, folder in folders.items()}
    versions = []
    for name, folder in folders.items():
        start_hash = _hash_of_start(folder)
        matches = (other for other, hash in hashes.items() if hash == start_hash and other != name)
        start = next(matches, None)
        if start_hash is not None and start is None:
            say(f"{name}: kl_to_start is not measured: the model it started from is not among the versions")
        versions.append(Version(name, folder, start))
    return versions


def list_ablations(folders: Mapping[str, Path]) -> list[Version]:
    """Returns the ablations in their order. Raises DataError as `list_versions`."""
    seen: dict[str, Path] = {}
    for name, folder in folders.items():
        _check_name(name, seen, "ablations")
        seen[name] = folder
    return [Version(name, folder) for name, folder in folders.items()]


def check_tokenizers(models: Iterable[Version], sft: Path) -> None:
    """Raises DataError if a model's tokenizer differs from that of `sft`, so that they can't be compared."""
    expected = tokenizer_hash(load_tokenizer(sft))
    for model in models:
        if tokenizer_hash(load_tokenizer(model.folder)) != expected:
            raise DataError(
                f"{model.folder}: the tokenizer of version {model.name!r} differs from that of "
                f"{sft}; only versions of one model can be compared"
            )


def _check_name(name: str, others: Mapping[str, Any], kind: str) -> None:
    check_version_name(name, kind)
    for other in others:
        if f"{name}/".startswith(f"{other}/") or f"{other}/".startswith(f"{name}/"):
            raise DataError(
                f"input {kind}: the results of {name!r} and {other!r} would share a folder; expected names "
                "that do not begin with another name and `/`, and `sft` only as the input sft"
            )


def _hash_of_start(folder: Path) -> str | None:
    """Returns the hash of the model that a stage trained from (input `start`); None without a manifest."""
    if not (folder / MANIFEST).is_file():
        return None
    inputs: dict[str, Any] = read_manifest(folder).get("inputs") or {}
    return (inputs.get("start") or {}).get("hash")
