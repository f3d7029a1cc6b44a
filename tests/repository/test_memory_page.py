"""`docs/memory.md` is what the accounting says today, for the paper's models."""

from __future__ import annotations

import importlib.util

import pytest

from ..helpers.paper_shapes import PAPER
from ..helpers.repository import REPOSITORY

DOCS = REPOSITORY / "docs"


def test_the_page_is_up_to_date_and_about_the_papers_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)  # of the page's other modules
    spec = importlib.util.spec_from_file_location("make_memory", DOCS / "make_memory.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    written = (DOCS / "memory.md").read_text(encoding="utf-8")
    assert written == generator.page(), "run `.venv/bin/python docs/make_memory.py`"
    assert generator.MODELS.keys() == PAPER.keys()
    for name, config in generator.MODELS.items():
        assert config.items() <= PAPER[name].items()
