"""Blocks of rounds as plain stages, and what their inputs refer to: pure functions, no file is touched."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace

from ..document import KeyPath, nearest
from ..errors import ConfigError
from .entries import PipelineSettings, RoundsEntry, StageEntry

ALL, PREVIOUS = "all", "previous"


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


@dataclass(frozen=True)
class Reference:
    """What an input refers to: a stage of the pipeline by its name, or a root, path or model on the Hub."""

    text: str
    key: KeyPath
    """of the YAML, for errors"""
    is_stage: bool


class MisplacedError(ConfigError):
    """A name that can't be used where it is written, with its key in the YAML."""

    def __init__(self, key: KeyPath, problem: str) -> None:
        super().__init__(problem)
        self.key = key


# ------------------------------------------------------------------------------------------- expansion


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


# ------------------------------------------------------------------------------------------- references


def is_list(value: str | list[str]) -> bool:
    """Whether an input is written as a list, or refers to one."""
    return isinstance(value, list) or value == ALL or value.startswith(f"{ALL}.")


@dataclass(frozen=True)
class Resolver:
    """Finds what the inputs of one stage refer to."""

    placed: Sequence[PlacedStage]
    at: int
    """the stage's place among these"""
    _: KW_ONLY
    roots: Collection[str]
    publishes: Callable[[PlacedStage], bool]
    """whether a stage publishes a language model"""

    @property
    def stage(self) -> PlacedStage:
        return self.placed[self.at]

    @property
    def before(self) -> Sequence[PlacedStage]:
        return self.placed[: self.at]

    def one(self, text: str, key: KeyPath) -> Reference:
        """What a name refers to. Raises MisplacedError for the name of a stage that can't be taken here."""
        if text == PREVIOUS:
            return self._previous(key)
        in_round = [f"{self.stage.round}/{text}"] if self.stage.block else []
        for name in (*in_round, text):
            if any(stage.name == name for stage in self.before):
                return Reference(name, key, is_stage=True)
        if text not in self.roots and (problem := self._why_not(text)):
            raise MisplacedError(key, problem)
        return Reference(text, key, is_stage=False)

    def several(self, value: str | list[str], key: KeyPath) -> list[Reference]:
        """What an input that takes a list refers to, each once."""
        if isinstance(value, list):
            nested = [self.several(one, (*key, index)) for index, one in enumerate(value)]
            return list({one.text: one for many in nested for one in many}.values())
        if not is_list(value):
            return [self.one(value, key)]
        return [Reference(stage.name, key, is_stage=True) for stage in self._all(value, key)]

    def names(self) -> list[str]:
        """What an input of this stage may be called by, beside paths and models on the Hub."""
        same_round = [one.entry.name for one in self.before if one.block and one.round == self.stage.round]
        previous = [PREVIOUS] if self.stage.block else []
        return [*same_round, *previous, *(one.name for one in self.before), *self.roots]

    def _all(self, text: str, key: KeyPath) -> Iterator[PlacedStage]:
        """Those before this stage; there may be none yet where later rounds have some."""
        name = None if text == ALL else text.removeprefix(f"{ALL}.")
        same_block = [one for one in self.placed[self.at :] if one.block and one.block is self.stage.block]

        def matches(one: PlacedStage) -> bool:
            return one.entry.name == name if name is not None else bool(one.block) and self.publishes(one)

        if not any(map(matches, (*self.before, *same_block))):
            names = list(dict.fromkeys(one.entry.name for one in (*self.before, *same_block)))
            what = (
                "no round has a stage that publishes a language model"
                if name is None
                else (f"no stage {name!r}{nearest(name, names)}; there are {', '.join(names)}")
            )
            raise MisplacedError(key, f"{text}: before this one, {what}")
        return filter(matches, self.before)

    def _previous(self, key: KeyPath) -> Reference:
        """The newest model of an earlier round of this block, or what the block begins with."""
        block = self.stage.block
        if block is None:
            raise MisplacedError(key, "`previous` has a meaning only in a block of rounds; name a stage")
        rounds = [one for one in self.before if one.block is block and one.round != self.stage.round]
        models = [one.name for one in rounds if self.publishes(one)]
        if models:
            return Reference(models[-1], key, is_stage=True)
        if block.previous is None:
            raise MisplacedError(
                key,
                f"no model comes before round {self.stage.round!r}; say beside `rounds` what the first one "
                "begins with: `previous: STAGE`",
            )
        place = (*self.stage.place[:-2], PREVIOUS)
        if block.previous == PREVIOUS or is_list(block.previous):
            raise MisplacedError(place, f"expected one stage or root, found {block.previous!r}")
        first = next(index for index, one in enumerate(self.placed) if one.block is block)
        return replace(self, at=first).one(block.previous, place)

    def _why_not(self, text: str) -> str | None:
        """Why a text that is the name of some stage means none here; None if it is no such name."""
        later = [one.name for one in self.placed[self.at :]]
        round_name, slash, inner = text.partition("/")
        here = self.stage
        if text in later or (here.round and f"{here.round}/{text}" in later):
            return f"stage {text!r} does not come before; put it above this one"
        of_name = [one for one in self.placed if one.round and one.entry.name == text]
        if here.block and (mine := [one for one in of_name if one.block is here.block]):
            rounds = ", ".join(str(one.round) for one in mine)
            return f"stage {text!r} is not in round {here.round!r}, only in {rounds}"
        if of_name:
            names = [one.name for one in of_name]
            return f"{text!r} is in several rounds; expected one of {', '.join(names)}; all.{text} is a list"
        if slash and (of_round := [one for one in self.placed if one.round == round_name]):
            names = [one.name for one in of_round]
            return (
                f"no stage {inner!r} in round {round_name!r}{nearest(text, names)}; it has {', '.join(names)}"
            )
        return None
