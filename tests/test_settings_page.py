"""`docs/settings.md` tells of every key that the settings classes have, as they are now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_page_is_what_the_classes_say() -> None:
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    written = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert written == generator.page(), "run `.venv/bin/python docs/make_settings.py`"
