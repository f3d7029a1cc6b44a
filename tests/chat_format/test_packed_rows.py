"""Packed rows in files: the same rows as packing in memory, made once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamita.chat_format import packed_rows
from llamita.chat_format.encoding import Encoded, encode_dialogues
from llamita.chat_format.llama2 import CHAT_TEMPLATE
from llamita.chat_format.packed_rows import PackedRows, pack_dialogues
from llamita.chat_format.packing import best_fit
from llamita.data import row_files
from llamita.data.rows import Dialogue

from ..helpers.chatml import chatml_tokenizer
from ..helpers.rows import turn
from ..helpers.two_ranks import on_two_ranks

LENGTH = 48
WORDS = "what is the color of bolo ? it is red . again and how are you".split()


def dialogues(count: int = 60) -> list[Dialogue]:
    draw = random.Random(1)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 14)))

    return [
        Dialogue(
            [message for _ in range(draw.randint(1, 2)) for message in turn(text(), text())],
            trained=draw.choice(["all", "last"]),
        )
        for _ in range(count)
    ]


def packed(tokenizer: Any, folder: Path, count: int = 60, **changes: Any) -> PackedRows:
    options = {"max_length": LENGTH, "context_length": 256, "seed": 7, "identity": {}} | changes
    return pack_dialogues(tokenizer, dialogues(count), folder=folder, **options)


def in_memory(encoded: Sequence[Encoded], seed: int, pad: int) -> list[dict[str, list[int]]]:
    """The rows as they were packed before there were files: all dialogues shuffled, then best fit."""
    shuffled = random.Random(f"{seed}/packing").sample(encoded, len(encoded))
    rows = []
    for row in best_fit([len(one.input_ids) for one in shuffled], LENGTH):
        parts = [shuffled[index] for index in row]
        pads = LENGTH - sum(len(part.input_ids) for part in parts)
        rows.append(
            {
                "input_ids": [id for part in parts for id in part.input_ids] + [pad] * pads,
                "labels": [label for part in parts for label in part.labels] + [-100] * pads,
                "position_ids": [
                    at for size in [*(len(part.input_ids) for part in parts), pads] for at in range(size)
                ],
            }
        )
    return rows


def as_lists(rows: PackedRows) -> list[dict[str, list[int]]]:
    return [{name: np.asarray(values).tolist() for name, values in row.items()} for row in rows]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_files, "BATCH_ROWS", 4)
    monkeypatch.setattr(row_files, "PART_BATCHES", 2)


def test_rows_and_counts_equal_packing_in_memory(tokenizer: Any, tmp_path: Path) -> None:
    encoded = encode_dialogues(tokenizer, dialogues())
    fitting = [one for one in encoded if len(one.input_ids) <= LENGTH]
    assert 0 < len(fitting) < len(encoded), "a premise"
    rows = packed(tokenizer, tmp_path)
    expected = in_memory(encoded, 7, tokenizer.pad_token_id)
    assert as_lists(rows) == expected
    tokens = sum(len(one.input_ids) for one in fitting)
    assert rows.counts == {
        "dialogues": len(fitting),
        "rows": len(expected),
        "tokens": tokens,
        "trained_tokens": sum(label != -100 for one in fitting for label in one.labels),
        "fill": tokens / (len(expected) * LENGTH),
        "skipped": {f"longer than {LENGTH} tokens": len(encoded) - len(fitting)},
    }
    assert rows.mean_position == np.mean([row["position_ids"] for row in expected])
    assert rows.length == LENGTH
    assert not (tmp_path / "encoded").exists()


@pytest.mark.parametrize("step", ["encode_dialogues", "packed_row"])
def test_a_killed_process_resumes(tokenizer: Any, tmp_path: Path, step: str) -> None:
    """Killed in the last part of tokenizing or of packing; complete parts are not made again."""
    original = getattr(packed_rows, step)

    def calls(folder: Path, stop: int | None = None) -> int:
        count = 0

        def spy(*given: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == stop:
                raise KeyboardInterrupt
            return original(*given, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packed_rows, step, spy)
            packed(tokenizer, folder)
        return count

    total = calls(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        calls(tmp_path / "killed", total)
    assert 0 < calls(tmp_path / "killed") <= 8 < total
    assert calls(tmp_path / "killed") == 0, "complete rows are only opened"
    whole, resumed = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "packed").iterdir()}
        for name in ("whole", "killed")
    )
    assert resumed == whole


def test_rows_of_other_settings_or_another_tokenizer_are_not_used(tokenizer: Any, tmp_path: Path) -> None:
    first = as_lists(packed(tokenizer, tmp_path))
    for change in ({"seed": 8}, {"max_length": 96}, {"one_per_row": True}):
        changed = as_lists(packed(tokenizer, tmp_path, **change))
        assert changed == as_lists(packed(tokenizer, tmp_path / "fresh", **change)) != first
    assert len(packed(tokenizer, tmp_path, 30, identity={"more": 1}).rows) < len(first)
    other = chatml_tokenizer()
    chatml = as_lists(packed(other, tmp_path))
    other.chat_template = CHAT_TEMPLATE
    assert as_lists(packed(other, tmp_path)) != chatml, "the same vocabulary, another template"
    assert as_lists(packed(tokenizer, tmp_path)) == first


def test_only_the_main_process_reads_the_dialogues(tokenizer: Any, tmp_path: Path) -> None:
    def work() -> Any:
        from llamita.processes import is_main_process

        rows: Any = dialogues() if is_main_process() else None
        made = pack_dialogues(
            tokenizer, rows, LENGTH, context_length=256, seed=7, folder=tmp_path / "rows", identity={}
        )
        return as_lists(made), made.counts, [file["filename"] for file in made.rows.cache_files]

    first, second = on_two_ranks(work, tmp_path)
    assert first == second
    assert first[0] == as_lists(packed(tokenizer, tmp_path / "alone"))
