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
from llamita.config import RENAMED
from llamita.data.settings import CorpusSettings, DialogueSettings, RowSettings
from llamita.judges.settings import Endpoint
from llamita.rlhf.settings import RlhfSettings
from llamita.runner.entries import PipelineSettings
from llamita.runner.stages import REGISTRY, settings_class
from llamita.sampling.settings import SamplingSettings
from llamita.settings import RankSettings, StageSettings
from llamita.training.settings import PAPER_OPTIMIZER, FineTunedSettings, PackedSettings, TrainedSettings

PAGE = Path(__file__).with_name("settings.md")
SCHEMAS = Path(__file__).parents[1] / "configs" / "schemas"
HEAD = """# Settings

All keys of `pipeline.yaml` and of the stages' YAML files. A key whose default is "required" must be set.
A section with keys of its own, such as `lora`, has a table below the first table that lists it.

This page is generated from the classes in `src/` by `docs/make_settings.py`, and tested to be up to date.
"""
ON_RANKS = "pretrain, sft, reward, rejection, ppo, benchmark"
SAMPLING = "rejection, ppo, gatt, distillation, evaluate, red_team, benchmark"
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "of at least", "pattern": "matching"}


def page() -> str:
    """The whole page, as Markdown."""
    sections: dict[str, type[BaseModel]] = {"`pipeline.yaml`": PipelineSettings, "Every stage": StageSettings}
    stages = {f"Stage `{kind}`": settings_class(kind) for kind in REGISTRY}
    shared: dict[str, type[BaseModel]] = {
        "Every stage that reads rows (all but world and report)": RowSettings,
        f"Every stage that can run on several ranks ({ON_RANKS})": RankSettings,
        "Every stage that trains": TrainedSettings,
        "Every stage that trains on packed rows (pretrain, sft, rejection)": PackedSettings,
        "Every stage that reads dialogues to fine-tune on (sft, rejection)": DialogueSettings,
        "Every stage that fine-tunes on dialogues (sft, rejection)": FineTunedSettings,
        "Every stage that prepares a corpus (prepare, pretrain)": CorpusSettings,
        f"Every stage that samples ({SAMPLING})": SamplingSettings,
        "Every stage of RLHF (rejection, ppo)": RlhfSettings,
        "Every judge behind an endpoint (`comparison.judge` of evaluate, `judge` of red_team)": Endpoint,
    }
    sections |= {**shared, **stages}
    seen: set[type[BaseModel]] = set()
    parts = [part for title in sections for part in _section(title, sections[title], seen)]
    return "\n".join([HEAD, *parts, *_renamed_keys()])


def _renamed_keys() -> Iterator[str]:
    """A table of former names, which `llamita` reports as errors with the new name."""
    yield "## Renamed keys\n\nThe former name is an error that names the new one.\n"
    yield "\n".join(["| former name | name |", "|---|---|"])
    yield from (f"| `{old}` | `{new}` |" for old, new in RENAMED.items())
    yield ""


def _section(title: str, schema: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[str]:
    """The table of a class's own keys, then the sections in it that are not in `seen`."""
    seen.add(schema)
    yield f"## {title}\n\n{inspect.getdoc(schema)}\n"
    if issubclass(schema, StageSettings) and title.startswith("Stage "):
        optional = [f"{name} (optional)" for name in sorted(schema.optional_inputs)]
        lists = [f"{name} (list, optional)" for name in sorted(schema.listed_inputs)]
        any_name = ["any names"] if schema.any_inputs else []
        inputs = ", ".join([*sorted(schema.required_inputs), *optional, *lists, *any_name])
        yield f"Inputs: {inputs or 'none'}. Keys of `trainer:`: {schema.trainer_class or 'none'}.\n"
    if defaults := _trainer_defaults(schema):
        yield f"Defaults of `trainer:`: {defaults}.\n"
    rows = [_row(name, schema.model_fields[name], text) for name, text in own_descriptions(schema).items()]
    yield "\n".join(
        ["| key | type | default | description |", "|---|---|---|---|", *rows, ""] if rows else []
    )
    for nested in [model for field in schema.model_fields.values() for model in _models(field.annotation)]:
        if nested not in seen:
            yield from _section(f"Section `{nested.__name__}`", nested, seen)


def _trainer_defaults(schema: type[BaseModel]) -> str:
    """Defaults of a stage; for the base class of all stages that train, those of the optimizer."""
    if not issubclass(schema, TrainedSettings):
        return ""
    defaults = PAPER_OPTIMIZER if schema is TrainedSettings else schema.trainer_defaults
    return ", ".join(f"`{name}: {json.dumps(value)}`" for name, value in defaults.items())


def _row(name: str, field: FieldInfo, description: str) -> str:
    text = _type(field.annotation, field.metadata).replace("|", r"\|")
    default = (
        "required"
        if field.is_required()
        else f"`{json.dumps(field.default, default=lambda section: section.model_dump(exclude_unset=True))}`"
    )
    return f"| `{field.alias or name}` | {text} | {default} | {' '.join(description.split())} |"


def _type(kind: Any, metadata: Iterable[Any] = ()) -> str:
    """A type in the words of YAML, with its bounds: `int ≥ 1 or null`, `list['a' or 'b'] of at least 1`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(arguments[0], [*_flat(arguments[1:]), *metadata])
    if origin in (Union, UnionType):
        return " or ".join(
            _type(argument, () if argument is NoneType else metadata) for argument in arguments
        )
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if kind is NoneType:
        return "null"
    inside = ", ".join(_type(argument) for argument in arguments)
    name = getattr(origin or kind, "__name__", str(kind))
    return (f"{name}[{inside}]" if inside else name) + _bounds(metadata)


def _flat(parts: Iterable[Any]) -> Iterator[Any]:
    """Metadata with the bounds that a `Field(…)` inside `Annotated` holds."""
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
