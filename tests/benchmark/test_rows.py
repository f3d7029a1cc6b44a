from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llamita.benchmark.rows import limited, read_rows
from llamita.benchmark.settings import BenchmarkSettings, Tasks
from llamita.data.intake import Intake
from llamita.data.source_hash import files_of
from llamita.errors import DataError

from ..helpers.benchmark import GENERATIONS, HUMANEVAL, ROWS, TASKS
from ..helpers.rows import write

KNOWN = {"mmlu": ["anatomy", "astronomy"], "bbh": ["date_understanding", "boolean_expressions"]}
GOOD: dict[str, dict[str, Any]] = {
    "mmlu": {"question": "q", "choices": list("wxyz"), "answer": 2, "subject": "anatomy"},
    "gsm8k": {"question": "q", "answer": "so\n#### 3"},
    "bbh": {"task": "date_understanding", "input": "q", "target": "(A)"},
    "humaneval": {"task_id": "t", "prompt": "def f():", "test": "def check(c): pass", "entry_point": "f"},
    "truthfulqa": {
        "question": "q",
        "mc1_targets": {"choices": ["a", "b"], "labels": [1, 0]},
        "mc2_targets": {"choices": ["a", "b"], "labels": [1, 1]},
    },
    "toxigen": {"text": "t", "toxicity_ai": 1.5, "toxicity_human": 2},
    "truthfulqa_generation": {"question": "q"},
    "toxigen_generation": {"prompt": "- a", "group": "g"},
}
BAD = [
    ("mmlu", {"choices": ["a", "b"]}, "field 'choices' has 2 texts; expected 4"),
    ("mmlu", {"answer": 4}, "field 'answer' is 4; expected the index of the right choice"),
    ("mmlu", {"answer": True}, "field 'answer' is True"),
    ("mmlu", {"subject": "anatomi"}, "unknown subject 'anatomi'; did you mean 'anatomy'?"),
    ("gsm8k", {"answer": "3"}, "field 'answer' has no '#### NUMBER'"),
    ("gsm8k", {"question": None}, "field 'question' is missing"),
    ("bbh", {"task": "dates"}, "unknown task 'dates'"),
    ("bbh", {"target": 3}, "field 'target' is int; expected text"),
    ("humaneval", {"entry_point": None}, "field 'entry_point' is missing"),
    ("truthfulqa", {"mc1_targets": {"choices": ["a", "b"], "labels": [0, 1]}}, "expected the first choice"),
    ("truthfulqa", {"mc2_targets": {"choices": ["a"], "labels": [1, 1]}}, "as many labels"),
    ("truthfulqa", {"mc2_targets": {"choices": ["a"], "labels": [[1]]}}, "as many labels"),
    ("truthfulqa", {"mc2_targets": None}, "field 'choices' must be a list of texts"),
    ("toxigen", {"toxicity_ai": None}, "field 'toxicity_ai' is missing"),
    ("toxigen_generation", {"prompt": 3}, "field 'prompt' is int"),
]


