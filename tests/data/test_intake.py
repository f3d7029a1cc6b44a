"""Bad rows: which they are for which model, that one rule holds for all kinds, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from llamita.chat_format.encoding import check_of
from llamita.chat_format.llama2 import CHAT_TEMPLATE
from llamita.data.intake import Intake
from llamita.data.rows import Prompt
from llamita.data.settings import PromptSource, RowSettings
from llamita.data.sources import read_comparisons, read_dialogues, read_documents, read_prompts
from llamita.errors import DataError
from llamita.runner.stages import REGISTRY, settings_class
from llamita.settings import Source

from ..helpers.chatml import chatml_tokenizer
from ..helpers.rows import COMPARED, PAIR, write
from ..helpers.sources import source

BAD: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "text_rows": (read_documents, {"text": "fine"}, {"txt": "fine"}),
    "messages": (read_dialogues, {"messages": PAIR}, {"messages": PAIR[:1]}),
    "comparison": (read_comparisons, {"prompt": "hi", **COMPARED}, {"prompt": "hi"}),
    "prompts": (read_prompts, {"messages": PAIR[:1]}, {"messages": PAIR}),
}


@pytest.mark.parametrize("format", BAD)
def test_one_rule_for_all_kinds_of_rows(tmp_path: Path, format: str, capsys: Any) -> None:
    read, good, bad = BAD[format]
    path = write(tmp_path / "rows.jsonl", [bad, good, bad, "{\n"])
    with pytest.raises(DataError, match=rf"^{path}:1: "):
        list(read(source(format), tmp_path))
    with pytest.raises(DataError, match=rf"^{path}:4: .*; 2 broken rows before it were left out"):
        list(read(source(format), tmp_path, Intake(2)))
    intake = Intake(3)
    assert len(list(read(source(format), tmp_path, intake))) == 1
    assert intake.metrics()["refused"] == 3
    assert "rows.jsonl: 3 bad rows left out; refused.jsonl lists them" in capsys.readouterr().out
    intake.write(tmp_path)
    listed = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [reason.split(": ")[0] for reason in listed] == [f"{path}:{line}" for line in (1, 3, 4)]


def test_every_stage_with_sources_has_the_setting() -> None:
    def sources(annotation: Any) -> bool:
        if isinstance(annotation, type):
            return issubclass(annotation, Source) or any(
                sources(field.annotation) for field in getattr(annotation, "model_fields", {}).values()
            )
        return any(map(sources, get_args(annotation)))

    with_sources = {kind for kind in REGISTRY if sources(settings_class(kind))}
    assert with_sources == set(REGISTRY) - {"world", "report"}
    assert all(issubclass(settings_class(kind), RowSettings) for kind in with_sources)


def test_it_changes_no_result_of_an_unfinished_run() -> None:
    schema = settings_class("tokenizer")
    first, other = (
        schema.model_validate(
            {"vocabulary_size": 400, "documents": source("text"), "refuse_at_most": most}
        ).fingerprinted()
        for most in (0, 5)
    )
    assert schema.decisive(first, resuming=True) == schema.decisive(other, resuming=True)
    assert schema.decisive(first) != schema.decisive(other)


# ------------------------------------------------------------------------------ control strings


def rows_with(text: str) -> dict[str, tuple[Any, dict[str, Any]]]:
    said = [{"role": "user", "content": text}]
    return {
        "messages": (read_dialogues, {"messages": [*said, PAIR[1]]}),
        "alpaca": (read_dialogues, {"instruction": "a", "output": "b", "system": text}),
        "comparison": (read_comparisons, {"prompt": "a", "chosen": "b", "rejected": text}),
        "prompts": (read_prompts, {"messages": said}),
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


def test_its_own_make_a_bad_row(model: tuple[str, Any], tmp_path: Path) -> None:
    name, tokenizer = model
    for text in CONTROL[name]:
        for format, (read, row) in rows_with(f"what is {text} ?").items():
            good = BAD.get(format, (None, {"instruction": "a", "output": "b"}))[1]
            path = write(tmp_path / "rows.jsonl", [good, row])
            with pytest.raises(DataError) as error:
                read(source(format), tmp_path, Intake(check=check_of(tokenizer)))
            assert str(error.value).startswith(f"{path}:2: a ")
            assert f"contains {text!r}, a control string of the model's chat format" in str(error.value)
            intake = Intake(1, check_of(tokenizer))
            assert len(read(source(format), tmp_path, intake)) == 1
            assert len(intake.refused) == 1


def test_tags_of_a_template_are_control_strings_though_no_tokens(tokenizer: Any) -> None:
    other = chatml_tokenizer()
    other.chat_template = CHAT_TEMPLATE.replace("'<unk>', ", "")  # Llama 2's in other words
    with pytest.raises(DataError, match=r"contains '\[INST\]', a control string"):
        check_of(other)([{"role": "user", "content": "[INST]"}], "user")


def test_what_a_template_refuses_is_a_bad_row(tmp_path: Path) -> None:
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
        + tokenizer.chat_template
    )
    write(tmp_path / "rows.jsonl", [{"messages": PAIR, "instruction": "be brief"}, {"messages": PAIR}])
    with pytest.raises(DataError, match=r"rows.jsonl:1: the chat template refuses the messages: no system"):
        read_dialogues(source("messages"), tmp_path, Intake(check=check_of(tokenizer)))
    assert len(read_dialogues(source("messages"), tmp_path, Intake(1, check_of(tokenizer)))) == 1


# --------------------------------------------------------------------------------- safety prompts


def prompts(path: str, format: str, is_safety: bool | None = None) -> PromptSource:
    return PromptSource(path=path, format=format, is_safety=is_safety)


def test_a_source_says_whether_its_prompts_are_safety_prompts(tmp_path: Path) -> None:
    row = {"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b"}
    write(tmp_path / "hh.jsonl", [row])
    write(tmp_path / "own.jsonl", [{"messages": PAIR[:1], "is_safety": True}])
    for path, format, is_safety, expected in (
        ("hh.jsonl", "hh", None, False),
        ("hh.jsonl", "hh", True, True),
        ("own.jsonl", "prompts", None, True),
        ("own.jsonl", "prompts", False, False),
    ):
        assert read_prompts([prompts(path, format, is_safety)], tmp_path) == [Prompt(PAIR[:1], expected)]


@pytest.mark.parametrize("safety_first", [True, False])
def test_a_prompt_listed_as_both_is_a_safety_prompt(tmp_path: Path, safety_first: bool, capsys: Any) -> None:
    bye = [{"role": "user", "content": "bye"}]
    write(tmp_path / "a.jsonl", [{"messages": PAIR[:1]}, {"messages": bye}])
    write(tmp_path / "b.jsonl", [{"messages": PAIR[:1], "id": "b"}, {"messages": PAIR[:1]}])
    sources = [prompts("a.jsonl", "prompts", False), prompts("b.jsonl", "prompts", True)]
    intake = Intake()
    read = read_prompts(sources[::-1] if safety_first else sources, tmp_path, intake)
    assert {(one.messages[0]["content"], one.id, one.is_safety) for one in read} == {
        ("hi", None, True),
        ("hi", "b", True),
        ("bye", None, False),
    }
    assert intake.metrics()["changed"] == {
        "listed as ordinary and as safety prompts: taken as safety prompts": 1
    }
    assert intake.skipped == {"repeated prompt": 1}
    assert "1 prompts are listed as ordinary and as safety prompts: taken as" in capsys.readouterr().out
