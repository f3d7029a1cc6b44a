"""YAML -> typed settings. Whatever is wrong: file, line, key, what is allowed, the nearest right name."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from .deepspeed_file import DeepSpeedFile
from .errors import ConfigError
from .hub import is_hub_id
from .settings import Settings, StageSettings
from .trainer_names import check_trainer_section
from .yaml_file import KeyPath, YamlFile, nearest, read_yaml, shown

S = TypeVar("S", bound="Settings")

RENAMED = {  # former name of a setting -> its name now, in every section that has the new name
    "validation_steps": "eval_steps",
    "cut_prompts": "truncate_prompts",
    "refuse_at_most": "max_bad_rows",
    "row_length": "max_length",
    "vocabulary_size": "vocab_size",
    "attention": "attn_implementation",
    "kl_coefficient": "kl_coef",
    "clip_threshold": "cliprange",
    "value_clip_threshold": "cliprange_value",
    "gae_lambda": "lam",
    "samples_per_prompt": "num_generations",
    "samples_per_turn": "num_generations",
}


def load_settings(path: str | Path, schema: type[S], overrides: Sequence[str] = ()) -> S:
    """Reads a YAML into its settings, a stage's section `trainer:` checked as well.

    Folders in the YAML are relative to it, folders in overrides to the current folder.
    Raises ConfigError with all that is wrong, one line each.
    """
    document = read_yaml(path, overrides)
    settings = parse_settings(document, schema)
    if issubclass(schema, StageSettings):
        check_trainer_section(document, schema)
    return settings


def parse_settings(document: YamlFile, schema: type[S]) -> S:
    """Validates a document, except the names in `trainer:` (see `check_trainer_section`)."""
    if issubclass(schema, StageSettings):
        _resolve_folders(document, schema)
    try:
        # through JSON, so that strict types accept a list for a tuple but not "1" for 1
        return schema.model_validate_json(json.dumps(document.data, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(_messages(error.errors(), document, schema))) from None


def _resolve_folders(document: YamlFile, schema: type[StageSettings]) -> None:
    data = document.data
    places: list[tuple[KeyPath, dict[Any, Any]]] = [(("deepspeed",), data), (("output",), data)]
    for key, section in [*places, *_inputs_of(data)]:
        if isinstance(value := section.get(key[-1]), str):
            path = document.absolute_path(key, value, follow=key != ("output",))
            on_the_hub = key[0] == "inputs" and not path.exists() and is_hub_id(value)
            section[key[-1]] = value if on_the_hub else str(path)
    if "deepspeed" in schema.model_fields and isinstance(data.get("deepspeed"), str):
        try:
            DeepSpeedFile.read(data["deepspeed"])
        except OSError:
            raise document.error(("deepspeed",), f"no such file: {data['deepspeed']}") from None
        except ValueError as error:
            raise document.error(("deepspeed",), f"{data['deepspeed']} is no valid JSON: {error}") from None


def _inputs_of(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, dict[Any, Any]]]:
    """Each input with the section that it is in; those of a list are a section of their own."""
    inputs = data.get("inputs")
    if not isinstance(inputs, dict):
        return
    for name, value in inputs.items():
        if isinstance(value, dict):
            yield from ((("inputs", name, one), value) for one in value)
        else:
            yield ("inputs", name), inputs


# ------------------------------------------------------------------------------------------- messages


def _messages(errors: Sequence[ErrorDetails], document: YamlFile, schema: type[Settings]) -> list[str]:
    """One line for each wrong key; the members of a union are told together."""
    problems: dict[KeyPath, list[str]] = {}
    for error in errors:
        key = _existing(error["loc"], document.data, error["type"] == "missing")
        if error["type"] == "value_error":
            key = _named_key(key, error["msg"], document.data)
        if error["type"] == "missing" and _has_former_name(key, document.data):
            continue  # the former name is reported
        told = problems.setdefault(key, [])
        problem = _problem(error, key, schema, data=document.data)
        if problem not in told:
            told.append(problem)
    in_order = sorted(problems, key=lambda key: document.lines.get(key, 0))
    return [str(document.error(key, " or ".join(problems[key]))) for key in in_order]


def _existing(location: KeyPath, data: Any, missing: bool) -> KeyPath:
    """The part of a pydantic location that is in the data: tags of unions and validators are left out."""
    key: KeyPath = ()
    for index, part in enumerate(location):
        known = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
        if part in known:
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


def _has_former_name(key: KeyPath, data: Any) -> bool:
    """Whether the section of a missing key has the key under its former name."""
    for part in key[:-1]:
        data = data[part]
    return isinstance(data, dict) and any(RENAMED.get(str(name)) == key[-1] for name in data)


def _problem(error: ErrorDetails, key: KeyPath, schema: type[Settings], *, data: Any) -> str:
    if error["type"] == "extra_forbidden":
        section = _section_schema(schema, key[:-1], data)
        return _unknown_key(key[-1], list(_fields(section)) if section else [], schema)
    if error["type"] == "missing":
        return "this key is missing"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if error["type"] == "value_error":
        return message
    hint = nearest(error["input"], re.findall(r"'([^']+)'", message)) if "literal" in error["type"] else ""
    return f"{message}, found {shown(error['input'])}{hint}"


def _unknown_key(name: object, allowed: list[str], schema: type[Settings]) -> str:
    if RENAMED.get(str(name)) in allowed:
        return f"renamed to {RENAMED[str(name)]}"
    hint = nearest(name, allowed)
    trainer_class = getattr(schema, "trainer_class", None)
    if not hint and trainer_class and "trainer" in allowed:
        hint = f"; names of {trainer_class} go below `trainer:`;"
    return f"unknown key{hint or ';'} allowed: {', '.join(allowed)}"


def _section_schema(schema: type[Settings], key: KeyPath, data: Any) -> type[BaseModel] | None:
    """The settings class of a section, found by walking the annotations."""
    annotation: Any = schema
    for part in key:
        model = _most_like(data, annotation)
        if model is not None and part in (fields := _fields(model)):
            annotation = fields[str(part)].annotation
        data = data[part]
    return _most_like(data, annotation)


def _most_like(data: Any, annotation: Any) -> type[BaseModel] | None:
    """Of the classes that a section may be, the one that has most of its keys."""
    given = data.keys() if isinstance(data, dict) else set()
    return max(_models_in(annotation), key=lambda model: len(given & _fields(model).keys()), default=None)


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a class by their names in a YAML."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
