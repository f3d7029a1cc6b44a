"""Bad rows: one rule for all kinds of rows, the counts, and which prompts are safety prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from llamita.data.intake import Intake
from llamita.data.rows import Prompt
from llamita.data.settings import PromptSource, RowSettings
from llamita.data.sources import (
    read_dialogues,
    read_documents,
    read_labelled_answers,
    read_prompts,
)
from llamita.errors import DataError
from llamita.runner.stages import REGISTRY, settings_class
from llamita.settings import Source

from ..helpers.rows import COMPARED, PAIR, write
from ..helpers.sources import read_comparisons, source

BAD: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "text_rows": (read_documents, {"text": "fine"}, {"txt": "fine"}),
    "messages": (read_dialogues, {"messages": PAIR}, {"messages": PAIR[:1]}),
    "comparison": (read_comparisons, {"prompt": "hi", **COMPARED}, {"prompt": "hi"}),
    "labelled_answers": (read_labelled_answers, {"answer": "no", "refusal": True}, {"answer": "no"}),
    "prompts": (read_prompts, {"messages": PAIR[:1]}, {"messages": PAIR}),
}


@pytest.mark.parametrize("format", BAD)
def test_one_rule_for_all_kinds_of_rows(tmp_path: Path, format: str, capsys: Any) -> None:
    read, good, bad = BAD[format]
    path = write(tmp_path / "rows.jsonl", [bad, good, bad, "{\n"])
    with pytest.raises(DataError, match=rf"^{path}:1: "):
        list(read(source(format), tmp_path))
    with pytest.raises(DataError, match=rf"^{path}:4: .*; 2 bad rows before it were skipped"):
        list(read(source(format), tmp_path, Intake(2)))
    intake = Intake(3)
    assert len(list(read(source(format), tmp_path, intake))) == 1
    assert intake.metrics()["bad_rows"] == 3
    assert "rows.jsonl: 3 bad rows skipped, listed in bad_rows.jsonl" in capsys.readouterr().out
    intake.write(tmp_path)
    listed = [json.loads(line) for line in (tmp_path / "bad_rows.jsonl").read_text().splitlines()]
    assert [reason.split(": ")[0] for reason in listed] == [f"{path}:{line}" for line in (1, 3, 4)]


def test_every_stage_with_sources_has_the_setting() -> None:
    def sources(annotation: Any) -> bool:
        if isinstance(annotation, type):
            return issubclass(annotation, Source) or any(
                sources(field.annotation) for field in getattr(annotation, "model_fields", {}).values()
            )
        return any(map(sources, get_args(annotation)))

    with_sources = {kind for kind in REGISTRY if sources(settings_class(kind))}
    other_rows = {"benchmark"}  # in the schemas of the benchmarks' authors
    assert with_sources == set(REGISTRY) - {"world", "report"} - other_rows
    assert all(issubclass(settings_class(kind), RowSettings) for kind in with_sources | other_rows)


def test_max_bad_rows_may_change_when_a_run_resumes() -> None:
    schema = settings_class("tokenizer")
    first, other = (
        schema.model_validate(
            {"vocab_size": 400, "documents": source("text"), "max_bad_rows": most}
        ).fingerprinted()
        for most in (0, 5)
    )
    assert schema.decisive(first, resuming=True) == schema.decisive(other, resuming=True)
    assert schema.decisive(first) != schema.decisive(other)


def prompts(path: str, format: str, is_safety: bool | None = None) -> PromptSource:
    return PromptSource(path=path, format=format, is_safety=is_safety)


def test_a_source_decides_whether_its_prompts_are_safety_prompts(tmp_path: Path) -> None:
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
        "listed as ordinary and as safety prompts: used as safety prompts": 1
    }
    assert intake.skipped == {"repeated prompt": 1}
    assert "1 prompts are listed as ordinary and as safety prompts: used as" in capsys.readouterr().out
