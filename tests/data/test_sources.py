"""Every format, read from a small file, and which of its rows are used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.data.comparison_formats import SELF_INSTRUCT_MODELS
from llamita.data.intake import Intake
from llamita.data.rows import Comparison, Dialogue, LabelledAnswer, Prompt
from llamita.data.source_hash import data_hash
from llamita.data.sources import (
    read_dialogues,
    read_documents,
    read_labelled_answers,
    read_prompts,
)
from llamita.errors import DataError
from llamita.settings import Source

from ..helpers.rows import COMPARED, PAIR, dialogue, write
from ..helpers.sources import read_comparisons, source

# ------------------------------------------------------------------------------------------- formats

DIALOGUES: dict[str, tuple[Any, list[Dialogue]]] = {
    "messages": ({"messages": PAIR, "instruction": "be brief"}, [Dialogue(PAIR, "all", "be brief")]),
    "prompt_completion": (
        {"prompt": "What?\n", "completion": "That<|endoftext|>"},
        [dialogue("What?\n", "That")],
    ),
    "alpaca": (
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        [dialogue("Add.\n\n1 2", "3")],
    ),
    "seed_tasks": (
        {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"input": "", "output": "?"}]},
        [dialogue("Add.\n\n1 2", "3"), dialogue("Add.", "?")],
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        [Dialogue(PAIR)],
    ),
    "gsm8k": (
        {"question": "6*7?", "answer": "It is <<6*7=42>>42.\n#### 42"},
        [dialogue("6*7?", "It is 42.\n#### 42")],
    ),
}


@pytest.mark.parametrize("format", DIALOGUES)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.json"])
def test_dialogues(tmp_path: Path, format: str, name: str) -> None:
    row, expected = DIALOGUES[format]
    write(tmp_path / name, [json.dumps([row, row], indent=1)] if name == "rows.json" else [row, row])
    assert read_dialogues(source(format, name), tmp_path) == expected + expected


def test_parquet_csv_and_absolute_paths(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list(
        [{"prompt": "2020-01-01", "completion": "007"}, {"prompt": "a,b\nc", "completion": '"'}]
    )
    rows.to_parquet(str(tmp_path / "rows.parquet"))
    rows.to_csv(str(tmp_path / "rows.csv"))
    expected = [dialogue("2020-01-01", "007"), dialogue("a,b\nc", '"')]
    assert read_dialogues(source("prompt_completion", "rows.parquet"), tmp_path) == expected
    assert read_dialogues(source("prompt_completion", "rows.csv"), tmp_path) == expected
    assert (
        read_dialogues(source("prompt_completion", str(tmp_path / "rows.csv")), Path("/nowhere")) == expected
    )


def test_text_that_looks_like_a_date_or_a_number_is_read_as_text(tmp_path: Path) -> None:
    row = {"prompt": "2020-01-01 00:00:00", "completion": "1.0"}
    write(tmp_path / "rows.jsonl", [row])
    assert read_dialogues(source("prompt_completion"), tmp_path) == [dialogue(row["prompt"], "1.0")]


def test_documents(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"text": "one"}, {"text": " "}, {"text": "two\u2028three"}])
    intake = Intake()
    assert list(read_documents(source("text_rows"), tmp_path, intake)) == ["one", "two\u2028three"]
    assert intake.skipped == {"empty document": 1}
    write(
        tmp_path / "asked.jsonl", [{"prompt": "a?", "completion": "b"}, {"prompt": "a?\n", "completion": "b"}]
    )
    assert list(read_documents(source("prompt_completion", "asked.jsonl"), tmp_path)) == ["a?\nb", "a?\nb"]


def test_a_text_file_is_split_at_blank_lines_without_losses(tmp_path: Path) -> None:
    text = "\n\n".join(f"paragraph {number}\n" + "word " * 100 for number in range(100))
    write(tmp_path / "book.txt", [text])
    pieces = list(read_documents(source("text", "book.txt"), tmp_path))
    assert "\n\n".join(pieces) == text
    assert len(pieces) > 3
    assert max(map(len, pieces)) < 9000


USER = [{"role": "user", "content": "hi"}]
ANSWERS = {name: [{"role": "assistant", "content": text}] for name, text in COMPARED.items()}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", **COMPARED},
        {"prompt": USER, **COMPARED},
        {"prompt": USER, **ANSWERS},
        {"prompt": "hi", "chosen": USER + ANSWERS["chosen"], "rejected": USER + ANSWERS["rejected"]},
        {"chosen": USER + ANSWERS["chosen"], "rejected": USER + ANSWERS["rejected"]},
    ],
)
def test_comparisons(tmp_path: Path, row: Any) -> None:
    graded = {"rating": "better", "chosen_safe": True, "rejected_safe": False}
    write(tmp_path / "rows.jsonl", [row, {**row, **graded}])
    plain = Comparison(USER, "yes", "no")
    expected = [plain, Comparison(USER, "yes", "no", rating="better", chosen_safe=True, rejected_safe=False)]
    assert read_comparisons(source("comparison"), tmp_path) == expected


def test_equal_answers_and_different_prompts_are_skipped_and_counted(tmp_path: Path, capsys: Any) -> None:
    other = [{"role": "user", "content": "ho"}]
    rows = [
        {"prompt": "hi", "chosen": "yes", "rejected": " yes "},
        {"prompt": "hi", "chosen": "yes", "rejected": ""},
        {"chosen": USER + ANSWERS["chosen"], "rejected": other + ANSWERS["rejected"]},
        {"prompt": "hi", **COMPARED},
    ]
    write(tmp_path / "rows.jsonl", rows)
    intake = Intake()
    read = read_comparisons(source("comparison"), tmp_path, intake)
    assert len(read) == 1
    assert intake.skipped == {"equal answers": 1, "empty message": 1, "different prompts": 1}
    assert "rows.jsonl: 1 rows, 3 skipped: equal answers (1)" in capsys.readouterr().out


def test_hh_transcripts(tmp_path: Path) -> None:
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bye\n\nAssistant:"
    rows = [
        {"chosen": f"{start} so long", "rejected": f"{start} go"},
        {"chosen": start + " a\n\nHuman: b", "rejected": start},
    ]
    write(tmp_path / "rows.jsonl", rows)
    intake = Intake()
    read = read_comparisons(source("hh"), tmp_path, intake)
    assert read == [Comparison([*PAIR, {"role": "user", "content": "bye"}], "so long", "go")]
    assert intake.skipped.total() == 1
    prompt = [*PAIR, {"role": "user", "content": "bye"}]
    demonstrated = read_dialogues(source("hh"), tmp_path)
    assert demonstrated == [Dialogue([*prompt, {"role": "assistant", "content": "so long"}], trained="last")]


def test_self_instruct_ratings_follow_from_ranks(tmp_path: Path) -> None:
    for place, model in enumerate(SELF_INSTRUCT_MODELS):
        row = {
            "instruction": "Add.\n",
            "input": "1 2",
            "response": f" {max(place, 1)}",
        }  # the worst two agree
        write(tmp_path / f"{model}_predictions.jsonl", [row])
    intake = Intake()
    read = read_comparisons(source("self_instruct_eval", "."), tmp_path, intake)
    ratings = {(row.chosen.strip(), row.rejected.strip()): row.rating for row in read}
    assert len(read) == 27
    assert intake.skipped == {"equal answers": 1}
    assert ratings["3", "2"] == "negligibly_better"
    assert ratings["4", "2"] == "slightly_better"
    assert ratings["5", "2"] == ratings["6", "2"] == "better"
    assert ratings["7", "2"] == "significantly_better"
    assert read[0].prompt == [{"role": "user", "content": "Add.\n\n1 2"}]
    (prompt,) = read_prompts(source("self_instruct_eval", "."), tmp_path)
    assert prompt.answer == " 7"  # of the best model


def test_self_instruct_needs_all_eight_files(tmp_path: Path) -> None:
    (tmp_path / "davinci_predictions.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"davinci-t0-ft_predictions.jsonl, .* missing; .*eight models"):
        data_hash([Source.model_validate(one) for one in source("self_instruct_eval", ".")], tmp_path)


def test_self_instruct_needs_the_same_order(tmp_path: Path) -> None:
    for model in SELF_INSTRUCT_MODELS:
        write(tmp_path / f"{model}_predictions.jsonl", [{"instruction": model, "input": "", "response": "x"}])
    with pytest.raises(DataError, match=r"t0-ft_predictions.jsonl:1: the instruction differs from that at"):
        read_comparisons(source("self_instruct_eval", "."), tmp_path)


def test_gsm8k_solutions(tmp_path: Path) -> None:
    def graded(*right: bool) -> dict[str, Any]:
        models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
        solutions = [{"is_correct": ok, "solution": f"<<1+1=2>>{n}"} for n, ok in enumerate(right)]
        return {"question": "1+1?", **dict(zip(models, solutions, strict=True))}

    write(
        tmp_path / "rows.jsonl", [graded(True, False, False, True), graded(*[True] * 4), graded(*[False] * 4)]
    )
    intake = Intake()
    read = read_comparisons(source("gsm8k_solutions"), tmp_path, intake)
    assert [(row.chosen, row.rejected) for row in read] == [("0", "1"), ("0", "2"), ("3", "1"), ("3", "2")]
    assert intake.skipped == {"all solutions correct": 1, "all solutions wrong": 1}


def test_prompts(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"messages": USER, "is_safety": True}, {"messages": USER[:1]}])
    intake = Intake()
    read = read_prompts(source("prompts"), tmp_path, intake)
    assert read == [Prompt(USER, True)]
    assert intake.skipped == {"repeated prompt": 1}
    write(tmp_path / "rows.jsonl", [{"messages": USER, "id": "a"}, {"messages": USER, "id": "b"}])
    assert [prompt.id for prompt in read_prompts(source("prompts"), tmp_path)] == ["a", "b"]


def test_prompts_of_dialogues_and_comparisons(tmp_path: Path) -> None:
    bye = {"role": "user", "content": "bye"}
    write(tmp_path / "a.jsonl", [{"messages": [*PAIR, bye, {"role": "assistant", "content": "so long"}]}])
    write(
        tmp_path / "b.jsonl",
        [{"chosen": "\n\nHuman: bad\n\nAssistant: no", "rejected": "\n\nHuman: bad\n\nAssistant: ok"}],
    )
    read = read_prompts(source("messages", "a.jsonl") + source("hh", "b.jsonl"), tmp_path)
    assert read == [Prompt([*PAIR, bye], False), Prompt([{"role": "user", "content": "bad"}], False)]


def test_labels_of_a_dialogues_prompt_are_known_fields(tmp_path: Path) -> None:
    labels = {"is_safety": True, "category": "illicit", "attack": "logic", "language": "french"}
    write(tmp_path / "rows.jsonl", [{"messages": [*PAIR], **labels}])
    intake = Intake()
    assert len(read_dialogues(source("messages"), tmp_path, intake)) == 1
    assert not intake.ignored
    (prompt,) = read_prompts(source("messages"), tmp_path, intake)
    assert prompt == Prompt([PAIR[0]], answer=PAIR[1]["content"], **labels)


def test_prompts_of_transcripts_keep_the_whole_history(tmp_path: Path) -> None:
    history = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bad\n\nAssistant: "
    write(tmp_path / "rows.jsonl", [{"chosen": f"{history}no", "rejected": f"{history}ok"}])
    (prompt,) = read_prompts(source("hh"), tmp_path)
    assert prompt.messages == [*PAIR, {"role": "user", "content": "bad"}]
    assert (prompt.context, prompt.turn) == ("multi_turn", 2)


def test_labelled_answers(tmp_path: Path) -> None:
    described = {"answer": "Paris", "refusal": False, "prompt": "Which city?", "source": "a model"}
    write(
        tmp_path / "rows.jsonl",
        [described, {"answer": "no", "refusal": True}, {"answer": " ", "refusal": True}],
    )
    write(tmp_path / "rows.csv", ["answer,refusal\n", "no,true\n", "yes,false\n"])
    intake = Intake()
    read = read_labelled_answers(source("labelled_answers"), tmp_path, intake)
    assert read == [LabelledAnswer("Paris", False), LabelledAnswer("no", True)]
    assert intake.skipped == {"empty answer": 1}
    assert not intake.ignored, "prompt and source document the row"
    table = read_labelled_answers(source("labelled_answers", "rows.csv"), tmp_path)
    assert [row.refusal for row in table] == [True, False]
    write(tmp_path / "rows.jsonl", [{"answer": "red"}])
    with pytest.raises(DataError, match="field 'refusal' is missing; expected true or false"):
        read_labelled_answers(source("labelled_answers"), tmp_path)


def test_sharegpt_that_begins_with_an_answer_is_skipped(tmp_path: Path) -> None:
    turns = [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}, {"from": "gpt", "value": "c"}]
    write(tmp_path / "rows.jsonl", [{"conversations": turns}, {"conversations": turns[1:]}])
    intake = Intake()
    read = read_dialogues(source("sharegpt"), tmp_path, intake)
    assert read == [dialogue("b", "c")]
    assert intake.skipped.total() == 1


# ------------------------------------------------------------------------------ places, limits, splits


def test_limit_counts_from_the_start(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"text": str(number)} for number in range(5)] + ["no json\n"])
    assert list(read_documents(source("text_rows", limit=3), tmp_path)) == ["0", "1", "2"]


def test_limit_counts_after_skipped_rows(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", [{"text": str(number)} for number in range(5)])
    assert list(read_documents(source("text_rows", skip=3), tmp_path)) == ["3", "4"]
    assert list(read_documents(source("text_rows", skip=1, limit=2), tmp_path)) == ["1", "2"]
    with pytest.raises(DataError, match="no usable row"):
        list(read_documents(source("text_rows", skip=5), tmp_path))


def test_a_folder_is_read_by_split(tmp_path: Path) -> None:
    for name in ("train-00001", "train-00000", "test-00000", "contest"):
        write(tmp_path / "set" / f"{name}.jsonl", [{"text": name}])
    assert list(read_documents(source("text_rows", "set"), tmp_path)) == ["train-00000", "train-00001"]
    assert list(read_documents(source("text_rows", "set", split="test"), tmp_path)) == ["test-00000"]
    with pytest.raises(DataError, match="no data file's name contains the split 'validation'"):
        list(read_documents(source("text_rows", "set", split="validation"), tmp_path))
