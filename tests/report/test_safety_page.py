"""The page of a run with the stages of section 4: order of the sections, marks, the paper's figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llamita.report.artifacts import read_artifacts
from llamita.report.collect import collect
from llamita.report.page import render

from ..helpers.finished_run import inputs_of
from ..helpers.html_page import check


@pytest.fixture(scope="module")
def safety_page(safety_run: Path) -> str:
    return render(collect("smoke", read_artifacts(inputs_of(safety_run))))


def sections_of(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', page)


def test_sections_are_in_the_order_of_the_paper(safety_page: str) -> None:
    check(safety_page)
    assert sections_of(safety_page) == [
        *("reward", "rejection", "ppo", "retention", "versions"),
        *("safety", "false_refusals", "distillation", "red_team", "safety_evaluation"),
        *("training", "samples", "run"),
    ]
    assert safety_page.count("<svg ") == 9 + 13
    ids = check(safety_page).ids
    assert len(ids) == len(set(ids))


def test_a_run_without_stages_of_safety_has_no_sections_on_them(finished_run: Path) -> None:
    page = render(collect("smoke", read_artifacts(inputs_of(finished_run))))
    assert sections_of(page) == [
        *("reward", "rejection", "ppo", "retention", "versions"),
        *("training", "samples", "run"),
    ]
    assert "classifier" not in page
    assert "worst context" not in page


def test_the_page_of_a_run_without_ground_truth_and_borderline_prompts(safety_report: dict) -> None:
    """As on real data: the figures are `null` in the evaluation, and so is the agreement with gold."""
    for key in ("versions", "differences", "breakdown", "breakdown_differences", "decodings", "ablations"):
        remove_measures(safety_report[key])
    for sources in safety_report["refusal_agreement"].values():
        sources["gold"] = None
    page = render(safety_report)
    check(page)
    assert page.count("<svg ") == 9 + 12, "groups have no helpfulness but that of the ground truth"
    assert "v2 ppo: against phrases<" in page
    assert "against the ground truth" not in page


def remove_measures(figures: dict) -> None:
    for key, value in figures.items():
        if isinstance(value, dict):
            remove_measures(value)
        elif key.startswith(("gold_helpfulness", "violation_rate", "invalid_rate")) or "borderline" in key:
            figures[key] = None


@pytest.mark.usefixtures("undrawn")
def test_the_tile_of_violations_names_the_worst_context(safety_report: dict) -> None:
    contexts = safety_report["breakdown"]["v2/ppo"]["context"]
    contexts["multi_turn"]["violation_rate"] = 0.031
    assert "v2 ppo; worst context: several turns, 3.1%<" in render(safety_report)
    contexts["multi_turn"]["violation_rate"] = None
    assert "worst context: system message, 1.4%<" in render(safety_report)


@pytest.mark.usefixtures("undrawn")
def test_differences_that_are_worse_are_red(safety_report: dict) -> None:
    figures = safety_report["differences"]["v2/ppo"]["v2/rejection"]
    assert '<td class="bad">+9.0' not in render(safety_report)
    figures |= {"violation_rate": 0.09, "violation_rate_se": 0.01}
    page = render(safety_report)
    assert page.count('<td class="bad">+9.0 ± 1.0 worse</td>') == 2  # of all pairs, and of those worse


@pytest.mark.usefixtures("undrawn")
def test_the_papers_figures_are_beside_those_of_the_run(safety_report: dict) -> None:
    page = render(safety_report)
    row = "the paper&#39;s 70B model (table 7), %</th><td>63.2</td><td>64.5</td><td>–</td>"
    assert row in page
    cells = "".join(f"<td>{cell}</td>" for cell in ("–", "100", "10", "0", "–", "0"))
    assert f"the paper, without GAtt (table 30)</th>{cells}" in page


@pytest.mark.usefixtures("undrawn")
def test_small_tables_of_safety(safety_report: dict) -> None:
    page = render(safety_report)
    assert "<th>sft: against the ground truth</th><td>98.5</td><td>0.95</td><td>1,500</td>" in page
    assert "<th>refusal classifier: phrases</th><td>93.0 ± 0.9</td>" in page
    assert "<th>distilled answers kept by the gate, %</th><td>70.8 ± 3.0</td>" in page
    assert "<th>v1 rejection</th><td>82.4 ± 1.2</td><td>-8.8 ± 1.2</td>" in page


@pytest.mark.usefixtures("undrawn")
def test_detection_of_unsafe_answers_by_context(safety_report: dict) -> None:
    assert "detection of unsafe answers" not in render(safety_report)
    rates = {"precision": 0.9, "precision_se": 0.02, "recall": 0.6, "recall_se": 0.03}
    found = {"0.15": rates, "0.5": rates | {"recall": 0.8}}
    missing = {"0.15": rates | {"precision": None, "precision_se": None}}
    safety_report["metrics"]["safety"]["safety"] = {
        "unsafe_below": found,
        "unsafe_below_by_context": {"multi_turn": missing},
    }
    page = render(safety_report)
    cells = "<td>90.0 ± 2.0</td><td>60.0 ± 3.0</td><td>80.0 ± 3.0</td>"
    assert f"<th>safety: all prompts</th>{cells}" in page
    assert "<th>safety: several turns</th><td>–</td><td>60.0 ± 3.0</td><td>–</td>" in page
    assert "(section 3.2.3, table 29)</th><td>89</td><td>55</td><td>90</td>" in page


@pytest.mark.usefixtures("undrawn")
def test_an_early_warning_of_ppo_is_noted(safety_report: dict) -> None:
    safety_report["metrics"]["v2/ppo"]["judge_warning"] = None
    assert "Early warning in iteration" not in render(safety_report)
    safety_report["metrics"]["v2/ppo"]["judge_warning"] = 17
    assert "Early warning in iteration 17 of v2 ppo: the reward rose while" in render(safety_report)
