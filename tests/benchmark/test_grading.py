"""The whole path of tasks, prompts, filters and grading, with models that always answer right or wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from lm_eval.evaluator import evaluate

from llamita.benchmark.figures import MEASURES, figures, prompt_hash, question_rows, sample_rows
from llamita.benchmark.settings import Tasks
from llamita.benchmark.tasks import Benchmark
from llamita.data.intake import Intake
from llamita.errors import ConfigError
from llamita.sandbox.programs import check_isolation

from ..helpers.benchmark import HUMANEVAL, ROWS, TASKS, Oracle


def benchmark(name: str, data: Path, **changes: object) -> Benchmark:
    task = getattr(Tasks.model_validate({name: (TASKS | HUMANEVAL)[name] | changes}), name)
    return Benchmark(name, task, data, intake=Intake())


def _isolates() -> bool:
    try:
        check_isolation()
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("name", [*TASKS, *HUMANEVAL])
def test_right_answers_score_100_percent_and_wrong_ones_0(name: str, right: bool, data: Path) -> None:
    if name == "humaneval" and not _isolates():
        pytest.skip("this kernel does not isolate programs")
    found = evaluate(Oracle(right), {"tasks": benchmark(name, data).tasks}, bootstrap_iters=0)
    measured = figures(name, found["samples"])
    assert measured["rows"] == ROWS
    for key in MEASURES[name]:
        assert measured[key] == pytest.approx(float(right), abs=1e-6), key
        assert measured[f"{key}_se"] == pytest.approx(0, abs=1e-6)
    questions = list(question_rows(name, found["samples"]))
    assert len({row["id"] for row in questions}) == len(questions) == ROWS
    assert len({row["text"] for row in questions}) == ROWS
    assert {row["score"] for row in questions} == {float(right)}
    prompts = "".join(row["arguments"][0][0] for rows in found["samples"].values() for row in rows)
    assert all(row["text"].splitlines()[0] in prompts for row in questions)


def test_the_prompts_have_the_papers_shots_and_their_hash(data: Path) -> None:
    found = evaluate(Oracle(True), {"tasks": benchmark("gsm8k", data).tasks}, bootstrap_iters=0)
    rows = list(sample_rows(found["samples"]))
    assert rows[0]["prompt"].count("Q: ") == 9
    assert rows[0]["prompt"].endswith("Q: 0 red and 0 fine?\nA:")
    assert "prompt" not in rows[1]
    fewer = evaluate(Oracle(True), {"tasks": benchmark("gsm8k", data, shots=2).tasks}, bootstrap_iters=0)
    assert next(sample_rows(fewer["samples"]))["prompt"].count("Q: ") == 3
    assert prompt_hash(found["samples"]) != prompt_hash(fewer["samples"])
    again = evaluate(Oracle(False), {"tasks": benchmark("gsm8k", data).tasks}, bootstrap_iters=0)
    assert prompt_hash(found["samples"]) == prompt_hash(again["samples"])


def test_examples_of_mmlu_are_those_of_the_subject(data: Path) -> None:
    tasks = benchmark("mmlu", data).tasks
    assert list(tasks) == ["mmlu_anatomy", "mmlu_astronomy"]
    found = evaluate(Oracle(True), {"tasks": tasks}, limit=2, bootstrap_iters=0)
    prompt = found["samples"]["mmlu_anatomy"][0]["arguments"][0][0]
    assert prompt.startswith("The following are multiple choice questions (with answers) about anatomy.\n\n")
    assert prompt.index("what is 20?") < prompt.index("what is 22?") < prompt.index("what is 0?")
    assert "what is 21?" not in prompt
    assert figures("mmlu", found["samples"])["rows"] == 4
