"""Settings of a `pipeline.yaml`: stages in order, and blocks of stages that are repeated in rounds."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag

from ..settings import Settings

RESERVED = ("all", "previous")  # they have a meaning in `inputs`


def _folder_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name!r} is not a valid folder name; expected letters, digits, '-' and '_'")
    return name


def _own_name(name: str) -> str:
    if name in RESERVED:
        raise ValueError(f"{name!r} has a special meaning in the inputs of a stage; choose another name")
    return _folder_name(name)


FolderName = Annotated[str, AfterValidator(_folder_name)]
OwnName = Annotated[str, AfterValidator(_own_name)]


class StageEntry(Settings):
    """One stage of a pipeline."""

    name: OwnName
    """stage name: its output folder, and how later stages refer to it"""
    stage: str
    """kind of the stage, such as `sft`"""
    config: str | None = None
    """path of the stage's YAML, relative to this file; optional if `with` and the defaults are enough"""
    with_: dict[str, Any] = Field({}, alias="with")
    """settings that replace those of the stage's YAML, as sections or dotted keys (`trainer.max_steps: 9`)"""
    inputs: dict[str, str | list[str]] = {}
    """inputs by name: each an earlier stage, a root, a path, or a model on the Hub as `org/name[@revision]`;
    in a block also `previous`; for an input that takes a list also `all`, `all.STAGE` or a list of these"""
    processes: Annotated[int, Field(ge=1)] = 1
    """number of ranks; more than 1 only for a stage with a DeepSpeed file"""
    only: Annotated[list[str], Field(min_length=1)] | None = None
    """rounds of the block that have this stage; default: all rounds"""


class RoundsEntry(Settings):
    """A block of stages that is repeated in rounds; stage `ppo` of round `v1` is called `v1/ppo`."""

    rounds: Annotated[list[OwnName], Field(min_length=1)]
    """names of the rounds, in order"""
    previous: str | None = None
    """meaning of `previous` in the first round: an earlier stage, a root, a path, or a model on the Hub"""
    stages: Annotated[list[StageEntry], Field(min_length=1)]
    """stages of each round, in the order in which they run"""


def _kind_of_entry(entry: Any) -> str:
    return "block" if isinstance(entry, dict) and {"rounds", "stages"} & entry.keys() else "single"


Entry = Annotated[
    Annotated[StageEntry, Tag("single")] | Annotated[RoundsEntry, Tag("block")], Discriminator(_kind_of_entry)
]


class PipelineSettings(Settings):
    """A pipeline: stages in the order in which they run (docs/pipeline.md)."""

    name: FolderName
    """name of the run, which is written to `runs/<name>`"""
    seed: int = 0
    """seed of every stage whose own YAML sets none"""
    roots: dict[OwnName, str | None] = {}
    """names of input folders; with `{data: null}`, pass `roots.data=FOLDER` on the command line"""
    stages: list[Entry]
    """stages and blocks of rounds, in the order in which they run"""
