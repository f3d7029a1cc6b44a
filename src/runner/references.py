"""Resolves the inputs of a stage to stages, rounds and roots. Pure functions without file access."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace

from ..yaml_file import KeyPath, nearest
from .rounds import MisplacedError, PlacedStage

ALL, PREVIOUS = "all", "previous"


@dataclass(frozen=True)
class Reference:
    """The target of an input: a stage of the pipeline, or else a root, a path or a model on the Hub."""

    text: str
    key: KeyPath
    """place in the YAML, for errors"""
    is_stage: bool


def is_list(value: str | list[str]) -> bool:
    """Whether an input is a list, or a name for one (`all`, `all.STAGE`)."""
    return isinstance(value, list) or value == ALL or value.startswith(f"{ALL}.")


@dataclass(frozen=True)
class Resolver:
    """Resolves the inputs of one stage."""

    placed: Sequence[PlacedStage]
    index: int
    """index of the stage in `placed`"""
    _: KW_ONLY
    roots: Collection[str]
    publishes: Callable[[PlacedStage], bool]
    """whether a stage publishes a language model"""

    @property
    def stage(self) -> PlacedStage:
        return self.placed[self.index]

    @property
    def before(self) -> Sequence[PlacedStage]:
        return self.placed[: self.index]

    def reference(self, text: str, key: KeyPath) -> Reference:
        """The reference of one name. Raises MisplacedError for a stage that cannot be used here."""
        if text == PREVIOUS:
            return self._previous(key)
        in_round = [f"{self.stage.round}/{text}"] if self.stage.block else []
        for name in (*in_round, text):
            if any(stage.name == name for stage in self.before):
                return Reference(name, key, is_stage=True)
        if text not in self.roots and (problem := self._unusable_stage(text)):
            raise MisplacedError(key, problem)
        return Reference(text, key, is_stage=False)

    def references(self, value: str | list[str], key: KeyPath) -> list[Reference]:
        """The references of an input that takes a list, without duplicates."""
        if isinstance(value, list):
            nested = [self.references(item, (*key, index)) for index, item in enumerate(value)]
            return list({reference.text: reference for list_ in nested for reference in list_}.values())
        if not is_list(value):
            return [self.reference(value, key)]
        return [Reference(stage.name, key, is_stage=True) for stage in self._all(value, key)]

    def names(self) -> list[str]:
        """Names that an input of this stage may have, besides paths and models on the Hub."""
        same_round = [
            stage.entry.name for stage in self.before if stage.block and stage.round == self.stage.round
        ]
        previous = [PREVIOUS] if self.stage.block else []
        return [*same_round, *previous, *(stage.name for stage in self.before), *self.roots]

    def _all(self, text: str, key: KeyPath) -> Iterator[PlacedStage]:
        """The matching stages before this one; none yet is allowed if later rounds have one."""
        name = None if text == ALL else text.removeprefix(f"{ALL}.")
        same_block = [
            stage for stage in self.placed[self.index :] if stage.block and stage.block is self.stage.block
        ]

        def matches(stage: PlacedStage) -> bool:
            if name is not None:
                return stage.entry.name == name
            return bool(stage.block) and self.publishes(stage)

        if not any(map(matches, (*self.before, *same_block))):
            names = list(dict.fromkeys(stage.entry.name for stage in (*self.before, *same_block)))
            problem = (
                "no stage of a round before this one publishes a language model"
                if name is None
                else f"no stage {name!r} before this one{nearest(name, names)}; there are {', '.join(names)}"
            )
            raise MisplacedError(key, f"{text}: {problem}")
        return filter(matches, self.before)

    def _previous(self, key: KeyPath) -> Reference:
        """The newest model of the earlier rounds of this block, or else the block's `previous`."""
        block = self.stage.block
        if block is None:
            raise MisplacedError(key, "`previous` is only defined in a block of rounds; name a stage instead")
        earlier = [stage for stage in self.before if stage.block is block and stage.round != self.stage.round]
        models = [stage.name for stage in earlier if self.publishes(stage)]
        if models:
            return Reference(models[-1], key, is_stage=True)
        if block.previous is None:
            raise MisplacedError(
                key,
                f"no round before {self.stage.round!r} publishes a language model; add `previous: STAGE` "
                "beside `rounds`, the model that the first round starts from",
            )
        place = (*self.stage.place[:-2], PREVIOUS)
        if block.previous == PREVIOUS or is_list(block.previous):
            raise MisplacedError(place, f"expected one stage or root, found {block.previous!r}")
        first = next(index for index, stage in enumerate(self.placed) if stage.block is block)
        return replace(self, index=first).reference(block.previous, place)

    def _unusable_stage(self, text: str) -> str | None:
        """The reason why the name of a stage cannot be used here; None if no stage has this name."""
        later = [stage.name for stage in self.placed[self.index :]]
        round_name, slash, inner = text.partition("/")
        here = self.stage
        if text in later or (here.round and f"{here.round}/{text}" in later):
            return f"stage {text!r} does not come before this one; move it up"
        same_name = [stage for stage in self.placed if stage.round and stage.entry.name == text]
        if here.block and (own := [stage for stage in same_name if stage.block is here.block]):
            rounds = ", ".join(str(stage.round) for stage in own)
            return f"stage {text!r} is not in round {here.round!r}, only in {rounds}"
        if same_name:
            names = ", ".join(stage.name for stage in same_name)
            return f"{text!r} exists in several rounds; expected one of {names}, or all.{text} for the list"
        if slash and (same_round := [stage for stage in self.placed if stage.round == round_name]):
            names = ", ".join(stage.name for stage in same_round)
            hint = nearest(text, [stage.name for stage in same_round])
            return f"no stage {inner!r} in round {round_name!r}{hint}; it has {names}"
        return None
