"""JSON schemas of `pipeline.yaml` and of every stage's YAML, with which editors complete and check keys."""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import json
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, cast

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from ..errors import ConfigError
from ..runner.entries import PipelineSettings, StageEntry
from ..runner.stages import REGISTRY, settings_class
from ..settings import StageSettings
from ..training.settings import PAPER_OPTIMIZER, TrainedSettings
from ..yaml_file import nearest

DIALECT = "http://json-schema.org/draft-07/schema#"  # the newest one that all YAML editors read
KINDS = ("pipeline", *REGISTRY)
_TYPES: dict[Any, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    types.NoneType: "null",
    list: "array",
    dict: "object",
}


def schema_text(kind: str) -> str:
    """The JSON schema of a kind of stage, or of `pipeline`, as the text of a file.

    Raises ConfigError for an unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown kind {kind!r}{nearest(kind, KINDS)}; expected one of {', '.join(KINDS)}")
    settings = PipelineSettings if kind == "pipeline" else settings_class(kind)
    schema = settings.model_json_schema(by_alias=True, schema_generator=_WithDescriptions)
    return json.dumps({"$schema": DIALECT, **schema}, indent=1, ensure_ascii=False) + "\n"


class _WithDescriptions(GenerateJsonSchema):
    """Adds what pydantic does not know: descriptions of keys, names below `trainer:`, kinds of stages."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False  # "Max Bad Rows" adds nothing to `max_bad_rows`

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        model = cast(type[BaseModel], schema["cls"])
        properties = made.get("properties", {})
        for name, text in descriptions(model).items():
            if text:
                properties[model.model_fields[name].alias or name]["description"] = " ".join(text.split())
        if issubclass(model, StageSettings) and model.trainer_class and "trainer" in properties:
            properties["trainer"] |= _trainer_section(model, model.trainer_class)
        if issubclass(model, StageEntry):
            properties["stage"]["enum"] = list(REGISTRY)
        return made


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The keys of a class, inherited ones included, with the strings that follow their declarations."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        if issubclass(part, BaseModel) and part is not BaseModel:
            found |= own_descriptions(part)
    return found


def own_descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The keys that a class declares itself, with the strings that follow their declarations."""
    lines = cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]).body
    keys: dict[str, str] = {}
    for line, below in zip(lines, [*lines[1:], None], strict=True):
        if isinstance(line, ast.AnnAssign) and (name := ast.unparse(line.target)) in model.model_fields:
            keys[name] = str(ast.literal_eval(below.value)) if isinstance(below, ast.Expr) else ""
    return keys


# ------------------------------------------------------------------------------------------- trainer:


def _trainer_section(model: type[StageSettings], trainer_class: str) -> dict[str, Any]:
    """The names that `trainer:` accepts, with their types and the stage's own defaults."""
    module, name = trainer_class.rsplit(".", 1)
    arguments = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(arguments)
    defaults = PAPER_OPTIMIZER | model.trainer_defaults if issubclass(model, TrainedSettings) else {}
    properties = {
        field.name: _value_schema(hints[field.name], field.metadata)
        | ({"default": defaults[field.name]} if field.name in defaults else {})
        for field in dataclasses.fields(arguments)
        if field.init and field.name not in model.trainer_reserved
    }
    return {"properties": properties, "additionalProperties": False}


def _value_schema(hint: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a dataclass field; `{}` where its type has no counterpart in YAML."""
    kinds = list(_members(hint))
    choices = metadata.get("choices") or [
        member.value for kind in kinds if _is_enum(kind) for member in cast(type[enum.Enum], kind)
    ]
    names: list[str] = []
    for kind in kinds:
        type_name = "string" if _is_enum(kind) else _TYPES.get(typing.get_origin(kind) or kind)
        if type_name is None:
            return {}
        names.append(type_name)
    names = list(dict.fromkeys(names))
    others = [name for name in names if name != "string"]
    if choices and "string" in names:
        texts: dict[str, Any] = {"enum": [str(choice) for choice in choices]}
        return texts if not others else {"anyOf": [texts, _of_types(others)]}
    return _of_types(names)


def _of_types(names: list[str]) -> dict[str, Any]:
    return {"type": names[0] if len(names) == 1 else names}


def _members(hint: Any) -> Iterator[Any]:
    """The members of a union, or the type itself."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        for argument in typing.get_args(hint):
            yield from _members(argument)
    else:
        yield hint


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)
