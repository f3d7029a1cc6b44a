"""What a `pipeline.yaml` says: stages in order, and blocks of stages that are repeated in rounds."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from ..settings import Settings

RESERVED = ("all", "previous")  # these mean something in the inputs of an entry


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name!r} becomes a folder: letters, digits, '-' and '_' only")
    return name


def _own_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} has a meaning in the inputs of a stage; choose another name")
    return _folder_name(name)


FolderName = Annotated[str, AfterValidator(_folder_name)]
OwnName = Annotated[str, AfterValidator(_own_name)]


class StageEntry(Settings):
    """One stage of a pipeline."""

    name: OwnName
    """stage name: its output folder, and how later stages refer to it"""
    stage: str
    """its kind"""
    config: str | None = None
    """its YAML, relative to this one; may be left out where `with` and the defaults say everything"""
    with_: dict[str, Any] = Field({}, alias="with")
    """settings that replace those of its YAML, as sections or dotted keys (`trainer.max_steps: 9`)"""
    inputs: dict[str, str | list[str]] = {}
    """input name -> an earlier stage, a root, a path, or a model on the Hub as org/name[@revision]; in a
    block: `previous`; for an input that takes a list: `all`, `all.STAGE` or a list of these"""
    processes: Annotated[int, Field(ge=1)] = 1
    """ranks of a stage whose YAML names a DeepSpeed file"""
    only: Annotated[list[str], Field(min_length=1)] | None = None
    """in a block of rounds: the rounds that have this stage; default: all of them"""


class RoundsEntry(Settings):
    """A block of stages that is repeated in rounds; stage `ppo` of round `v1` is called `v1/ppo`."""

    rounds: Annotated[list[OwnName], Field(min_length=1)]
    """names of the rounds, in order"""
    previous: str | None = None
    """what `previous` means in the first round: an earlier stage, a root, a path, or a model on the Hub"""
    stages: Annotated[list[StageEntry], Field(min_length=1)]
    """of each round, in the order in which they run"""


def _kind_of_entry(entry: Any) -> str:
    return "block" if isinstance(entry, dict) and {"rounds", "stages"} & entry.keys() else "single"


Entry = Annotated[
    Annotated[StageEntry, Tag("single")] | Annotated[RoundsEntry, Tag("block")], Discriminator(_kind_of_entry)
]


class PipelineSettings(Settings):
    """A `pipeline.yaml`."""

    name: FolderName
    """of the run: its folder is `runs/<name>`"""
    seed: int = 0
    """every stage's, unless its own YAML sets one"""
    roots: dict[OwnName, str | None] = {}
    """folders given on the command line: `roots.data=FOLDER` for `{data: null}`"""
    stages: list[Entry]
    """stages and blocks of rounds, in the order in which they run"""
