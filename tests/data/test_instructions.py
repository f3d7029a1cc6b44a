"""Checks of answers against instructions, case by case."""

from __future__ import annotations

import random
import sys
from collections import Counter

import pytest

from llamita.data import instructions
from llamita.data.instructions import KINDS, VALUES, Instruction, Kind, draw_instruction, read_instruction
from llamita.errors import ConfigError, DataError

KEPT: list[tuple[Kind, str, str]] = [
    ("language", "French", "Le pain est fait de farine, d'eau et de sel."),
    ("language", "German", "Das Brot wird aus Mehl, Wasser und Salz gemacht."),
    ("language", "Spanish", "El pan se hace con harina, agua y sal."),
    ("language", "Italian", "Il pane si fa con la farina, l'acqua e il sale."),
    ("language", "Portuguese", "O pão é feito com farinha, água e sal, e não leva açúcar."),
    ("name", "Ada", "I am Ada, and bread takes flour."),
    ("lower_case", "", "bread takes flour, water and salt."),
    ("ending", "over and out", "Bread takes flour. Over and out."),
    ("ending", "so it goes", 'Bread takes flour, "so it goes!"'),
    ("no_commas", "", "Bread takes flour and water."),
    ("word", "river", "Bread takes water from the River."),
]
LOST: list[tuple[Kind, str, str]] = [
    ("language", "French", "Bread is made of flour, water and salt."),
    ("language", "French", "Oui."),  # too short to identify the language
    ("name", "Ada", "Adapters are no names."),
    ("lower_case", "", "bread takes Flour."),
    ("lower_case", "", "1 2 3"),
    ("ending", "over and out", "Over and out, bread takes flour."),
    ("no_commas", "", "Flour, water."),
    ("no_commas", "", "  "),
    ("word", "river", "Rivers are many."),
]


@pytest.mark.parametrize(("kind", "value", "answer"), KEPT)
def test_followed(kind: Kind, value: str, answer: str) -> None:
    assert Instruction(kind, value).is_followed_by(answer)


@pytest.mark.parametrize(("kind", "value", "answer"), LOST)
def test_not_followed(kind: Kind, value: str, answer: str) -> None:
    assert not Instruction(kind, value).is_followed_by(answer)


def test_all_kinds_are_drawn_equally_often_and_can_be_read_again() -> None:
    draw = random.Random(0)
    drawn = [draw_instruction(KINDS, draw) for _ in range(1200)]
    assert all(150 < count < 250 for count in Counter(one.kind for one in drawn).values())
    for one in drawn:
        assert one.value in VALUES[one.kind]
        assert one.value in one.text
        assert one.value in one.short
        assert len(one.short) < len(one.text)
        assert read_instruction(one.row()) == one


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"kind": "rhyme", "value": ""}, "kind is 'rhyme'; expected one of language"),
        (
            {"kind": "language", "value": "Klingon"},
            "value is 'Klingon' for kind 'language'; expected one of French",
        ),
        ({"kind": "word"}, "value is None for kind 'word'; expected a text"),
    ],
)
def test_unknown_checks(row: dict[str, str], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_instruction(row)


def test_the_error_names_the_package_for_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    instructions._identifier.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(ConfigError, match=r'pip install -c constraints\.txt -e "\.\[gatt\]"'):
        Instruction("language", "French").is_followed_by("un deux trois")
