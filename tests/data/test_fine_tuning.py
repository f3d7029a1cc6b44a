"""Rows of fine-tuning: which tokens of demonstrations and of Ghost Attention dialogues are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamita.chat_format.encoding import encode_answer, encode_prompt
from llamita.data.fine_tuning import fine_tuning_dialogues
from llamita.data.intake import Intake
from llamita.data.rows import Dialogue
from llamita.data.settings import DialogueSettings
from llamita.errors import ConfigError, DataError

from ..helpers.packed import packed
from ..helpers.rows import turn, write
from ..helpers.sources import source

PLAIN = turn("is it red ?", "it is red") + turn("again ?", "yes")
GHOST = turn("how are you ?", "fine") + turn("and today ?", "fine again")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "plain.jsonl", [{"messages": PLAIN}, {"messages": turn("hi", " ")}])
    write(tmp_path / "ghost.jsonl", [{"messages": GHOST, "instruction": "you are fine"}, {"messages": GHOST}])
    return tmp_path


def dialogues(data: Path, intake: Intake | None = None, **changed: str) -> list[Dialogue]:
    """All dialogues below `data`; those of Ghost Attention and of distillation in folders, if they exist."""
    paths = {"dialogues": "plain.jsonl", "ghost_attention": "ghost.jsonl"} | changed
    settings = DialogueSettings(**{name: source("messages", path) for name, path in paths.items()})
    folders = {name: data / name for name in ("gatt", "distillation") if (data / name).is_dir()}
    return list(fine_tuning_dialogues(settings, {"data": data, **folders}, intake))


def trained(row: Any) -> list[int]:
    return [label for label in row["labels"].tolist() if label != -100]


def test_demonstrations_train_every_answer_and_ghost_attention_the_last(data: Path, tokenizer: Any) -> None:
    found = dialogues(data)
    rows = [packed(tokenizer, [one], 128, context_length=128)[0][0] for one in found]
    assert trained(rows[0]) == encode_answer(tokenizer, "it is red") + encode_answer(tokenizer, "yes")
    assert trained(rows[1]) == trained(rows[2]) == encode_answer(tokenizer, "fine again")

    system = {"role": "system", "content": "you are fine"}
    with_instruction, without = (
        encode_prompt(tokenizer, [*before, *GHOST[:-1]]) for before in ([system], [])
    )
    for row, prompt in zip(rows[1:], (with_instruction, without), strict=True):
        assert row["input_ids"].tolist()[: len(prompt)] == prompt
        assert set(row["labels"].tolist()[: len(prompt)]) == {-100}
    text = tokenizer.decode(with_instruction)
    assert text.count("you are fine") == 1
    assert text.index("you are fine") < text.index("how are you ?")


def test_packing_counts_everything_and_reports_only_its_own_skips(
    data: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    intake = Intake()
    found = dialogues(data, intake)
    assert intake.skipped == {"empty message": 1}
    assert "empty message" in capsys.readouterr().out  # by the reader
    lengths = [len(encode_prompt(tokenizer, one.messages[:-1])) for one in found]
    length = lengths[1] + len(encode_answer(tokenizer, "fine again"))
    long = Dialogue([*GHOST, *GHOST, *GHOST])
    found.append(long)
    rows, counts = packed(tokenizer, found, length, context_length=1000)
    assert counts["skipped"] == {f"longer than {length} tokens": 1}
    output = capsys.readouterr().out
    assert f"skipped 1 dialogues: longer than {length} tokens" in output
    assert "empty message" not in output

    assert counts["dialogues"] == 3
    assert counts["rows"] == len(rows)
    assert counts["trained_tokens"] == sum(len(trained(row)) for row in rows)
    tokens = sum(int((row["input_ids"] != tokenizer.pad_token_id).sum()) for row in rows)
    assert counts["tokens"] == tokens
    assert counts["fill"] == pytest.approx(tokens / (len(rows) * length))


def test_dialogues_that_raise_errors(data: Path, tokenizer: Any) -> None:
    plain = [Dialogue(PLAIN)]
    with pytest.raises(ConfigError, match=r"max_length: 129 is above the model's context of 128"):
        packed(tokenizer, plain, 129, context_length=128)
    with pytest.raises(DataError, match="none of 1 dialogues fits into a row of 5 tokens"):
        packed(tokenizer, plain, 5, context_length=128)
    system = {"role": "system", "content": "be fine"}
    write(data / "both.jsonl", [{"messages": [system, *GHOST], "instruction": "you are fine"}])
    with pytest.raises(
        DataError, match=r"both.jsonl:1: the row has both an 'instruction' and a system message"
    ):
        dialogues(data, ghost_attention="both.jsonl")


@pytest.mark.parametrize("place", ["distillation", "."])
def test_distilled_dialogues_train_the_last_answer_and_may_have_a_separate_root(
    data: Path, tokenizer: Any, place: str
) -> None:
    system = {"role": "system", "content": "act as bolo"}
    labels = {"category": "illicit", "attack": "logic", "is_safety": True}
    (data / place).mkdir(exist_ok=True)
    write(data / place / "distilled.jsonl", [{"messages": [system, *PLAIN], **labels}])
    plain, _, _, distilled = dialogues(data, distillation="distilled.jsonl")
    assert plain.messages == PLAIN
    assert distilled == Dialogue([system, *PLAIN], trained="last")
    [row], _ = packed(tokenizer, [distilled], 128, context_length=128)
    assert trained(row) == encode_answer(tokenizer, "yes")


def test_ghost_attention_may_have_a_separate_root(data: Path) -> None:
    (data / "gatt").mkdir()
    write(data / "gatt" / "ghost.jsonl", [{"messages": GHOST, "instruction": "you are sampled"}])
    found = dialogues(data)
    assert [one.messages[0]["content"] for one in found] == ["is it red ?", "you are sampled"]
