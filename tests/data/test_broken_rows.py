"""Errors of bad files and rows: location, problem, and what is expected."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamita.data.sources import read_dialogues, read_labelled_answers, read_prompts
from llamita.errors import DataError

from ..helpers.rows import COMPARED, PAIR, write
from ..helpers.sources import read_comparisons, source

BROKEN: dict[str, tuple[Callable[..., Any], str, Any, str]] = {
    "no json": (read_dialogues, "messages", '{"messages": \n', "invalid JSON"),
    "no object": (read_dialogues, "messages", "[1]\n", "the row is a list; expected a JSON object"),
    "missing field": (
        read_dialogues,
        "alpaca",
        {"instruction": "a"},
        "field 'output' is missing; expected text",
    ),
    "null field": (read_dialogues, "alpaca", {"instruction": "a", "output": None}, "'output' is missing"),
    "wrong type": (
        read_dialogues,
        "alpaca",
        {"instruction": "a", "output": 3},
        "'output' is int; expected text",
    ),
    "no list": (read_dialogues, "messages", {"messages": "hi"}, "'messages' is str; expected list or tuple"),
    "no message": (
        read_dialogues,
        "messages",
        {"messages": ["hi"]},
        "contains str; expected objects",
    ),
    "role": (
        read_dialogues,
        "messages",
        {"messages": [{"role": "bot", "content": "a"}]},
        "role 'bot'; expected",
    ),
    "order": (read_dialogues, "messages", {"messages": PAIR[:1]}, "the last one assistant"),
    "number": (
        read_dialogues,
        "alpaca",
        f'{{"instruction": "a", "output": "b", "n": {"1" * 5000}}}\n',
        "invalid JSON: a number of more than 4,300 digits",
    ),
    "history": (
        read_dialogues,
        "alpaca",
        {"instruction": "a", "output": "b", "history": [["hi"]]},
        "'history' contains ['hi']; expected [user, assistant], both texts",
    ),
    "prompt and messages": (
        read_prompts,
        "prompts",
        {"messages": PAIR[:1], "prompt": "bye"},
        "field 'prompt' is neither the first user message nor the last",
    ),
    "history and messages": (
        read_prompts,
        "prompts",
        {"messages": PAIR[:1], "history": [["a?", "b"]]},
        "the row has both 'messages' and 'history'; keep one of them",
    ),
    "two systems": (
        read_dialogues,
        "messages",
        {"system": "be brief", "messages": [{"role": "system", "content": "be long"}, *PAIR]},
        "field 'system' differs from the system message",
    ),
    "rating": (
        read_comparisons,
        "comparison",
        {"prompt": "a", **COMPARED, "rating": "best"},
        "field 'rating' is 'best'; expected",
    ),
    "label": (
        read_comparisons,
        "comparison",
        {"prompt": "a", **COMPARED, "chosen_safe": "yes"},
        "expected bool",
    ),
    "transcript": (read_comparisons, "hh", {"chosen": "hi", "rejected": "ho"}, "is not a transcript"),
    "grades": (
        read_comparisons,
        "gsm8k_solutions",
        {"question": "a"},
        "'6b_finetuning' is missing or not graded",
    ),
    "no label": (
        read_labelled_answers,
        "labelled_answers",
        {"answer": "a"},
        "field 'refusal' is missing; expected true or false",
    ),
    "answer label": (
        read_labelled_answers,
        "labelled_answers",
        {"answer": "a", "refusal": "perhaps"},
        "field 'refusal' is str; expected bool",
    ),
    "speaker": (
        read_dialogues,
        "sharegpt",
        {"conversations": [{"from": "cat", "value": "a"}]},
        "turn is 'cat'",
    ),
    "surrogate": (
        read_dialogues,
        "prompt_completion",
        '{"prompt": "\\ud800", "completion": "a"}\n',
        "surrogate",
    ),
}
SOUND = {
    "messages": {"messages": PAIR},
    "alpaca": {"instruction": "a", "output": "b"},
    "prompts": {"prompt": "a"},
    "prompt_completion": {"prompt": "a", "completion": "b"},
    "comparison": {"prompt": "a", **COMPARED},
    "hh": {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    "gsm8k_solutions": {},
    "labelled_answers": {"answer": "a", "refusal": False},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_error_of_a_bad_row_has_file_and_line(tmp_path: Path, name: str) -> None:
    read, format, row, problem = BROKEN[name]
    before = [SOUND[format], "\n"] if SOUND[format] else ["\n", "\n"]  # blank lines count as lines
    path = write(tmp_path / "rows.jsonl", [*before, row])
    with pytest.raises(DataError) as error:
        read(source(format), tmp_path)
    assert str(error.value).startswith(f"{path}:3: ")
    assert problem in str(error.value)


def test_unreadable_files(tmp_path: Path) -> None:
    def message(path: str, format: str = "messages") -> str:
        with pytest.raises(DataError) as error:
            read_dialogues(source(format, path), tmp_path)
        return str(error.value)

    write(tmp_path / "empty.jsonl", [])
    write(tmp_path / "blank.jsonl", ["\n\n"])
    write(tmp_path / "skipped.jsonl", [{"prompt": "a", "completion": ""}])
    write(tmp_path / "array.json", ['[{"messages": 1},\n 2, ]'])
    write(tmp_path / "head.csv", ["prompt,completion\n", "a,b,c\n"])
    write(tmp_path / "notes.txt", ["hi"])
    write(tmp_path / "model.bin", ["hi"])
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "é"}'.encode("latin-1"))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "a"}\n' * 1000)[:40])
    (tmp_path / "no.parquet").write_bytes(b"hello")
    (tmp_path / "folder").mkdir()
    assert "empty.jsonl: the file is empty" in message("empty.jsonl")
    assert "blank.jsonl: no usable row; expected rows of format 'messages'" in message("blank.jsonl")
    assert "skipped.jsonl: no usable row" in message("skipped.jsonl", "prompt_completion")
    assert "array.json:2: invalid JSON" in message("array.json")
    assert "head.csv:2: the row has more fields than the 2 in" in message("head.csv")
    assert "plain text file has no fields" in message("notes.txt")
    assert "unknown file type; expected .jsonl" in message("model.bin")
    assert "latin.jsonl:1: invalid UTF-8" in message("latin.jsonl", "prompt_completion")
    assert "cut.jsonl.gz: can't be read" in message("cut.jsonl.gz", "prompt_completion")
    assert "no.parquet: can't be read" in message("no.parquet")
    assert "expected data files of one kind in this folder, found none" in message("folder")
    assert "format 'mesages' cannot be used for dialogues; did you mean 'messages'?" in message(
        "blank.jsonl", "mesages"
    )


def test_a_missing_file_suggests_similar_names(tmp_path: Path) -> None:
    write(tmp_path / "sft" / "dialogues.jsonl", [{"messages": PAIR}])
    with pytest.raises(
        DataError, match=r"sft/dialogs.jsonl: does not exist .* did you mean sft/dialogues.jsonl"
    ):
        read_dialogues(source("messages", "sft/dialogs.jsonl"), tmp_path)
