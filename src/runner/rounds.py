"""Expands blocks of rounds to a list of stages. Pure functions without file access."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import KW_ONLY, dataclass

from ..errors import ConfigError
from ..yaml_file import KeyPath, nearest
from .entries import PipelineSettings, RoundsEntry, StageEntry


@dataclass(frozen=True)
class PlacedStage:
    """A stage of the run: its entry, the place of that in the YAML, and its round and block."""

    name: str
    """`sft`, or `v1/ppo` in a round"""
    entry: StageEntry
    place: KeyPath
    _: KW_ONLY
    round: str | None = None
    block: RoundsEntry | None = None


class MisplacedError(ConfigError):
    """A name that cannot be used at its place (`key`) in the YAML."""

    def __init__(self, key: KeyPath, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def expand(settings: PipelineSettings) -> list[PlacedStage]:
    """All stages in the order in which they run. Raises MisplacedError for duplicate or unknown names."""
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
            raise MisplacedError((*stage.place, "name"), f"{stage.name!r} is already the name of a round")
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
            raise MisplacedError((*place, "rounds", index), f"duplicate round {name!r}")
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
        raise MisplacedError(key, f"{entry.name!r} is a key of the pipeline file; choose another name")
    if stage.block is None and entry.only is not None:
        raise MisplacedError(
            (*stage.place, "only"), "only stages of a block of rounds can have `only`; remove it"
        )
    if any(other.name == stage.name for other in before):
        hint = "; entries with the same name need `only` with different rounds" if stage.block else ""
        raise MisplacedError(key, f"duplicate stage {stage.name!r}{hint}")


def not_in_round(name: str, names: Collection[str]) -> str | None:
    """The reason why `v1/ppo` does not exist, if other rounds have that stage; otherwise None."""
    round_name, _, inner = name.rpartition("/")
    if not round_name or name in names:
        return None
    existing = [other for other in names if other.endswith(f"/{inner}")]
    if not existing:
        return None
    return f"no stage {inner!r} in round {round_name!r}; expected one of {', '.join(existing)}"
