"""The stage `tokenizer`: inputs, outputs and metrics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from llamita.data.intake import Intake
from llamita.errors import DataError
from llamita.model.checkpoint import load_tokenizer
from llamita.settings import Source
from llamita.tokenizer.settings import TokenizerSettings
from llamita.tokenizer.stage import run

SETTINGS = TokenizerSettings(
    vocab_size=350,
    documents=[Source(path="text.jsonl", format="text_rows")],
    dialogues=[Source(path="dialogues.jsonl", format="messages")],
)


def write_data(root: Path) -> None:
    texts = [{"text": f"bolo is red . mila is blue . {number}"} for number in range(200)] + [{"text": ""}]
    (root / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    user, answer = {"role": "user", "content": "zebra ?"}, {"role": "assistant", "content": "stripes"}
    row = {"messages": [user, answer]}
    (root / "dialogues.jsonl").write_text((json.dumps(row) + "\n") * 100)


def test_stage(tmp_path: Path) -> None:
    write_data(tmp_path)
    metrics = run(SETTINGS, {"data": tmp_path}, tmp_path / "out")
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens(tokenizer("bolo is")["input_ids"]) == ["<s>", " bolo", " is"]
    assert " zebra" in tokenizer.get_vocab()  # dialogues are trained on as well
    assert " stripes" in tokenizer.get_vocab()
    size = sum(len(f"bolo is red . mila is blue . {number}") for number in range(200))
    ids = sum(len(tokenizer(f"bolo is red . mila is blue . {n}")["input_ids"]) - 1 for n in range(200))
    assert metrics == {
        "vocab_size": len(tokenizer),
        "bytes_per_token": pytest.approx(size / ids),
        "unknown_tokens": 0,
        "tokens_per_tag": {"[INST]": 1, "[/INST]": 1, "<<SYS>>": 1, "<</SYS>>": 1},
        "documents": 200,
        "dialogues": 100,
        **(Intake().metrics() | {"skipped": {"empty document": 1}}),
    }
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_bad_row_stops_the_stage(tmp_path: Path) -> None:
    write_data(tmp_path)
    with (tmp_path / "text.jsonl").open("a") as file:
        file.write('{"text": 3}\n')
    with pytest.raises(DataError, match=r"text.jsonl:202: field 'text' is int; expected text"):
        run(SETTINGS, {"data": tmp_path}, tmp_path / "out")


def test_settings() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 320"):
        TokenizerSettings(vocab_size=259, documents=SETTINGS.documents)
    with pytest.raises(ValidationError, match="at least 1 item"):
        TokenizerSettings(vocab_size=400, documents=[])