def read(
    name: str, path: str, root: Path, *, intake: Intake | None = None, subtasks: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The rows of a benchmark with this `path`."""
    task = {"path": path, "shots": 0} if name == "mmlu" else {"path": path}
    [source] = Tasks.model_validate({name: task}).chosen()[name].sources(name)
    return read_rows(source, root, intake=intake or Intake(), subtasks=subtasks)


@pytest.mark.parametrize("name", [*TASKS, *HUMANEVAL, *GENERATIONS])
def test_every_schema_is_read(name: str, data: Path) -> None:
    path = (TASKS | HUMANEVAL | GENERATIONS)[name]["path"]
    rows = read(name, path, data, subtasks=KNOWN.get(name, ()))
    assert len(rows) == (4 if name == "bold" else ROWS)


@pytest.mark.parametrize(("name", "changes", "message"), BAD)
def test_a_bad_row_is_named_by_file_and_line(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "rows.jsonl", [GOOD[name], GOOD[name] | changes])
    with pytest.raises(DataError, match=r"rows\.jsonl:2: ") as raised:
        read(name, "rows.jsonl", tmp_path, subtasks=KNOWN.get(name, ()))
    assert message in str(raised.value)
    intake = Intake(max_bad_rows=1)
    assert len(read(name, "rows.jsonl", tmp_path, intake=intake, subtasks=KNOWN.get(name, ()))) == 1
    assert len(intake.bad_rows) == 1


def test_the_files_of_big_bench_hard_and_bold_are_documents(tmp_path: Path) -> None:
    (tmp_path / "date_understanding.json").write_text('{"examples": [{"input": "q", "target": "(A)"}, 3]}')
    with pytest.raises(DataError, match=r"date_understanding\.json: example 2: the row is a int"):
        read("bbh", "date_understanding.json", tmp_path, subtasks=KNOWN["bbh"])
    (tmp_path / "date_understanding.json").write_text('{"examples":\n oops}')
    with pytest.raises(DataError, match=r"date_understanding\.json:2: invalid JSON"):
        read("bbh", "date_understanding.json", tmp_path, subtasks=KNOWN["bbh"])
    (tmp_path / "people_prompt.json").write_text(json.dumps({"friends": {"Bolo": ["bolo is ", 3]}}))
    with pytest.raises(DataError, match=r"people_prompt\.json: friends: Bolo: field 'prompt' is int"):
        read("bold", "people_prompt.json", tmp_path)
    write(tmp_path / "boolean_expressions.jsonl", [{"input": "not True is", "target": "False"}])
    found = read("bbh", "boolean_expressions.jsonl", tmp_path, subtasks=KNOWN["bbh"])
    assert found == [{"subtask": "boolean_expressions", "input": "not True is", "target": "False"}]


def test_a_limit_applies_to_each_group(data: Path) -> None:
    prompts = read("toxigen_generation", "toxigen_prompts.jsonl", data)
    assert [row["group"] for row in limited(prompts, 2)] == ["a", "b", "a", "b"]
    assert limited(prompts, None) == prompts
    questions = read("truthfulqa_generation", "truthfulqa.jsonl", data)
    assert limited(questions, 3) == questions[:3]


@pytest.mark.parametrize(
    ("name", "split"), [("mmlu", "test"), ("gsm8k", "test"), ("truthfulqa", "validation")]
)
def test_of_a_folder_only_the_test_rows_are_read(
    name: str, split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The layouts of the authors: train.jsonl beside test.jsonl, or a folder for each split."""
    for part in ("train", "dev", "test", "validation"):
        write(tmp_path / "files" / f"{part}.jsonl", [GOOD[name] | {"question": part}])
        write(tmp_path / "folders" / part / "rows.jsonl", [GOOD[name] | {"question": part}])
    for folder in ("files", "folders"):
        rows = read(name, folder, tmp_path, subtasks=KNOWN.get(name, ()))
        assert [row["question"] for row in rows] == [split]
    assert "skipped files: " in capsys.readouterr().out
    write(tmp_path / "others" / "a.jsonl", [GOOD[name]])
    with pytest.raises(DataError, match=f"no data file's name contains the split '{split}'; set `path` to a"):
        read(name, "others", tmp_path, subtasks=KNOWN.get(name, ()))
    assert len(read(name, "others/a.jsonl", tmp_path, subtasks=KNOWN.get(name, ()))) == 1


def test_the_hash_of_the_data_covers_the_files_that_are_read(tmp_path: Path) -> None:
    for part in ("train", "dev", "test"):
        write(tmp_path / "mmlu" / f"{part}.jsonl", [GOOD["mmlu"]])
    task = {"path": "mmlu", "few_shot_path": "mmlu", "shots": 1}
    settings = BenchmarkSettings.model_validate({"tasks": {"mmlu": task}})
    found = [files_of(source, tmp_path) for _, source in settings.all_sources()]
    assert found == [[tmp_path / "mmlu" / "test.jsonl"], [tmp_path / "mmlu" / "dev.jsonl"]]


def test_the_skipped_files_of_big_bench_hard_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "bbh" / "boolean_expressions.jsonl", [{"input": "not True is", "target": "False"}])
    (tmp_path / "bbh" / "date_understanding.jsonl").touch()
    assert len(read("bbh", "bbh", tmp_path, subtasks=KNOWN["bbh"])) == 1
    assert "bbh: skipped files: date_understanding.jsonl (empty)" in capsys.readouterr().out


def test_a_benchmark_of_lm_eval_reads_no_other_data_set_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"openai/gsm8k:main: no such file or folder .* no tasks\.gsm8k\.path"
    ):
        read("gsm8k", "openai/gsm8k:main", tmp_path)
