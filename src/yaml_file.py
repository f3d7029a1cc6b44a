"""YAML files as plain data, with the line or override that each key came from."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .errors import ConfigError

KeyPath = tuple[str | int, ...]

MAX_INTEGER = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Origin:
    """Source of a value that is not in the YAML file itself, such as an override."""

    where: str
    """its name in error messages"""
    folder: Path
    """folder that relative paths in the value start from"""


@dataclasses.dataclass
class YamlFile:
    """Data of a YAML file with the places of its keys."""

    path: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int]
    """line of every key; that of `()` if the data is a section of the file `path`"""
    origins: dict[KeyPath, Origin] = dataclasses.field(default_factory=dict)

    def where(self, key: KeyPath) -> str:
        """`file:line` of a key or of the innermost section around it, or the override that set it."""
        for end in range(len(key), -1, -1):
            if key[:end] in self.origins:
                return self.origins[key[:end]].where
            if key[:end] in self.lines:
                return f"{self.path}:{self.lines[key[:end]]}"
        return str(self.path)

    def origin(self, key: KeyPath) -> Origin:
        """The origin of a key's value: an override, or this file."""
        origins = (self.origins.get(key[:end]) for end in range(len(key), 0, -1))
        return Origin(
            self.where(key), next((origin.folder for origin in origins if origin), self.path.parent)
        )

    def error(self, key: KeyPath, problem: str) -> ConfigError:
        name = f"{dotted(key)}: " if key else ""
        return ConfigError(f"{self.where(key)}: {name}{problem}")

    def override(self, key: KeyPath, value: str, text: str) -> None:
        """Sets one key to a value that is parsed as YAML; `text` is the override in error messages."""
        name = f"override '{_short(text)}'"
        self.assign(key, _value(value, name), Origin(f"{name} ({self.path})", Path.cwd()))

    def assign(self, key: KeyPath, value: Any, origin: Origin) -> None:
        """Sets one key to a value from another source; creates missing sections."""
        parent: Any = self.data
        for part in key[:-1]:
            if isinstance(parent, dict) and parent.get(part) is None:
                parent[part] = {}
            parent = _child(parent, part, origin)
        if isinstance(parent, list):
            _child(parent, key[-1], origin)
        elif not isinstance(parent, dict):
            raise ConfigError(f"{origin.where}: {dotted(key[:-1])} is not a section")
        parent[key[-1]] = value
        self.origins = {other: source for other, source in self.origins.items() if other[: len(key)] != key}
        self.origins[key] = origin

    def copy(self) -> YamlFile:
        """A copy with independent data and origins."""
        return YamlFile(self.path, copy.deepcopy(self.data), self.lines, dict(self.origins))

    def absolute_path(self, key: KeyPath, path: str, *, follow: bool = True) -> Path:
        """Resolves a path relative to its YAML file, or to the current folder if it is from the command line.

        `follow`: whether a link at the path is resolved; links in its parent folders always are.
        """
        absolute = self.origin(key).folder / Path(path).expanduser()
        if follow or absolute.name in ("", ".."):
            return absolute.resolve()
        return absolute.parent.resolve() / absolute.name


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> YamlFile:
    """Reads a YAML mapping (version 1.2, without duplicate keys) and applies `key=value` overrides.

    Raises ConfigError for a missing file, invalid YAML (with the line), other data, or an invalid override.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such file{nearest(path.name, siblings)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    data = _parse(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected lines of `key: value`, found {shown(data)}")
    lines: dict[KeyPath, int] = {}
    _collect_lines(_yaml().compose(text), (), lines)
    yaml_file = YamlFile(path, data, lines)
    for override in overrides:
        yaml_file.override(*split_override(override), override)
    return yaml_file


def split_override(text: str) -> tuple[KeyPath, str]:
    """`a.b=1` -> (("a", "b"), "1"); whole numbers in the key are positions in a list."""
    name, equals, value = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(
            f"override '{_short(text)}': expected key=value, for example trainer.learning_rate=1e-3"
        )
    return key_path(parts), value


def key_path(parts: Iterable[str]) -> KeyPath:
    """The path of a dotted key from its parts; whole numbers are positions in a list."""
    return tuple(int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in parts)


def dotted(key: KeyPath) -> str:
    return ".".join(map(str, key))


def leaves(section: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of nested sections with their key paths."""
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*above, key))
        else:
            yield (*above, key), value


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested sections as `section.key: value`."""
    return {dotted(key): value for key, value in leaves(settings)}


def nearest(name: object, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the most similar allowed name, or an empty string if none is similar."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def brief(value: Any, length: int = 60) -> str:
    """A value as JSON, shortened to `length` characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= length else text[: length - 3] + "..."


