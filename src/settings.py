"""Settings that all stages share; a stage's own settings are in its `settings.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from .deepspeed_file import DeepSpeedFile
from .yaml_file import flatten

RANK_TIMEOUT = 600.0  # seconds
Precision = Literal["float32", "bfloat16"]


class Settings(BaseModel):
    """Base class of every section of a YAML: immutable, without unknown keys or wrong types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Source(Settings):
    """A source of rows: a file, a folder or a data set on the Hub."""

    path: str
    """path below the stage's input `data`, absolute path, or id of a data set on the Hub"""
    format: str
    """format of the rows, one of those that docs/data.md lists"""
    split: str = "train"
    """split to read: of a data set on the Hub, or in a folder the files with that word in their names"""
    skip: int = Field(0, ge=0)
    """number of rows to skip (for example those that another stage trains on)"""
    limit: int | None = Field(None, ge=1)
    """maximum number of rows to read after the skipped ones; default: all"""


class StageSettings(Settings):
    """Settings that all stages have."""

    seed: int = 0
    """seed of every random draw; default in a pipeline: the pipeline's seed"""
    inputs: dict[str, str | dict[str, str]] = {}
    """inputs by name: each a folder, a model on the Hub as `org/name[@revision]`, or a section of these for
    an input that takes a list; set by the pipeline"""
    output: str | None = None
    """output folder of a stage that is started alone; set by the pipeline otherwise"""

    required_inputs: ClassVar[frozenset[str]] = frozenset()
    optional_inputs: ClassVar[frozenset[str]] = frozenset()
    listed_inputs: ClassVar[frozenset[str]] = frozenset()
    """inputs that take a list of folders, which may be empty or omitted; see `listed`"""
    any_inputs: ClassVar[bool] = False
    """whether inputs may have any names, besides the required ones"""
    publishes_language_model: ClassVar[bool] = False
    """whether `model/` of the artifact is a language model, so that `previous` and `all` can refer to it"""
    trainer_class: ClassVar[str | None] = None
    """class that defines the keys of the section `trainer:`, such as "trl.SFTConfig" """
    trainer_reserved: ClassVar[dict[str, str]] = {}
    """keys of `trainer:` that the stage sets itself, with the reason"""
    resumable: ClassVar[bool] = False
    """whether an unfinished run can resume from its working folder"""
    no_effect: ClassVar[frozenset[str]] = frozenset()
    """settings (`key` or `section.key`) without effect on the result, except for rounding; a change neither
    reruns a finished stage nor restarts an unfinished one"""
    resumes_with: ClassVar[frozenset[str]] = frozenset()
    """further settings that may change before an unfinished run resumes"""
    below: ClassVar[dict[str, str]] = {}
    """setting (`key` or `section.key`) -> input that its sources are below, if that input is given; otherwise
    they are below `data`"""

    deepspeed_files: ClassVar[tuple[str, ...]] = ()
    """settings with paths of DeepSpeed files, relative to the YAML"""
    paths: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """settings (keys of sections, then of the setting) with paths of files, relative to the YAML"""

    @classmethod
    def decisive(cls, settings: Mapping[str, Any], resuming: bool = False) -> dict[str, Any]:
        """The settings that affect the result, as `section.key: value`.

        Args:
            settings: all settings, as from `fingerprinted`.
            resuming: only those that must be unchanged for an unfinished run to resume.
        """
        ignored = cls.declared("no_effect")
        if resuming:
            ignored |= cls.declared("resumes_with")
        return {
            key: value
            for key, value in flatten(settings).items()
            if value != {} and not any(key == name or key.startswith(f"{name}.") for name in ignored)
        }

    @classmethod
    def declared(cls, name: str) -> frozenset[Any]:
        """The elements in the class variable `name` of this class and all its base classes."""
        return frozenset().union(*(vars(base).get(name, ()) for base in cls.__mro__))

    def all_sources(self) -> Iterator[tuple[str, Source]]:
        """(setting, source) of all sources, such as `prompts` or `prompts.harmful`, from the data inputs.

        The stage reads nothing else from these inputs.
        """
        for name in type(self).model_fields:
            yield from _sources_in(name, getattr(self, name))

    def data_read(self, inputs: Mapping[str, Path]) -> dict[str, list[Source]]:
        """Input name -> the sources below it, for the inputs from which only sources are read."""
        sources: dict[str, list[Source]] = {
            name: [] for name in {"data", *self.below.values()} & inputs.keys()
        }
        for setting, source in self.all_sources():
            sources[self.input_of(setting, inputs)].append(source)
        return sources

    def input_of(self, setting: str, inputs: Collection[str]) -> str:
        """Name of the input that a setting's sources are below, see `below`; `inputs`: those given."""
        name = self.below.get(setting, "data")
        return name if name in inputs else "data"

    def inputs_taken(self) -> tuple[frozenset[str], frozenset[str]]:
        """Names of the required and of the optional inputs of a stage with these settings.

        An input with sources (`below`) is taken only if a setting has some: it would rerun the stage for
        nothing.
        """
        read = {self.below.get(setting) for setting, _ in self.all_sources()}
        unread = set(self.below.values()) - read
        return self.required_inputs, self.optional_inputs - unread

    def folders(self) -> dict[str, str]:
        """Folders of the inputs by name, members of a list as `NAME.STAGE`."""
        return {name: value for name, value in flatten(self.inputs).items() if isinstance(value, str)}

    def fingerprinted(self) -> dict[str, Any]:
        """All settings without folders, and with the content of DeepSpeed files in place of their paths."""
        settings = self.model_dump(mode="json", exclude={"inputs", "output"})
        for name in self.deepspeed_files:
            if settings[name]:
                settings[name] = DeepSpeedFile.read(settings[name]).content
        return settings


class RankSettings(StageSettings):
    """A stage that can run on several ranks."""

    deepspeed: str | None = None
    """path of a ZeRO file, relative to this YAML; the `deepspeed` launcher then starts the stage"""
    rank_timeout: float = Field(RANK_TIMEOUT, gt=0)
    """seconds without progress on one of several ranks after which all ranks are stopped; also the limit of
    every collective (torch's timeout), plus a minute"""

    no_effect: ClassVar[frozenset[str]] = frozenset({"rank_timeout"})
    resumes_with: ClassVar[frozenset[str]] = frozenset({"deepspeed"})
    deepspeed_files: ClassVar[tuple[str, ...]] = ("deepspeed",)

    def problem_with_ranks(self, ranks: int) -> str | None:
        """What keeps a stage with these settings from running on so many ranks, or None."""
        return None


def listed(inputs: Mapping[str, Path], name: str) -> dict[str, Path]:
    """Folders of an input that takes a list, by the names of their stages, oldest first."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): path for key, path in inputs.items() if key.startswith(prefix)}


def _sources_in(setting: str, value: Any) -> Iterator[tuple[str, Source]]:
    if isinstance(value, Source):
        yield setting, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _sources_in(f"{setting}.{name}", getattr(value, name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _sources_in(setting, item)
