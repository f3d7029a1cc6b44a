"""Writes `docs/settings.md` and `configs/schemas/` from the settings classes.

Run it after every change of a setting: `.venv/bin/python docs/make_settings.py`
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from llamita.commands.schema import KINDS, own_descriptions, schema_text
from llamita.data.settings import CorpusSettings, RowSettings
from llamita.rlhf.settings import RlhfSettings
from llamita.runner.entries import PipelineSettings
from llamita.runner.stages import REGISTRY, settings_class
from llamita.settings import StageSettings
from llamita.training.settings import PAPER_OPTIMIZER, FineTunedSettings, PackedSettings, TrainedSettings

PAGE = Path(__file__).with_name("settings.md")
SCHEMAS = Path(__file__).parents[1] / "configs" / "schemas"
HEAD = """# Settings

Written from the classes in `src/` by `docs/make_settings.py`; a test keeps it true. A key without a default
has to be given. A section with keys of its own is described below the stage where it first stands.
"""
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "of at least", "pattern": "matching"}


def page() -> str:
    """The whole page, as Markdown."""
    sections: dict[str, type[BaseModel]] = {"`pipeline.yaml`": PipelineSettings, "Every stage": StageSettings}
    stages = {f"Stage `{kind}`": settings_class(kind) for kind in REGISTRY}
    shared: dict[str, type[BaseModel]] = {
        "Every stage that reads rows (all but world and report)": RowSettings,
        "Every stage that trains": TrainedSettings,
        "Every stage that trains on packed rows (pretrain, sft, rejection)": PackedSettings,
        "Every stage that fine-tunes on dialogues (sft, rejection)": FineTunedSettings,
        "Every stage that prepares a corpus (prepare, pretrain)": CorpusSettings,
        "Every stage of RLHF (rejection, ppo)": RlhfSettings,
    }
    sections |= {**shared, **stages}
    seen: set[type[BaseModel]] = set()
    return "\n".join([HEAD, *(part for title in sections for part in _section(title, sections[title], seen))])


def _section(title: str, schema: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """A class as a table of its own keys, then the classes that they hold, each once."""
    seen.add(schema)
    yield f"## {title}\n\n{inspect.getdoc(schema)}\n"
    if issubclass(schema, StageSettings) and title.startswith("Stage "):
        optional = [f"{name} (optional)" for name in sorted(schema.optional_inputs)]
        lists = [f"{name} (a list, may be left out)" for name in sorted(schema.listed_inputs)]
        anything = ["any names"] if schema.any_inputs else []
        inputs = ", ".join([*sorted(schema.required_inputs), *optional, *lists, *anything])
        yield f"Inputs: {inputs or 'none'}. Names below `trainer:`: {schema.trainer_class or 'none'}.\n"
    if defaults := _trainer_defaults(schema):
        yield f"Defaults below `trainer:`: {defaults}.\n"
    rows = [_row(name, schema.model_fields[name], text) for name, text in own_descriptions(schema).items()]
    yield "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""] if rows else [])
    for nested in [model for field in schema.model_fields.values() for model in _models(field.annotation)]:
        if nested not in seen:
            yield from _section(f"Section `{nested.__name__}`", nested, seen)


def _trainer_defaults(schema: type[BaseModel]) -> str:
    """Those of a stage; of the class that all stages that train share: the optimizer's."""
    if not issubclass(schema, TrainedSettings):
        return ""
    defaults = PAPER_OPTIMIZER if schema is TrainedSettings else schema.trainer_defaults
    return ", ".join(f"`{name}: {json.dumps(value)}`" for name, value in defaults.items())


def _row(name: str, field: FieldInfo, meaning: str) -> str:
    text = _type(field.annotation, field.metadata).replace("|", r"\|")
    shown = "" if field.is_required() else f"`{json.dumps(field.default, default=lambda section: {})}`"
    return f"| `{field.alias or name}` | {text} | {shown} | {' '.join(meaning.split())} |"


def _type(kind: Any, metadata: Iterable[Any] = ()) -> str:
    """A type as YAML knows it, with its bounds: `int ≥ 1 or null`, `list['a' or 'b'] of at least 1`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(arguments[0], [*_flat(arguments[1:]), *metadata])
    if origin in (Union, UnionType):
        return " or ".join(_type(one, () if one is NoneType else metadata) for one in arguments)
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if kind is NoneType:
        return "null"
    inside = ", ".join(_type(one) for one in arguments)
    name = getattr(origin or kind, "__name__", str(kind))
    return (f"{name}[{inside}]" if inside else name) + _bounds(metadata)


def _flat(parts: Iterable[Any]) -> Iterator[Any]:
    """A `Field(…)` inside of `Annotated` holds its bounds in its own metadata."""
    for part in parts:
        yield from part.metadata if isinstance(part, FieldInfo) else [part]


def _bounds(metadata: Iterable[Any]) -> str:
    found = [
        f"{sign} {limit}"
        for part in metadata
        for key, sign in BOUNDS.items()
        if (limit := getattr(part, key, None)) is not None
    ]
    return f" {' and '.join(found)}" if found else ""


def _models(kind: Any) -> list[type[BaseModel]]:
    own = [kind] if isinstance(kind, type) and issubclass(kind, BaseModel) else []
    return own + [model for part in get_args(kind) for model in _models(part)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    for kind in KINDS:
        (SCHEMAS / f"{kind}.json").write_text(schema_text(kind), encoding="utf-8")
