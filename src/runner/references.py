"""What the inputs of a stage refer to: stages, rounds, roots. Pure functions, no file is touched."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace

from ..yaml_file import KeyPath, nearest
from .rounds import MisplacedError, PlacedStage

ALL, PREVIOUS = "all", "previous"


@dataclass(frozen=True)
class Reference:
    """What an input refers to: a stage of the pipeline by its name, or a root, path or model on the Hub."""

    text: str
    key: KeyPath
    """of the YAML, for errors"""
    is_stage: bool


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
