"""Rows that a chat format cannot write: its own control strings, and messages that its template rejects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamita.chat_format.encoding import check_of
from llamita.chat_format.llama2 import CHAT_TEMPLATE
from llamita.data.intake import Intake
from llamita.data.sources import read_dialogues, read_labelled_answers, read_prompts
from llamita.errors import DataError

from ..helpers.chatml import chatml_tokenizer
from ..helpers.rows import PAIR, write
from ..helpers.sources import read_comparisons, source


def rows_with(text: str) -> dict[str, tuple[Any, dict[str, Any]]]:
    messages = [{"role": "user", "content": text}]
    return {
        "messages": (read_dialogues, {"messages": [*messages, PAIR[1]]}),
        "alpaca": (read_dialogues, {"instruction": "a", "output": "b", "system": text}),
        "comparison": (read_comparisons, {"prompt": "a", "chosen": "b", "rejected": text}),
        "labelled_answers": (read_labelled_answers, {"answer": text, "refusal": True}),
        "prompts": (read_prompts, {"messages": messages}),
    }


PLAIN = {"llama2": ["<|im_end|>", "<|im_start|>"], "chatml": ["<s>", "[INST]", "<</SYS>>", "<unk>"]}
CONTROL = {"llama2": PLAIN["chatml"], "chatml": [*PLAIN["llama2"], "<|endoftext|>"]}


@pytest.fixture(params=["llama2", "chatml"])
def model(request: pytest.FixtureRequest, tokenizer: Any) -> tuple[str, Any]:
    return request.param, tokenizer if request.param == "llama2" else chatml_tokenizer()


def test_another_models_control_strings_are_text(model: tuple[str, Any], tmp_path: Path) -> None:
    name, tokenizer = model
    for text in PLAIN[name]:
        for format, (read, row) in rows_with(f"what is {text} ?").items():
            write(tmp_path / "rows.jsonl", [row])
            assert len(read(source(format), tmp_path, Intake(check=check_of(tokenizer)))) == 1


def test_the_models_own_control_strings_make_a_bad_row(model: tuple[str, Any], tmp_path: Path) -> None:
    name, tokenizer = model
    for text in CONTROL[name]:
        for format, (read, row) in rows_with(f"what is {text} ?").items():
            good = rows_with("fine")[format][1]
            path = write(tmp_path / "rows.jsonl", [good, row])
            with pytest.raises(DataError) as error:
                read(source(format), tmp_path, Intake(check=check_of(tokenizer)))
            assert str(error.value).startswith(f"{path}:2: a ")
            assert f"contains {text!r}, a control string of the model's chat format" in str(error.value)
            intake = Intake(1, check_of(tokenizer))
            assert len(read(source(format), tmp_path, intake)) == 1
            assert len(intake.bad_rows) == 1


def test_tags_of_a_template_are_control_strings_without_being_tokens(tokenizer: Any) -> None:
    other = chatml_tokenizer()
    other.chat_template = CHAT_TEMPLATE.replace("'<unk>', ", "")  # Llama 2's in other words
    with pytest.raises(DataError, match=r"contains '\[INST\]', a control string"):
        check_of(other)([{"role": "user", "content": "[INST]"}], "user")


def test_messages_that_a_template_rejects_are_a_bad_row(tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
        + tokenizer.chat_template
    )
    write(tmp_path / "rows.jsonl", [{"messages": PAIR, "instruction": "be brief"}, {"messages": PAIR}])
    with pytest.raises(DataError, match=r"rows.jsonl:1: the chat template rejects the messages: no system"):
        read_dialogues(source("messages"), tmp_path, Intake(check=check_of(tokenizer)))
    assert len(read_dialogues(source("messages"), tmp_path, Intake(1, check_of(tokenizer)))) == 1
