"""Reads YAML files into typed settings; errors name file, line, key, what is allowed and similar names."""

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
    """Reads the settings in a YAML file and checks its section `trainer:`.

    Paths in the YAML are relative to it, paths in overrides to the current folder.
    Raises ConfigError with all problems, one line each.
    """
    yaml_file = read_yaml(path, overrides)
    settings = parse_settings(yaml_file, schema)
    if issubclass(schema, StageSettings):
        check_trainer_section(yaml_file, schema)
    return settings


def parse_settings(yaml_file: YamlFile, schema: type[S]) -> S:
    """Validates a YAML file, except its section `trainer:` (see `check_trainer_section`)."""
    if issubclass(schema, StageSettings):
        _resolve_folders(yaml_file, schema)
    try:
        # through JSON, so that strict types accept a list for a tuple but not "1" for 1
        return schema.model_validate_json(json.dumps(yaml_file.data, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(_messages(error.errors(), yaml_file, schema))) from None


def _resolve_folders(yaml_file: YamlFile, schema: type[StageSettings]) -> None:
    data = yaml_file.data
    keys: list[tuple[KeyPath, dict[Any, Any]]] = [((name,), data) for name in schema.deepspeed_files]
    written = [(("output",), data), *_paths_of(data, schema)]
    for key, section in [*keys, *_inputs_of(data), *written]:
        if isinstance(value := section.get(key[-1]), str):
            # a link may be replaced later; a virtual environment's Python is a link out of it
            follow = not any(key == name for name, _ in written)
            path = yaml_file.absolute_path(key, value, follow=follow)
            on_the_hub = key[0] == "inputs" and not path.exists() and is_hub_id(value)
            section[key[-1]] = value if on_the_hub else str(path)
    for name in schema.deepspeed_files:
        if isinstance(value := data.get(name), str):
            try:
                DeepSpeedFile.read(value)
            except OSError:
                raise yaml_file.error((name,), f"no such file: {value}") from None
            except ValueError as error:
                raise yaml_file.error((name,), f"invalid JSON in {value}: {error}") from None


def _paths_of(
    data: Mapping[str, Any], schema: type[StageSettings]
) -> Iterator[tuple[KeyPath, dict[Any, Any]]]:
    """The key of each of the schema's `paths` with the section that holds it, if the data has the section."""
    for *sections, name in schema.declared("paths"):
        section: Any = data
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict):
            yield (*sections, name), section


def _inputs_of(data: Mapping[str, Any]) -> Iterator[tuple[KeyPath, dict[Any, Any]]]:
    """The key of each input with the section that holds it; a list of inputs is a section of its own."""
    inputs = data.get("inputs")
    if not isinstance(inputs, dict):
        return
    for name, value in inputs.items():
        if isinstance(value, dict):
            yield from ((("inputs", name, member), value) for member in value)
        else:
            yield ("inputs", name), inputs


# ------------------------------------------------------------------------------------------- messages


def _messages(errors: Sequence[ErrorDetails], yaml_file: YamlFile, schema: type[Settings]) -> list[str]:
    """One line for each wrong key; problems with the types of a union are joined."""
    problems: dict[KeyPath, list[str]] = {}
    for error in errors:
        key = _existing(error["loc"], yaml_file.data, error["type"] == "missing")
        if error["type"].startswith("union_tag"):  # the key that decides between several kinds of sections
            key = (*key, error["ctx"]["discriminator"].strip("'"))
        if error["type"] == "value_error":
            key = _named_key(key, error["msg"], yaml_file.data)
        if error["type"] == "missing" and _has_former_name(key, yaml_file.data):
            continue  # the former name is reported
        reported = problems.setdefault(key, [])
        problem = _problem(error, key, schema, data=yaml_file.data)
        if problem not in reported:
            reported.append(problem)
    in_order = sorted(problems, key=lambda key: yaml_file.lines.get(key, 0))
    return [str(yaml_file.error(key, " or ".join(problems[key]))) for key in in_order]


def _existing(location: KeyPath, data: Any, missing: bool) -> KeyPath:
    """The part of a pydantic location that exists in the data, without tags of unions and validators."""
    key: KeyPath = ()
    for index, part in enumerate(location):
        parts = range(len(data)) if isinstance(data, list) else data if isinstance(data, dict) else ()
        if part in parts:
            data, key = data[part], (*key, part)
        elif missing and index == len(location) - 1:
            key = (*key, part)
    return key


def _named_key(section: KeyPath, message: str, data: Any) -> KeyPath:
    """The place to report an impossible combination: the first key of the section in the message."""
    for part in section:
        data = data[part]
    words = re.findall(r"\w+", message)
    name = next((word for word in words if isinstance(data, dict) and word in data), None)
    return section if name is None else (*section, name)


def _has_former_name(key: KeyPath, data: Any) -> bool:
    """Whether the section of a missing key has the key under its former name."""
    for part in key[:-1]:
        data = data[part]
    return isinstance(data, dict) and any(RENAMED.get(str(name)) == key[-1] for name in data)


def _problem(error: ErrorDetails, key: KeyPath, schema: type[Settings], *, data: Any) -> str:
    if error["type"] == "extra_forbidden":
        section = _section_schema(schema, key[:-1], data)
        return _unknown_key(key[-1], list(_fields(section)) if section else [], schema)
    if error["type"] in ("missing", "union_tag_not_found"):
        return "this key is required"
    if error["type"] == "union_tag_invalid":
        tag, tags = error["ctx"]["tag"], error["ctx"]["expected_tags"]
        hint = nearest(tag, re.findall(r"'([^']+)'", tags))
        return f"expected {' or '.join(tags.rsplit(', ', 1))}, found {shown(tag)}{hint}"
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if error["type"] == "value_error":
        return message.removeprefix(f"{key[-1]}: ") if key else message
    hint = nearest(error["input"], re.findall(r"'([^']+)'", message)) if "literal" in error["type"] else ""
    return f"{message}, found {shown(error['input'])}{hint}"


def _unknown_key(name: object, allowed: list[str], schema: type[Settings]) -> str:
    if RENAMED.get(str(name)) in allowed:
        return f"renamed to {RENAMED[str(name)]}"
    hint = nearest(name, allowed)
    trainer_class = getattr(schema, "trainer_class", None)
    if not hint and trainer_class and "trainer" in allowed:
        hint = f"; arguments of {trainer_class} belong below `trainer:`;"
    return f"unknown key{hint or ';'} allowed: {', '.join(allowed)}"


def _section_schema(schema: type[Settings], key: KeyPath, data: Any) -> type[BaseModel] | None:
    """The settings class of a section, found through the annotations."""
    annotation: Any = schema
    for part in key:
        model = _best_match(data, annotation)
        if model is not None and part in (fields := _fields(model)):
            annotation = fields[str(part)].annotation
        data = data[part]
    return _best_match(data, annotation)


def _best_match(data: Any, annotation: Any) -> type[BaseModel] | None:
    """The class of a union that has most of the section's keys."""
    keys = data.keys() if isinstance(data, dict) else set()
    return max(_models_in(annotation), key=lambda model: len(keys & _fields(model).keys()), default=None)


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a class by their keys in a YAML."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
