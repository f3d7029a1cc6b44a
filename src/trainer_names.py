"""Checks the section `trainer:` of a YAML against the arguments class of transformers or trl."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from .errors import ConfigError
from .yaml_file import YamlFile, nearest, shown

if TYPE_CHECKING:
    from .settings import StageSettings


def check_trainer_section(yaml_file: YamlFile, schema: type[StageSettings]) -> None:
    """Checks `trainer:` against the fields of `schema.trainer_class`, imported only if the section exists.

    Raises ConfigError for unknown names, names that the stage sets itself, and wrong types or choices.
    """
    section = yaml_file.data.get("trainer")
    if not section or schema.trainer_class is None:
        return
    module, name = schema.trainer_class.rsplit(".", 1)
    trainer_class = getattr(importlib.import_module(module), name)
    fields = {field.name: field for field in dataclasses.fields(trainer_class) if field.init}
    hints = typing.get_type_hints(trainer_class)
    allowed = [field for field in fields if field not in schema.trainer_reserved]
    errors = []
    for key, value in section.items():
        if key in schema.trainer_reserved:
            problem: str | None = f"the stage sets this itself: {schema.trainer_reserved[key]}"
        elif key not in fields:
            problem = f"{schema.trainer_class} has no such argument{nearest(key, allowed)}"
        else:
            problem = _wrong_value(value, hints[key], fields[key].metadata)
        if problem:
            errors.append(str(yaml_file.error(("trainer", key), problem)))
    if errors:
        raise ConfigError("\n".join(errors))


def _wrong_value(value: Any, hint: Any, metadata: Mapping[str, Any]) -> str | None:
    """The problem with a value for a dataclass field of this type, or None."""
    choices = [str(choice) for choice in metadata.get("choices") or _enum_values(hint)]
    if choices and isinstance(value, str) and value not in choices:
        return f"expected one of {', '.join(choices)}; found {shown(value)}{nearest(value, choices)}"
    adapter = TypeAdapter(hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    try:
        adapter.validate_json(json.dumps(value, default=str))
    except ValidationError:
        return f"expected {_type_name(hint)}, found {shown(value)}"
    return None


def _enum_values(hint: Any) -> Iterable[str]:
    """The values of `SomeEnum` or `SomeEnum | str`; lists of them are checked by type only."""
    for kind in (hint, *(typing.get_args(hint) if _is_union(hint) else ())):
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            yield from (member.value for member in kind)


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def _type_name(hint: Any) -> str:
    if _is_union(hint):
        return " or ".join(_type_name(argument) for argument in typing.get_args(hint))
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
