"""What the settings of every stage have in common; a stage's own are in its `settings.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from .deepspeed_file import DeepSpeedFile
from .yaml_file import flatten

Precision = Literal["float32", "bfloat16"]


class Settings(BaseModel):
    """Base of every section of a YAML: unknown keys and wrong types are refused, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(Settings):
    """Where rows come from: `path` is below the stage's input `data`, or absolute, or a Hub id."""

    path: str
    format: str
    """format of the rows, one of those that docs/data.md lists"""
    split: str = "train"
    """of a Hub data set"""
    skip: int = Field(0, ge=0)
    """so many rows are passed over first, as those that another stage trains on"""
    limit: int | None = Field(None, ge=1)
    """at most so many rows, from there"""


class StageSettings(Settings):
    """What every stage's YAML may say, and what a stage declares about itself."""

    seed: int = 0
    """of every draw; in a pipeline its own seed is the default"""
    inputs: dict[str, str | dict[str, str]] = {}
    """input name -> folder, or a model on the Hub as org/name[@revision], or for an input that takes a list a
    section of these; the pipeline fills it"""
    output: str | None = None
    """the artifact's folder, for a stage that is started alone"""

    required_inputs: ClassVar[frozenset[str]] = frozenset()
    optional_inputs: ClassVar[frozenset[str]] = frozenset()
    listed_inputs: ClassVar[frozenset[str]] = frozenset()
    """inputs that take a list of folders, which may be empty or left out; see `listed`"""
    any_inputs: ClassVar[bool] = False
    """True: inputs may have any names, beside those that are required"""
    publishes_language_model: ClassVar[bool] = False
    """True: `model/` of the artifact is a language model; `previous` and `all` in a pipeline refer to such"""
    trainer_class: ClassVar[str | None] = None
    """whose names the section `trainer:` takes, as "trl.SFTConfig" """
    trainer_reserved: ClassVar[dict[str, str]] = {}
    """name -> why the stage sets it itself"""
    resumable: ClassVar[bool] = False
    """True: the working folder of an unfinished run is kept for the next one"""
    no_effect: ClassVar[frozenset[str]] = frozenset()
    """settings (`key` or `section.key`) that change no result, at most its rounding: finished and unfinished
    work is kept when they change"""
    resumes_with: ClassVar[frozenset[str]] = frozenset()
    """further settings that an unfinished run may resume with when they have changed"""
    below: ClassVar[dict[str, str]] = {}
    """setting -> input that its sources are below, where that is given; all others are below `data`"""

    @classmethod
    def decisive(cls, settings: Mapping[str, Any], resuming: bool = False) -> dict[str, Any]:
        """Of all `settings`, as `section.key: value`, those that decide the result.

        `resuming`: only those that an unfinished run can't resume without.
        """
        without = cls.declared("no_effect")
        if resuming:
            without |= cls.declared("resumes_with")
        return {
            key: value
            for key, value in flatten(settings).items()
            if value != {} and not any(key == name or key.startswith(f"{name}.") for name in without)
        }

    @classmethod
    def declared(cls, name: str) -> frozenset[str]:
        """The names that this class and all that it is made of declare."""
        return frozenset().union(*(vars(part).get(name, ()) for part in cls.__mro__))

    def all_sources(self) -> Iterator[tuple[str, Source]]:
        """All sources with the setting that names them: nothing else is read of the inputs that hold data."""
        for name in type(self).model_fields:
            for source in _sources_in(getattr(self, name)):
                yield name, source

    def data_read(self, inputs: Mapping[str, Path]) -> dict[str, list[Source]]:
        """Input name -> the sources below it, for those inputs of which only named files are read."""
        read: dict[str, list[Source]] = {name: [] for name in {"data", *self.below.values()} & inputs.keys()}
        for setting, source in self.all_sources():
            name = self.below.get(setting, "data")
            read[name if name in read else "data"].append(source)
        return read

    def inputs_taken(self) -> tuple[frozenset[str], frozenset[str]]:
        """Names of the inputs that a stage with these settings needs, and of those that it may be given."""
        return self.required_inputs, self.optional_inputs

    def folders(self) -> dict[str, str]:
        """The inputs by their names, those of a list as `NAME.STAGE`."""
        return {name: value for name, value in flatten(self.inputs).items() if isinstance(value, str)}

    def fingerprinted(self) -> dict[str, Any]:
        """The settings that decide what a stage makes: no folders, a DeepSpeed file as its content."""
        settings = self.model_dump(mode="json", exclude={"inputs", "output"})
        if settings.get("deepspeed"):
            settings["deepspeed"] = DeepSpeedFile.read(settings["deepspeed"]).content
        return settings


def listed(inputs: Mapping[str, Path], name: str) -> dict[str, Path]:
    """The folders of an input that takes a list, by the stages that made them, oldest first."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): path for key, path in inputs.items() if key.startswith(prefix)}


def _sources_in(value: Any) -> Iterator[Source]:
    if isinstance(value, Source):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _sources_in(getattr(value, name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sources_in(item)
