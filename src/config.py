"""YAML -> typed settings. A wrong key or value says file, line, key, what is allowed and the nearest right name."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import importlib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from .errors import ConfigError

KeyPath = tuple[str | int, ...]
S = TypeVar("S", bound="Settings")


class Settings(BaseModel):
    """Base of every section of a YAML: unknown keys and wrong types are refused, values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StageSettings(Settings):
    """What every stage's YAML may say, and what a stage declares about itself."""

    seed: int = 0
    inputs: dict[str, str] = {}  # input name -> folder; the pipeline fills it
    output: str | None = None  # the artifact's folder, for a stage that is started alone

    required_inputs: ClassVar[frozenset[str]] = frozenset()
    optional_inputs: ClassVar[frozenset[str]] = frozenset()
    trainer_class: ClassVar[str | None] = None  # whose names the section `trainer:` takes, as "trl.SFTConfig"
    trainer_reserved: ClassVar[dict[str, str]] = {}  # name -> why the stage sets it itself
    resumable: ClassVar[bool] = False  # True: an unfinished working folder is kept for the next run

    def fingerprinted(self) -> dict[str, Any]:
        """The settings that decide what a stage makes: without folders, a DeepSpeed file by its content."""
        settings = self.model_dump(mode="json", exclude={"inputs", "output"})
        if settings.get("deepspeed"):
            settings["deepspeed"] = json.loads(Path(settings["deepspeed"]).read_text(encoding="utf-8"))
        return settings


class Source(Settings):
    """Where rows come from: `path` is below the stage's input `data`, or absolute, or a Hub id."""

    path: str
    format: str
    split: str = "train"
    limit: int | None = None  # at most so many rows, from the start


@dataclasses.dataclass
class Document:
    """A YAML file as plain data that still knows the line, or the override, that each key came from."""

    path: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int]
    overrides: dict[KeyPath, str] = dataclasses.field(default_factory=dict)

    def where(self, key: KeyPath) -> str:
        """`file:line` of a key or of the nearest section around it, or the override that set it."""
        for end in range(len(key), -1, -1):
            if key[:end] in self.overrides:
                return f"override '{self.overrides[key[:end]]}'"
            if key[:end] in self.lines:
                return f"{self.path}:{self.lines[key[:end]]}"
        return str(self.path)

    def error(self, key: KeyPath, problem: str) -> ConfigError:
        return ConfigError(f"{self.where(key)}: {dotted(key)}: {problem}" if key else f"{self.path}: {problem}")

    def override(self, text: str) -> None:
        """Applies one `key.subkey=value`; the value is read as YAML, `null` included."""
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"override '{text}': expected key=value, as in trainer.learning_rate=1e-3")
        key: KeyPath = tuple(int(part) if part.isdigit() else part for part in name.strip().split("."))
        parent: Any = self.data
        for depth, part in enumerate(key[:-1]):
            if isinstance(parent, dict) and parent.get(part) is None:
                parent[part] = {}
            parent = _child(parent, part, text, dotted(key[: depth + 1]))
        if isinstance(parent, list):
            _child(parent, key[-1], text, dotted(key))
        elif not isinstance(parent, dict):
            raise ConfigError(f"override '{text}': {dotted(key[:-1])} is no section, it has no key {key[-1]!r}")
        parent[key[-1]] = _parse(value, f"override '{text}'")
        self.overrides = {old: by for old, by in self.overrides.items() if old[: len(key)] != key}
        self.overrides[key] = text


def _child(parent: Any, part: str | int, text: str, name: str) -> Any:
    try:
        return parent[part]
    except (KeyError, IndexError, TypeError):
        raise ConfigError(f"override '{text}': there is no {name} to change") from None


def dotted(key: KeyPath) -> str:
    return ".".join(map(str, key))


