"""A YAML file as plain data that still knows the line, or the override, that each key came from."""

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

LARGEST = 2**63 - 1  # of whole numbers in a YAML, as of seeds


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a value comes from that the file of a document does not have."""

    where: str
    """as errors name it"""
    folder: Path
    """that its relative paths start from"""


@dataclasses.dataclass
class YamlFile:
    path: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int]
    """of every key; that of `()` is the section of another file that this document is"""
    origins: dict[KeyPath, Origin] = dataclasses.field(default_factory=dict)

    def where(self, key: KeyPath) -> str:
        """`file:line` of a key or of the nearest section around it, or the override that set it."""
        for end in range(len(key), -1, -1):
            if key[:end] in self.origins:
                return self.origins[key[:end]].where
            if key[:end] in self.lines:
                return f"{self.path}:{self.lines[key[:end]]}"
        return str(self.path)

    def origin(self, key: KeyPath) -> Origin:
        """Where a key's value comes from."""
        origins = (self.origins.get(key[:end]) for end in range(len(key), 0, -1))
        return Origin(self.where(key), next((one.folder for one in origins if one), self.path.parent))

    def error(self, key: KeyPath, problem: str) -> ConfigError:
        name = f"{dotted(key)}: " if key else ""
        return ConfigError(f"{self.where(key)}: {name}{problem}")

    def override(self, key: KeyPath, value: str, text: str) -> None:
        """Sets one key to a value that is read as YAML; `text` is how the user wrote it."""
        told = f"override '{_short(text)}'"
        self.assign(key, _value(value, told), Origin(f"{told} ({self.path})", Path.cwd()))

    def assign(self, key: KeyPath, value: Any, origin: Origin) -> None:
        """Sets one key to a value from elsewhere; sections that are missing are made."""
        parent: Any = self.data
        for part in key[:-1]:
            if isinstance(parent, dict) and parent.get(part) is None:
                parent[part] = {}
            parent = _child(parent, part, origin)
        if isinstance(parent, list):
            _child(parent, key[-1], origin)
        elif not isinstance(parent, dict):
            raise ConfigError(f"{origin.where}: {dotted(key[:-1])} is no section")
        parent[key[-1]] = value
        self.origins = {old: by for old, by in self.origins.items() if old[: len(key)] != key}
        self.origins[key] = origin

    def copy(self) -> YamlFile:
        """The same, to be changed alone."""
        return YamlFile(self.path, copy.deepcopy(self.data), self.lines, dict(self.origins))

    def absolute_path(self, key: KeyPath, path: str, *, follow: bool = True) -> Path:
        """A path is relative to the YAML that it is in, one from the command line to the current folder.

        `follow`: whether a link is replaced by what it leads to; links above it always are.
        """
        place = self.origin(key).folder / Path(path).expanduser()
        return place.resolve() if follow or place.name in ("", "..") else place.parent.resolve() / place.name


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> YamlFile:
    """Reads a YAML mapping (version 1.2, duplicate keys refused) and applies `key=value` overrides.

    Raises ConfigError: no such file, no YAML (with its line), not a mapping, a wrong override.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such file{nearest(path.name, siblings)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: can't be read: {error}") from None
    data = _parse(text, str(path))
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected lines of `key: value`, found {shown(data)}")
    lines: dict[KeyPath, int] = {}
    _collect_lines(_yaml().compose(text), (), lines)
    document = YamlFile(path, data, lines)
    for override in overrides:
        document.override(*split_override(override), override)
    return document


def split_override(text: str) -> tuple[KeyPath, str]:
    """`a.b=1` -> (("a", "b"), "1"); whole numbers in the key are positions in a list."""
    name, equals, value = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"override '{_short(text)}': expected key=value, as in trainer.learning_rate=1e-3")
    return key_path(parts), value


def key_path(parts: Iterable[str]) -> KeyPath:
    """The parts of a dotted key; whole numbers are positions in a list."""
    return tuple(int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in parts)


def dotted(key: KeyPath) -> str:
    return ".".join(map(str, key))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `section.key: value`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nearest(name: object, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the most similar allowed name, or nothing where none is similar."""
    close = difflib.get_close_matches(str(name), list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def brief(value: Any, length: int = 60) -> str:
    """A value of a YAML, shortened to `length` characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= length else text[: length - 3] + "..."


def shown(value: Any) -> str:
    """A value of a YAML, shortened, with its type in words."""
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
        raise ConfigError(f"{origin.where}: there is no {part} to change") from None


class _Constructor(SafeConstructor):
    """Refuses with its line what Python can't make a value of, and numbers that no setting takes."""

    def construct_non_recursive_object(self, node: Any, tag: str | None = None) -> Any:
        try:
            value = super().construct_non_recursive_object(node, tag)
        except ValueError as error:  # a date in month 13, a number of 5,000 digits
            raise ConstructorError(None, None, _reason(error), node.start_mark) from None
        if isinstance(value, int) and not -LARGEST <= value <= LARGEST:
            raise ConstructorError(None, None, f"a whole number beyond ±{LARGEST}", node.start_mark)
        if isinstance(value, float) and not math.isfinite(value):
            raise ConstructorError(None, None, f"{value} is no number that a setting takes", node.start_mark)
        return value


def _reason(error: ValueError) -> str:
    text = str(error)
    return f"a whole number beyond ±{LARGEST}" if "set_int_max_str_digits" in text else text


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
        raise ConfigError(f"{origin}{line}: no valid YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise ConfigError(f"{origin}: no valid YAML: its brackets are nested too deep") from None
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"{origin}: no valid YAML: {error}") from None


def _value(text: str, origin: str) -> Any:
    """What an override sets: YAML in which `#` begins no comment, since a command line has none."""
    try:
        node = _yaml().compose(text)
    except (YAMLError, RecursionError):
        return _parse(text, origin)
    spans = list(_scalars(node))
    hashes = [match.start() for match in re.finditer(r"(?<!\S)#", text)]
    if all(any(start <= place < end for start, end in spans) for place in hashes):
        return _parse(text, origin)
    if node is None or (isinstance(node, ScalarNode) and not node.style):
        return text.strip()
    raise ConfigError(f"{origin}: what follows ' #' is a comment to YAML; put the text around it in quotes")


def _scalars(node: Node | None) -> Iterator[tuple[int, int]]:
    """Where in the text the scalars of a node begin and end."""
    if isinstance(node, ScalarNode):
        yield node.start_mark.index, node.end_mark.index
    elif isinstance(node, MappingNode):
        for pair in node.value:
            for one in pair:
                yield from _scalars(one)
    elif isinstance(node, SequenceNode):
        for one in node.value:
            yield from _scalars(one)


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def parse_json(text: str) -> Any:
    """`json.loads`, but every ValueError says in which line, and a number of 5,000 digits is named as one."""

    def whole_number(digits: str) -> int:
        try:
            return int(digits)
        except ValueError:
            line = text.count("\n", 0, text.index(digits)) + 1
            raise ValueError(f"line {line}: a whole number of {len(digits):,} digits") from None

    try:
        return json.loads(text, parse_int=whole_number)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None


def _collect_lines(node: Node, key: KeyPath, lines: dict[KeyPath, int]) -> None:
    if isinstance(node, MappingNode):
        for name, value in node.value:
            lines.setdefault((*key, name.value), name.start_mark.line + 1)
            _collect_lines(value, (*key, name.value), lines)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            lines.setdefault((*key, index), value.start_mark.line + 1)
            _collect_lines(value, (*key, index), lines)
