"""Fields of rows: known ones are used, all others are counted by name and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamita.data.intake import Intake
from llamita.data.rows import Comparison, Dialogue, Prompt
from llamita.data.sources import read_dialogues, read_documents, read_prompts
from llamita.errors import DataError

from ..helpers.rows import COMPARED, PAIR, write
from ..helpers.sources import read_comparisons, source

SYSTEM = [{"role": "system", "content": "be brief"}]
USER, ANSWER = PAIR[:1], PAIR[1:]
EARLIER = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]
YES, NO = ([{"role": "assistant", "content": text}] for text in COMPARED.values())

DIALOGUES = [
    ("alpaca", {"instruction": "hi", "output": "hello", "system": "be brief", "history": [["a?", "b"]]}),
    (
        "prompt_completion",
        {"prompt": "hi", "completion": "hello", "system": "be brief", "history": [["a?", "b"]]},
    ),
    ("messages", {"system": "be brief", "messages": [*EARLIER, *PAIR]}),
    ("messages", {"system": " be brief\n", "messages": [*SYSTEM, *EARLIER, *PAIR]}),
    (
        "sharegpt",
        {
            "system": "be brief",
            "conversations": [
                {"from": "human" if one["role"] == "user" else "gpt", "value": one["content"]}
                for one in [*EARLIER, *PAIR]
            ],
        },
    ),
]


@pytest.mark.parametrize(("format", "row"), DIALOGUES)
def test_system_and_history_come_before_the_prompt(
    tmp_path: Path, format: str, row: Any, capsys: Any
) -> None:
    write(tmp_path / "rows.jsonl", [row])
    expected = [*SYSTEM, *EARLIER, *PAIR]
    assert read_dialogues(source(format), tmp_path) == [Dialogue(expected)]
    assert read_prompts(source(format), tmp_path) == [Prompt(expected[:-1])]
    assert capsys.readouterr().out == ""


def test_empty_fields_count_as_missing(tmp_path: Path, capsys: Any) -> None:
    write(
        tmp_path / "rows.jsonl",
        [{"instruction": "hi", "output": "hello", "system": "", "history": [], "id": None}],
    )
    assert read_dialogues(source("alpaca"), tmp_path) == [Dialogue(PAIR)]
    assert capsys.readouterr().out == ""


COMPARISONS: list[tuple[dict[str, Any], list[Any]]] = [
    (
        {"prompt": "hi", "system": "be brief", "history": [["a?", "b"]], **COMPARED},
        [*SYSTEM, *EARLIER, *USER],
    ),
    ({"prompt": [*SYSTEM, *EARLIER, *USER], "chosen": YES, "rejected": NO}, [*SYSTEM, *EARLIER, *USER]),
    # with whole dialogues, the prompt equals their prompt, or its first or last user message
    ({"prompt": USER, "chosen": USER + YES, "rejected": USER + NO}, USER),
    ({"prompt": [*SYSTEM, *USER], "chosen": USER + YES, "rejected": USER + NO}, [*SYSTEM, *USER]),
    ({"prompt": USER, "chosen": SYSTEM + USER + YES, "rejected": SYSTEM + USER + NO}, [*SYSTEM, *USER]),
    ({"prompt": "a?", "chosen": EARLIER + USER + YES, "rejected": EARLIER + USER + NO}, [*EARLIER, *USER]),
    ({"prompt": "hi", "chosen": EARLIER + USER + YES, "rejected": EARLIER + USER + NO}, [*EARLIER, *USER]),
    ({"prompt": "", "chosen": USER + YES, "rejected": USER + NO, "system": "be brief"}, [*SYSTEM, *USER]),
    # or it precedes the messages
    ({"prompt": SYSTEM, "chosen": USER + YES, "rejected": USER + NO}, [*SYSTEM, *USER]),
    ({"prompt": EARLIER, "chosen": USER + YES, "rejected": USER + NO}, [*EARLIER, *USER]),
    (
        {"prompt": "a?", "chosen": [EARLIER[1], *USER, *YES], "rejected": [EARLIER[1], *USER, *NO]},
        [*EARLIER, *USER],
    ),
]


@pytest.mark.parametrize(("row", "prompt"), COMPARISONS)
def test_a_prompt_field_together_with_messages(tmp_path: Path, row: Any, prompt: Any, capsys: Any) -> None:
    write(tmp_path / "rows.jsonl", [row])
    assert read_comparisons(source("comparison"), tmp_path) == [Comparison(prompt, "yes", "no")]
    assert capsys.readouterr().out == ""


def test_a_prompt_that_contradicts_its_messages_is_skipped(tmp_path: Path, capsys: Any) -> None:
    other = {"prompt": "bye", "chosen": USER + YES, "rejected": USER + NO}
    write(tmp_path / "rows.jsonl", [other, {"prompt": "hi", **COMPARED}])
    assert len(read_comparisons(source("comparison"), tmp_path)) == 1
    assert (
        "1 skipped: its field 'prompt' differs from the prompt in its messages (1)" in capsys.readouterr().out
    )
    write(tmp_path / "rows.jsonl", [{"prompt": USER, "chosen": [], "rejected": NO}])
    with pytest.raises(
        DataError, match=r"rows.jsonl:1: field 'chosen': expected messages whose last one is the assistant's"
    ):
        read_comparisons(source("comparison"), tmp_path)


@pytest.mark.parametrize("prompt", ["a?", " hi\n", "", None])
def test_a_prompt_beside_messages_that_contain_it(tmp_path: Path, prompt: str | None, capsys: Any) -> None:
    write(tmp_path / "rows.jsonl", [{"messages": [*EARLIER, *USER], "prompt": prompt, "history": []}])
    assert read_prompts(source("prompts"), tmp_path) == [Prompt([*EARLIER, *USER])]
    assert capsys.readouterr().out == ""


def test_unused_fields_are_counted_and_reported(tmp_path: Path, capsys: Any) -> None:
    from llamita.data.intake import Intake

    weighted = [{**PAIR[0], "name": ""}, {**PAIR[1], "weight": 0}]
    rows = [{"messages": weighted, "tools": [{"name": "f"}], "weight": 2}, {"messages": PAIR, "weight": 0.5}]
    write(tmp_path / "rows.jsonl", rows)
    intake = Intake()
    read_dialogues(source("messages"), tmp_path, intake)
    assert intake.metrics()["ignored_fields"] == {"messages.weight": 1, "tools": 1, "weight": 2}
    unused = "format 'messages' does not use: weight (2 rows), messages.weight (1 rows), tools (1 rows)"
    assert f"rows.jsonl: fields that {unused}" in capsys.readouterr().out
    write(tmp_path / "rows.jsonl", [{"text": "a", "url": "b"}])
    assert list(read_documents(source("text_rows"), tmp_path, intake)) == ["a"]
    assert intake.ignored["url"] == 1


def test_an_empty_system_message_is_dropped(tmp_path: Path) -> None:
    turns = [
        {"from": "system", "value": " "},
        {"from": "human", "value": "hi"},
        {"from": "gpt", "value": "hello"},
    ]
    write(tmp_path / "rows.jsonl", [{"conversations": turns}])
    assert read_dialogues(source("sharegpt"), tmp_path) == [Dialogue(PAIR)]
    write(tmp_path / "rows.jsonl", [{"prompt": [{"role": "system", "content": ""}, *USER], **COMPARED}])
    assert read_comparisons(source("comparison"), tmp_path) == [Comparison(USER, "yes", "no")]


def test_a_blank_instruction_counts_as_missing(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"instruction": " \n", "messages": [*SYSTEM, *PAIR]}])
    assert read_dialogues(source("messages"), tmp_path) == [Dialogue([*SYSTEM, *PAIR])]


def test_booleans_and_empty_fields_in_a_csv_file(tmp_path: Path) -> None:
    head = "prompt,chosen,rejected,rating,chosen_safe,rejected_safe\n"
    write(tmp_path / "rows.csv", [head, "hi,yes,no,better,True,false\n", "hi,yes,no,,,\n"])
    assert read_comparisons(source("comparison", "rows.csv"), tmp_path) == [
        Comparison(USER, "yes", "no", rating="better", chosen_safe=True, rejected_safe=False),
        Comparison(USER, "yes", "no"),
    ]


@pytest.mark.parametrize(
    ("format", "row", "why"),
    [
        ("prompt_completion", {"prompt": "hi", "completion": ""}, r"\(empty message \(1\)\)"),
        (
            "prompt_completion",
            {"k" * 9999: 1},
            r"\(1 bad, the first: .*rows\.jsonl:1: .*has the fields: k{100}\)\)",
        ),
        ("seed_tasks", {"instruction": "hi", "instances": ["hello"]}, "values that are not objects"),
    ],
)
def test_a_source_without_usable_rows_reports_the_reasons(
    tmp_path: Path, format: str, row: Any, why: str
) -> None:
    write(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError, match=rf"rows\.jsonl: no usable row .*{why}.*; expected rows of format"):
        read_dialogues(source(format), tmp_path, Intake(max_bad_rows=1))


def test_a_source_that_skip_leaves_nothing_of(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"messages": PAIR}] * 3)
    assert len(read_dialogues(source("messages", skip=2), tmp_path)) == 1
    problem = r"no usable row \(it has at most 3 rows, all of which `skip` leaves out\); expected rows of"
    with pytest.raises(DataError, match=problem):
        read_dialogues(source("messages", skip=3), tmp_path)


def test_a_field_without_a_name(tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "rows.csv", [",prompt,completion\n", "0,hi,hello\n"])
    assert read_dialogues(source("prompt_completion", "rows.csv"), tmp_path) == [Dialogue(PAIR)]
    assert "does not use: (no name) (1 rows)" in capsys.readouterr().out
