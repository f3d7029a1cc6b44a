"""Dialogues as text, and templates."""

from __future__ import annotations

from typing import Any

from llamita.judges.prompts import dialogue_text, fill

from ..helpers.rows import turn


def test_dialogues_as_text() -> None:
    assert dialogue_text(turn("how ?")) == "how ?"
    messages: Any = [{"role": "system", "content": "be kind"}, *turn("hi", "hello"), *turn("how ?")]
    assert dialogue_text(messages) == "System: be kind\n\nUser: hi\n\nAssistant: hello\n\nUser: how ?"


def test_placeholders_in_inserted_texts_stay() -> None:
    assert fill("{a}-{b}-{a}", {"{a}": "{b}", "{b}": "{a}"}) == "{b}-{a}-{b}"
