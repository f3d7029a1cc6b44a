"""Blocks of rounds as plain stages: pure functions, no file is touched."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, dataclass

from ..errors import ConfigError
from ..yaml_file import KeyPath, nearest
from .entries import PipelineSettings, RoundsEntry, StageEntry


@dataclass(frozen=True)
class PlacedStage:
    """A stage of the run: its entry, where that is in the YAML, and the round and block that it is in."""

    name: str
    """`sft`, or `v1/ppo` in a round"""
    entry: StageEntry
    place: KeyPath
    _: KW_ONLY
    round: str | None = None
    block: RoundsEntry | None = None


class MisplacedError(ConfigError):
    """A name that can't be used where it is written, with its key in the YAML."""

    def __init__(self, key: KeyPath, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def expand(settings: PipelineSettings) -> list[PlacedStage]:
    """All stages in the order in which they run. Raises MisplacedError for names that don't fit together."""
    placed: list[PlacedStage] = []
    rounds: set[str] = set()
    for index, entry in enumerate(settings.stages):
        new = _placed(entry, ("stages", index))
        if isinstance(entry, RoundsEntry):
            _check_block(entry, ("stages", index), rounds)
            rounds.update(entry.rounds)
        for stage in new:
            _check_name(stage, placed)
            placed.append(stage)
    for stage in placed:
        if stage.name in rounds:
            raise MisplacedError((*stage.place, "name"), f"{stage.name!r} is the name of a round already")
    return placed


def _placed(entry: StageEntry | RoundsEntry, place: KeyPath) -> list[PlacedStage]:
    if isinstance(entry, StageEntry):
        return [PlacedStage(entry.name, entry, place)]
    return [
        PlacedStage(f"{name}/{inner.name}", inner, (*place, "stages", index), round=name, block=entry)
        for name in entry.rounds
        for index, inner in enumerate(entry.stages)
        if inner.only is None or name in inner.only
    ]


def _check_block(block: RoundsEntry, place: KeyPath, earlier: Collection[str]) -> None:
    for index, name in enumerate(block.rounds):
        if name in earlier or name in block.rounds[:index]:
            raise MisplacedError((*place, "rounds", index), f"there is a round {name!r} above already")
    for index, inner in enumerate(block.stages):
        for number, name in enumerate(inner.only or ()):
            if name not in block.rounds:
                raise MisplacedError(
                    (*place, "stages", index, "only", number),
                    f"no round {name!r} in this block{nearest(name, block.rounds)}; "
                    f"expected one of {', '.join(block.rounds)}",
                )


def _check_name(stage: PlacedStage, before: Sequence[PlacedStage]) -> None:
    entry, key = stage.entry, (*stage.place, "name")
    if entry.name in PipelineSettings.model_fields:
        raise MisplacedError(key, f"{entry.name!r} is a key of the pipeline; choose another name")
    if stage.block is None and entry.only is not None:
        raise MisplacedError((*stage.place, "only"), "this stage is in no block of rounds; leave `only` out")
    if any(other.name == stage.name for other in before):
        hint = "; entries of one name need `only` with different rounds" if stage.block else ""
        raise MisplacedError(key, f"there is a stage {stage.name!r} above already{hint}")


def not_in_round(name: str, names: Collection[str]) -> str | None:
    """Why there is no `v1/ppo`, where other rounds have this stage; None if they have none."""
    round_name, _, inner = name.rpartition("/")
    if not round_name or name in names:
        return None
    there = [one for one in names if one.endswith(f"/{inner}")]
    return f"no stage {inner!r} in round {round_name!r}; there are {', '.join(there)}" if there else None