def shown(value: Any) -> str:
    """A value as JSON, shortened, with the name of its type."""
    kinds = {
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        type(None): "nothing",
    }
    return f"{brief(value)} ({kinds[type(value)]})" if type(value) in kinds else brief(value)


def _child(parent: Any, part: str | int, origin: Origin) -> Any:
    try:
        return parent[part]
    except (KeyError, IndexError, TypeError):
        raise ConfigError(f"{origin.where}: {part} does not exist") from None


class _Constructor(SafeConstructor):
    """Raises an error with the line for values that Python cannot represent and for NaN or huge numbers."""

    def construct_non_recursive_object(self, node: Any, tag: str | None = None) -> Any:
        try:
            value = super().construct_non_recursive_object(node, tag)
        except ValueError as error:  # for example a date in month 13, a number with 5,000 digits
            raise ConstructorError(None, None, _reason(error), node.start_mark) from None
        if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise ConstructorError(None, None, f"whole number beyond ±{MAX_INTEGER}", node.start_mark)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConstructorError(None, None, f"{value} is not a finite number", node.start_mark)
        return value


def _reason(error: ValueError) -> str:
    text = str(error)
    return f"whole number beyond ±{MAX_INTEGER}" if "set_int_max_str_digits" in text else text


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    return yaml


def _parse(text: str, origin: str) -> Any:
    try:
        return _yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark and not origin.startswith("override") else ""
        raise ConfigError(f"{origin}{line}: invalid YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise ConfigError(f"{origin}: invalid YAML: brackets are nested too deep") from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{origin}: invalid YAML: {error}") from None


def _value(text: str, origin: str) -> Any:
    """The value of an override: YAML in which `#` does not start a comment."""
    try:
        node = _yaml().compose(text)
    except (YAMLError, RecursionError):
        return _parse(text, origin)
    spans = list(_scalars(node))
    hash_signs = [match.start() for match in re.finditer(r"(?<!\S)#", text)]
    if all(any(start <= position < end for start, end in spans) for position in hash_signs):
        return _parse(text, origin)
    if node is None or (isinstance(node, ScalarNode) and not node.style):
        return text.strip()
    raise ConfigError(f"{origin}: ' #' starts a comment in YAML; put the text around it in quotes")


def _scalars(node: Node | None) -> Iterator[tuple[int, int]]:
    """Start and end positions of the scalars of a node in the text."""
    if isinstance(node, ScalarNode):
        yield node.start_mark.index, node.end_mark.index
    elif isinstance(node, MappingNode):
        for pair in node.value:
            for item in pair:
                yield from _scalars(item)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            yield from _scalars(item)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def parse_json(text: str) -> Any:
    """`json.loads` whose ValueErrors all name the line, also those for numbers with thousands of digits."""

    def whole_number(digits: str) -> int:
        try:
            return int(digits)
        except ValueError:
            line = text.count("\n", 0, text.index(digits)) + 1
            raise ValueError(f"line {line}: a whole number of {len(digits):,} digits") from None

    try:
        return json.loads(text, parse_int=whole_number)
    except RecursionError:
        raise ValueError("brackets are nested too deep") from None


def _collect_lines(node: Node, key: KeyPath, lines: dict[KeyPath, int]) -> None:
    if isinstance(node, MappingNode):
        for name, value in node.value:
            lines.setdefault((*key, name.value), name.start_mark.line + 1)
            _collect_lines(value, (*key, name.value), lines)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            lines.setdefault((*key, index), value.start_mark.line + 1)
            _collect_lines(value, (*key, index), lines)
