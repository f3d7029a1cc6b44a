"""Reads fields of raw rows with a check of their type, and finds fields that a format does not use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import DataError

EMPTY: tuple[Any, ...] = (None, "", [], {}, ())  # values of a field without content
NAMED = 8  # maximum number of names in a message
WIDEST = 100  # maximum number of characters of a name in a message
BOOLEANS = {"true": True, "false": False, "": None}  # texts in CSV files, which have no other type


def unread_fields(row: Mapping[str, Any], fields: frozenset[str]) -> list[str]:
    """Returns names of a raw row's non-empty fields that are not in `fields`; inner fields as `a.b`."""
    unread: dict[str, None] = {}
    for name, value in row.items():
        if name not in fields:
            if value not in EMPTY:
                unread[name] = None
            continue
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, dict):
                inner = (f"{name}.{key}" for key, content in part.items() if content not in EMPTY)
                unread.update((key, None) for key in inner if key not in fields)
    return list(unread)


def text_field(row: Mapping[str, Any], name: str) -> str:
    """Returns a field that must be text. Raises DataError if it is missing or has another type."""
    value = row.get(name)
    if value is None:
        found = named(map(short_name, row))
        raise DataError(f"field {name!r} is missing; expected text (the row has the fields: {found})")
    if not isinstance(value, str):
        raise DataError(f"field {name!r} is {type(value).__name__}; expected text")
    return checked(value, name)


def checked(value: str, name: str) -> str:
    """Returns the text. Raises DataError if it can't be written as UTF-8 (half of a surrogate pair)."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"field {name!r} contains half of a surrogate pair; expected valid Unicode"
            ) from None
    return value


def field(row: Mapping[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """Returns a field of the given type(s), None if it is missing. Raises DataError for another type."""
    value = row.get(name)
    if isinstance(value, str) and kind is not str:
        value = BOOLEANS.get(value.lower(), value)
    if value is not None and not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        expected = " or ".join(k.__name__ for k in kinds)
        raise DataError(f"field {name!r} is {type(value).__name__}; expected {expected}")
    return checked(value, name) if isinstance(value, str) else value


def named(names: Iterable[str]) -> str:
    """Joins the first names for a message, and the number of the others."""
    names = list(names)
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def short_name(name: object) -> str:
    return f"{name!s:.{WIDEST}}" or "(no name)"