def nearest(name: object, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the most similar allowed name, or nothing where none is similar."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def read_document(path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """Reads a YAML mapping (version 1.2, duplicate keys refused) and applies `key=value` overrides.

    Raises ConfigError: no such file, no YAML (with its line), not a mapping, a wrong override.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{_similar_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    data = _parse(text, str(path))
    if not isinstance(data, dict):
        found = "nothing" if data is None else _shown(data)
        raise ConfigError(f"{path}: expected `key: value` lines, found {found}")
    lines: dict[KeyPath, int] = {}
    _collect_lines(YAML(typ="safe", pure=True).compose(text), (), lines)
    document = Document(path, data, lines)
    for override in overrides:
        document.override(override)
    return document


def _similar_file(path: Path) -> str:
    return nearest(path.name, [p.name for p in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""


def _parse(text: str, origin: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark and not origin.startswith("override") else ""
        raise ConfigError(f"{origin}{line}: no valid YAML: {error.problem or error.context}") from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{origin}: no valid YAML: {error}") from None


def _collect_lines(node: Node, key: KeyPath, lines: dict[KeyPath, int]) -> None:
    if isinstance(node, MappingNode):
        for name, value in node.value:
            lines.setdefault((*key, name.value), name.start_mark.line + 1)
            _collect_lines(value, (*key, name.value), lines)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            lines.setdefault((*key, index), value.start_mark.line + 1)
            _collect_lines(value, (*key, index), lines)


def load_settings(path: str | Path, schema: type[S], overrides: Sequence[str] = ()) -> S:
    """Reads a stage's YAML into its settings, its section `trainer:` checked as well.

    Folders in the YAML are relative to it, folders in overrides to the current folder.
    Raises ConfigError with all that is wrong, one line each.
    """
    document = read_document(path, overrides)
    settings = parse_settings(document, schema)
    if isinstance(settings, StageSettings):
        check_trainer_section(document, type(settings))
    return settings


def parse_settings(document: Document, schema: type[S]) -> S:
    """Validates a document (without its `trainer:` names, which `check_trainer_section` imports classes for)."""
    if issubclass(schema, StageSettings):
        _make_folders_absolute(document)
    try:
        # through JSON, so that strict types accept a list for a tuple but not "1" for 1
        return schema.model_validate_json(json.dumps(document.data, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(_messages(error.errors(), document, schema))) from None


def _make_folders_absolute(document: Document) -> None:
    inputs = document.data.get("inputs")
    places: list[tuple[KeyPath, Any]] = [((key,), document.data) for key in ("deepspeed", "output")]
    if isinstance(inputs, dict):
        places += [(("inputs", name), inputs) for name in inputs]
    for key, section in places:
        if isinstance(section.get(key[-1]), str):
            section[key[-1]] = str(absolute_path(document, key, section[key[-1]]))
    deepspeed = document.data.get("deepspeed")
    if isinstance(deepspeed, str):
        try:
            json.loads(Path(deepspeed).read_text(encoding="utf-8"))
        except OSError:
            raise document.error(("deepspeed",), f"no such file: {deepspeed}") from None
        except ValueError as error:
            raise document.error(("deepspeed",), f"{deepspeed} is no valid JSON: {error}") from None


def absolute_path(document: Document, key: KeyPath, path: str) -> Path:
    """A path from a YAML is relative to that YAML, one from the command line to the current folder."""
    overridden = any(key[:end] in document.overrides for end in range(1, len(key) + 1))
    return ((Path.cwd() if overridden else document.path.parent) / Path(path).expanduser()).resolve()


# ------------------------------------------------------------------------------------------- messages


def _messages(errors: Sequence[ErrorDetails], document: Document, schema: type[Settings]) -> list[str]:
    """One line for each wrong key; the members of a union are told together."""
    problems: dict[KeyPath, list[str]] = {}
    for error in errors:
        key = _existing(error["loc"], document.data, error["type"] == "missing")
        if error["type"] == "value_error":
            key = _named_key(key, str(error["msg"]), document.data)
        problem = _problem(error, key, document, schema)
        if problem not in problems.setdefault(key, []):
            problems[key].append(problem)
    return [str(document.error(key, " or ".join(told))) for key, told in problems.items()]


def _existing(location: KeyPath, data: Any, missing: bool) -> KeyPath:
    """The part of a pydantic location that is in the data: tags of unions and validators are left out."""
    key: KeyPath = ()
    for index, part in enumerate(location):
        if (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        ):
            data, key = data[part], (*key, part)
        elif missing and index == len(location) - 1:
            key = (*key, part)
    return key


def _named_key(section: KeyPath, message: str, data: Any) -> KeyPath:
    """An impossible combination is told at the first key of the section that the message names."""
    for part in section:
        data = data[part]
    words = re.findall(r"\w+", message)
    named = next((word for word in words if isinstance(data, dict) and word in data), None)
    return section if named is None else (*section, named)


def _problem(error: ErrorDetails, key: KeyPath, document: Document, schema: type[Settings]) -> str:
    if error["type"] == "extra_forbidden":
        section = _section_schema(schema, key[:-1])
        return unknown_key(key[-1], section.model_fields if section else (), schema)
    if error["type"] == "missing":
        return "this key is missing"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if error["type"] == "value_error":
        return message
    hint = nearest(error["input"], re.findall(r"'([^']+)'", message)) if "literal" in error["type"] else ""
    return f"{message}, found {_shown(error['input'])}{hint}"


def unknown_key(name: object, allowed: Iterable[str], schema: type[Settings] | None = None) -> str:
    allowed = list(allowed)
    hint = nearest(name, allowed)
    trainer_class = getattr(schema, "trainer_class", None)
    if not hint and trainer_class and "trainer" in allowed:
        hint = f" (names of {trainer_class} go below `trainer:`)"
    return f"unknown key{hint}; allowed: {', '.join(allowed)}" if allowed else f"unknown key{hint}"


def _section_schema(schema: type[Settings], key: KeyPath) -> type[BaseModel] | None:
    """The settings class of a section, found by walking the annotations."""
    annotation: Any = schema
    for part in key:
        model = next(_models_in(annotation), None)
        if model is not None and part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
    return next(_models_in(annotation), None)


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _shown(value: Any) -> str:
    kinds = {str: "text", bool: "true/false", int: "a whole number", float: "a number"}
    kind = kinds.get(type(value))
    text = json.dumps(value, ensure_ascii=False, default=str)
    return f"{text if len(text) <= 60 else text[:57] + '...'}{f' ({kind})' if kind else ''}"


# ------------------------------------------------------------------------------------- section trainer


def check_trainer_section(document: Document, schema: type[StageSettings]) -> None:
    """Checks `trainer:` against the fields of the real class, which is imported only if there is a section.

    Raises ConfigError: a name that the class lacks, a wrong type or choice, a name that the stage sets itself.
    """
    section = document.data.get("trainer")
    if not section or schema.trainer_class is None:
        return
    module, name = schema.trainer_class.rsplit(".", 1)
    trainer_class = getattr(importlib.import_module(module), name)
    fields = {field.name: field for field in dataclasses.fields(trainer_class) if field.init}
    hints = typing.get_type_hints(trainer_class)
    allowed = [field for field in fields if field not in schema.trainer_reserved]
    wrong = []
    for key, value in section.items():
        if key in schema.trainer_reserved:
            problem: str | None = f"the stage sets this itself: {schema.trainer_reserved[key]}"
        elif key not in fields:
            problem = f"{schema.trainer_class} has no such name{nearest(key, allowed)}"
        else:
            problem = _wrong_value(value, hints[key], fields[key].metadata)
        if problem:
            wrong.append(str(document.error(("trainer", key), problem)))
    if wrong:
        raise ConfigError("\n".join(wrong))


def _wrong_value(value: Any, hint: Any, metadata: Mapping[str, Any]) -> str | None:
    """What is wrong with a value for a dataclass field of this type, or None."""
    choices = [str(choice) for choice in metadata.get("choices") or _enum_values(hint)]
    if choices and isinstance(value, str) and value not in choices:
        return f"expected one of {', '.join(choices)}; found {_shown(value)}{nearest(value, choices)}"
    adapter = TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    try:
        adapter.validate_json(json.dumps(value, default=str))
    except ValidationError:
        return f"expected {_type_name(hint)}, found {_shown(value)}"
    return None


def _enum_values(hint: Any) -> list[str]:
    members = [hint, *typing.get_args(hint)]
    return [m.value for kind in members if isinstance(kind, type) and issubclass(kind, enum.Enum) for m in kind]


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return " or ".join(_type_name(argument) for argument in typing.get_args(hint))
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
