"""The stage `contamination`: files, metrics, resuming, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.artifact import RESUME
from llamita.contamination import scan, stage
from llamita.contamination.settings import ContaminationSettings
from llamita.errors import ConfigError, DataError
from llamita.jsonl import read_rows
from llamita.prepare import stage as prepare
from llamita.prepare.settings import PrepareSettings

from ..helpers.rows import turn, write

WORDS = "the castle of gwin is old and red , it is by the river and has no door at all".split()
TEXT = " ".join(WORDS)
OTHER = "my boat has a hole . my horse is tired . where do you find a new lamp for it ?"


@pytest.fixture
def root(tokenizer: Any, tmp_path: Path) -> Path:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    data = tmp_path / "data"
    write(data / "documents.jsonl", [{"text": f"{n} ! {TEXT} {n} ."} for n in range(40)])
    write(data / "held_out.jsonl", [{"text": OTHER}])
    scored = {"castle": TEXT, "boat": OTHER, "half": f"{TEXT} {OTHER}", "short": "the castle"}
    rows = [{"id": name, "text": text, "score": name == "castle"} for name, text in scored.items()]
    write(data / "scored.jsonl", rows)
    write(data / "prompts.jsonl", [{"id": "a", "messages": turn(OTHER)}, {"messages": turn(TEXT)}])
    write(
        data / "dialogues.jsonl", [{"messages": turn("hello", "hi")}, {"messages": turn("?", f"{OTHER} no")}]
    )
    corpus = {
        "documents": [{"path": "documents.jsonl", "format": "text_rows"}],
        "validation": [{"path": "held_out.jsonl", "format": "text_rows"}],
        "shard_tokens": 50,
    }
    (tmp_path / "corpus").mkdir()
    settings = PrepareSettings.model_validate(corpus)
    prepare.run(settings, {"tokenizer": tmp_path / "tokenizer", "data": data}, tmp_path / "corpus")
    return tmp_path


def samples(*names: str, format: str = "scored") -> list[dict[str, str]]:
    return [{"benchmark": name, "path": f"{name}.jsonl", "format": format} for name in names]


def run(root: Path, out: str = "out", corpus: str | None = "corpus", **changes: Any) -> dict[str, Any]:
    chosen: dict[str, Any] = {"samples": samples("scored"), "threads": 2} | changes
    inputs = {"tokenizer": root / "tokenizer", "data": root / "data"}
    inputs |= {name: root / folder for name, folder in chosen.pop("inputs", {}).items()}
    if corpus:
        inputs["corpus"] = root / corpus
    (root / out).mkdir(exist_ok=True)
    settings = ContaminationSettings.model_validate_json(json.dumps(chosen))
    return stage.run(settings, inputs, root / out)


def test_samples_in_a_corpus(root: Path) -> None:
    metrics = run(root)
    figures = metrics["benchmarks"]["scored"]
    assert metrics["searched"]["corpus"]["documents"] == 40
    assert metrics["searched"]["rows"] is None
    assert (figures["samples"], figures["too_short"]) == (4, 1)
    base = figures["spans"]["10"]["subsets"]
    # the held-out text is not trained on: "boat" is clean
    assert {name: one["samples"] for name, one in base.items()} == {
        "clean": 2,
        "not_clean": 2,
        "not_dirty": 3,
        "dirty": 1,
    }
    assert (base["dirty"]["score"], base["dirty"]["expected"], base["clean"]["score"]) == (1, 0.25, 0)
    assert json.loads((root / "out" / "contamination.json").read_text()) == metrics


def test_the_row_of_a_sample_says_where_its_longest_span_is(root: Path) -> None:
    run(root)
    rows = {row["id"]: row for row in read_rows(root / "out" / "contamination.jsonl")}
    castle = rows["castle"]
    assert castle["contaminated"]["10"] == 1
    assert castle["longest"]["text"].split() == WORDS
    assert castle["longest"]["tokens"] == castle["tokens"]
    assert castle["longest"]["source"] == "documents.jsonl"
    assert Path(castle["longest"]["shard"]).name == "shard-00000.bin"
    assert rows["boat"]["longest"] is None
    assert (rows["half"]["benchmark"], rows["half"]["score"]) == ("scored", 0)
    assert 0.2 < rows["half"]["contaminated"]["10"] < 0.8


def test_training_rows_are_searched_too(root: Path) -> None:
    rows = [{"path": "dialogues.jsonl", "format": "messages"}]
    prompts = samples("prompts", format="prompts")
    run(root, samples=prompts, rows=rows)
    after_corpus = read_rows(root / "out" / "contamination.jsonl")
    metrics = run(root, "rows", corpus=None, samples=prompts, rows=rows)
    assert metrics["searched"] == {"corpus": None, "rows": metrics["searched"]["rows"]}
    assert metrics["searched"]["rows"]["documents"] == 2
    found = read_rows(root / "rows" / "contamination.jsonl")
    assert [row["id"] for row in found] == ["a", "1"]
    assert found[0] == after_corpus[0]
    assert after_corpus[1]["longest"]["source"] == "documents.jsonl"
    assert {"source": "dialogues.jsonl", "shard": None, "document": 1}.items() <= found[0]["longest"].items()
    assert found[1]["longest"] is None
    figures = metrics["benchmarks"]["prompts"]
    assert figures["affected_up_to"] is None
    assert figures["spans"]["10"]["affected"] is None


def test_an_interrupted_search_resumes_at_its_shard(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(root, "whole")
    searched: list[int] = []
    search = scan.search

    def count(*arguments: Any, **options: Any) -> None:
        searched.append(options["first_document"])
        if len(searched) == 3:
            raise KeyboardInterrupt
        search(*arguments, **options)

    monkeypatch.setattr(scan, "search", count)
    with pytest.raises(KeyboardInterrupt):
        run(root)
    assert (root / "out" / RESUME / scan.STATE).is_file()
    assert run(root) == whole
    assert searched[2] == searched[3]  # the first two shards were not searched again
    names = ("contamination.json", "contamination.jsonl")
    assert all((root / "out" / name).read_text() == (root / "whole" / name).read_text() for name in names)


def test_questions_of_the_stage_benchmark(root: Path) -> None:
    rows = read_rows(root / "data" / "scored.jsonl")
    write(root / "b" / "versions" / "sft" / "mmlu" / "questions.jsonl", rows)
    write(root / "b" / "versions" / "v1" / "ppo" / "mmlu" / "questions.jsonl", rows)
    metrics = run(root, samples=[], inputs={"benchmarks.b": "b"})
    assert list(metrics["benchmarks"]) == ["sft/mmlu", "v1/ppo/mmlu"]
    expected = run(root, "other")["benchmarks"]["scored"]
    assert all(figures == expected for figures in metrics["benchmarks"].values())
    write(root / "c" / "versions" / "sft" / "mmlu" / "questions.jsonl", rows)
    metrics = run(root, "both", samples=[], inputs={"benchmarks.b": "b", "benchmarks.c": "c"})
    assert list(metrics["benchmarks"])[-1] == "c/sft/mmlu"
    with pytest.raises(DataError, match="both in `samples` and in the input"):
        named = [{**samples("scored")[0], "benchmark": "sft/mmlu"}]
        run(root, samples=named, inputs={"benchmarks.b": "b"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "text": "b"}, "field 'score' is missing; expected a number"),
        ({"id": "a", "text": "b", "score": "high"}, "score"),
        ({"text": "b", "score": 1}, "field 'id' is missing"),
    ],
)
def test_broken_questions(root: Path, row: dict[str, Any], message: str) -> None:
    write(root / "b" / "versions" / "sft" / "mmlu" / "questions.jsonl", [row])
    with pytest.raises(DataError, match=message) as error:
        run(root, samples=[], inputs={"benchmarks.b": "b"})
    assert "questions.jsonl:1" in str(error.value)
    write(root / "data" / "scored.jsonl", [row])
    with pytest.raises(DataError, match=message):
        run(root)


def test_errors_of_inputs(root: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to search"):
        run(root, corpus=None)
    with pytest.raises(ConfigError, match="no evaluation samples"):
        run(root, samples=[])
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=r"no questions\.jsonl in it"):
        run(root, samples=[], inputs={"benchmarks.b": "empty"})
    write(root / "b" / "versions" / "sft" / "mmlu" / "questions.jsonl", [])
    with pytest.raises(DataError, match="no rows"):
        run(root, samples=[], inputs={"benchmarks.b": "b"})
    index = root / "corpus" / "train" / "000" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"tokenizer": "another"}))
    with pytest.raises(DataError, match="written with tokenizer"):
        run(root)


def test_one_benchmark_has_scores_of_all_samples_or_of_none() -> None:
    mixed = [*samples("a"), *samples("a", format="prompts")]
    with pytest.raises(ValueError, match="expected scores of all its samples or of none"):
        ContaminationSettings.model_validate({"samples": mixed})


def test_data_is_needed_if_there_are_sources() -> None:
    assert ContaminationSettings().inputs_taken()[0] == {"tokenizer"}
    chosen = ContaminationSettings.model_validate({"samples": samples("a")})
    assert chosen.inputs_taken()[0] == {"tokenizer", "data"}
