"""`docs/settings.md` lists all keys of the settings classes."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, create_model

from llamita.runner.stages import REGISTRY, settings_class

from ..helpers.repository import REPOSITORY

DOCS = REPOSITORY / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(generator: ModuleType) -> None:
    written = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert written == generator.page(), "run `.venv/bin/python docs/make_settings.py`"


@pytest.mark.parametrize("kind", REGISTRY)
def test_every_key_of_a_stage_is_on_the_page(generator: ModuleType, kind: str) -> None:
    parts = generator.page().split("\n## ")
    titles = re.compile(
        rf"Stage `{kind}`\n|Every stage\n|Every stage that (reads rows|trains)\b|Every .*\b{kind}\b"
    )
    shown = {key for part in parts if titles.match(part) for key in re.findall(r"\n\| `([^`]+)` \|", part)}
    assert settings_class(kind).model_fields.keys() <= shown


def test_types_are_not_python_annotations(generator: ModuleType) -> None:
    types = [line.split(" | ")[1] for line in generator.page().splitlines() if line.startswith("| `")]
    inner = ("Annotated", "FieldInfo", "Optional", "Literal", "NoneType", "None", "metadata", "(", "=")
    assert [text for text in types if any(name in text for name in inner)] == []
    assert "int ≥ 1 or null" in types
    assert "'helpfulness' or 'safety' or 'general'" in types


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Annotated[int, Field(ge=1)] | None, "int ≥ 1 or null"),
        (Annotated[float, Field(gt=0, lt=1)], "float > 0 and < 1"),
        (Annotated[list[Literal["a", "b"]], Field(min_length=1)], "list['a' or 'b'] of at least 1"),
        (dict[str, str | None], "dict[str, str or null]"),
        (Annotated[str, AfterValidator(str.strip)] | list[str], "str or list[str]"),
    ],
)
def test_types_with_their_bounds(generator: ModuleType, kind: Any, text: str) -> None:
    section = create_model("Section", key=(kind, ...))
    field = section.model_fields["key"]
    assert generator._row("key", field, "").split(" | ")[1] == text
