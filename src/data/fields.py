"""Fields of raw rows: read with a check of their type, and those that a format does not read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import DataError

NOTHING: tuple[Any, ...] = (None, "", [], {}, ())  # what a field without a value holds
NAMED = 8  # fields are named up to here
WIDEST = 100  # characters of a field's name that are shown
TRUTH = {"true": True, "false": False, "": None}  # as a CSV file, whose fields are text, says it


def unread_fields(row: Mapping[str, Any], fields: frozenset[str]) -> list[str]:
    """Names of a raw row's fields that hold something and are not among `fields`; inner ones as `a.b`."""
    unread: dict[str, None] = {}
    for name, value in row.items():
        if name not in fields:
            if value not in NOTHING:
                unread[name] = None
            continue
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, dict):
                inner = (f"{name}.{key}" for key, held in part.items() if held not in NOTHING)
                unread.update((key, None) for key in inner if key not in fields)
    return list(unread)


def text_field(row: Mapping[str, Any], name: str) -> str:
    """A field that must be text. Raises DataError where it is missing or something else."""
    value = row.get(name)
    if value is None:
        raise DataError(f"field {name!r} is missing; expected text (fields: {named(map(short_name, row))})")
    if not isinstance(value, str):
        raise DataError(f"field {name!r} is {type(value).__name__}; expected text")
    return checked(value, name)


def checked(value: str, name: str) -> str:
    """Text that can be written as UTF-8. Raises DataError for half of a surrogate pair."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"field {name!r} holds half of a surrogate pair; expected valid Unicode"
            ) from None
    return value


def field(row: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of the given type(s), or None where it is missing. Raises DataError for another type."""
    value = row.get(name)
    if isinstance(value, str) and kind is not str:
        value = TRUTH.get(value.lower(), value)
    if value is not None and not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(k.__name__ for k in kinds)
        raise DataError(f"field {name!r} is {type(value).__name__}; expected {expected}")
    return checked(value, name) if isinstance(value, str) else value


def named(names: Iterable[str]) -> str:
    """A few names for a message, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def short_name(name: object) -> str:
    return f"{name!s:.{WIDEST}}" or "one without a name"
