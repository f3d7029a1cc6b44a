from __future__ import annotations

from typing import Any

import pytest

from llamita.report.benchmark_figures import benchmarks
from llamita.report.benchmark_tables import benchmark_details_table, benchmark_table
from llamita.report.collect import empty_report
from llamita.report.page import render


def result(**figures: Any) -> dict[str, Any]:
    shared = {"rows": 1319, "by": {}, "prompt_hash": "0123456789abcdef", "truncated_prompts": 3}
    return {**shared, "chat_template": False, "seconds": 5.0, **figures}


@pytest.fixture
def report() -> dict[str, Any]:
    tasks = {
        "gsm8k": {"measure": "lm-eval", "source": "gsm8k", "shots": 8, "limit": None},
        "truthfulqa_generation": {"measure": "paper", "source": "t", "limit": None},
        "bold": {"measure": "paper", "source": "b", "limit": None},
    }
    gsm8k = result(strict_match=0.25, strict_match_se=0.012, flexible_extract=0.3, flexible_extract_se=0.013)
    truth = result(truthful_and_informative=None, truthful=0.5, truthful_se=0.1, informative=None)
    bold = result(sentiment=0.31, sentiment_se=0.02)
    versions = {
        name: {"chat_template": name != "base", "tasks": dict(zip(tasks, (gsm8k, truth, bold), strict=True))}
        for name in ("base", "v1/ppo")
    }
    metrics = {"harness": "0.4.13", "tasks": tasks, "versions": versions, "rows": {}}
    return empty_report() | {"benchmark": {"benchmark": metrics}}


def test_the_papers_figures_are_beside_those_of_the_run(report: dict[str, Any]) -> None:
    table = benchmark_table(report)
    assert table is not None
    assert table["head"] == ["benchmarks, %", "base", "v1 ppo", "7B", "13B", "34B", "70B", "GPT-3.5"]
    rows = {row[0]: row[1:] for row in table["rows"]}
    assert rows["GSM8K, strict match"] == ["25.0 ± 1.2"] * 2 + ["14.6", "28.7", "42.2", "56.8", "57.1"]
    assert rows["GSM8K, last number"][2:] == ["–"] * 5
    base = rows["TruthfulQA (paper's); paper's base models"]
    assert base == ["not measured", "not measured", "33.3", "41.9", "43.5", "50.2", "–"]
    chat = rows["TruthfulQA (paper's); paper's chat models"]
    assert chat[2:] == ["57.0", "62.2", "67.2", "64.1", "78.5"]


def test_how_each_benchmark_was_run_is_shown(report: dict[str, Any]) -> None:
    table = benchmark_details_table(report)
    assert table is not None
    assert table["rows"][0] == ["gsm8k, base", "lm-eval 0.4.13", "8", "no", "1,319", "3", "0123456789ab"]
    assert table["rows"][2][1:3] == ["the paper's measure", "–"]


def test_two_stages_are_both_shown(report: dict[str, Any]) -> None:
    first = report["benchmark"]["benchmark"]
    mmlu = result(accuracy=0.4, accuracy_se=0.01)
    tasks = {"mmlu": {"measure": "lm-eval", "source": "mmlu", "shots": 5, "limit": None}}
    versions = {"v2/ppo": {"chat_template": True, "tasks": {"mmlu": mmlu}}}
    report["benchmark"]["more"] = first | {"tasks": tasks, "versions": versions}
    table, details, drawn = benchmark_table(report), benchmark_details_table(report), benchmarks(report)
    assert table is not None
    assert details is not None
    assert drawn is not None
    assert table["rows"][-1][:4] == ["more: MMLU, accuracy", "–", "–", "40.0 ± 1.0"]
    assert [row[0] for row in details["rows"][::6]] == ["benchmark: gsm8k, base", "more: mmlu, v2 ppo"]
    for title in ("benchmark: GSM8K, strict match", "more: MMLU, accuracy", "v2 ppo"):
        assert title in drawn


def test_the_page_has_the_section_only_if_benchmarks_were_run(report: dict[str, Any]) -> None:
    page = render(report)
    assert 'id="benchmark"' in page
    assert "GSM8K, strict match" in page
    assert 'id="benchmark"' not in render(empty_report())
    assert benchmarks(empty_report()) is benchmark_table(empty_report()) is None


def test_what_was_not_measured_is_not_drawn(report: dict[str, Any]) -> None:
    drawn = benchmarks(report)
    assert drawn is not None
    assert "TruthfulQA (paper" not in drawn
    assert "BOLD" not in drawn
    assert "GPT-3.5" in drawn
