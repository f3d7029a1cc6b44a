"""report.html: self-contained, safe, drawn from report.json alone, the same bytes for the same run."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest

from llamita.report import figures, reward_figures, rlhf_figures
from llamita.report.artifacts import read_artifacts
from llamita.report.collect import collect, empty_report
from llamita.report.page import render
from llamita.report.settings import ReportSettings
from llamita.report.stage import run
from llamita.report.style import PALETTE, name_ticks, panels

from ..helpers.finished_run import inputs_of
from ..helpers.html_page import check


@pytest.fixture
def report(example: Path) -> dict:
    return collect("smoke", read_artifacts(inputs_of(example)))


@pytest.fixture(scope="module")
def page(finished_run: Path) -> str:
    return render(collect("smoke", read_artifacts(inputs_of(finished_run))))


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    assert check(page).loads == []
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    assert page.count("<svg ") == 9


def test_ids_are_unique_across_figures(page: str) -> None:
    ids = check(page).ids
    assert len(ids) == len(set(ids))


def test_figures_follow_light_and_dark(page: str) -> None:
    figures = "".join(re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL))
    assert "var(--ink)" in figures
    assert "var(--font)" in figures
    for light, dark in PALETTE.values():
        assert light not in figures
        assert f": {light};" in page
        assert f": {dark};" in page


@pytest.mark.usefixtures("undrawn")
def test_texts_of_models_are_escaped(report: dict) -> None:
    report["samples"][0]["answers"]["sft"]["text"] = "<script>alert(1)</script>"
    page = render(report)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_samples_are_shown_side_by_side_in_the_order_of_the_evaluation(page: str) -> None:
    assert page.index("ordinary prompts</th>") < page.index("harmful prompts</th>")
    assert page.index("the color of bolo is red") < page.index("gladly . the color of bolo is blue")


def test_a_report_without_figures_has_notes_instead() -> None:
    page = render({**empty_report(), "run": {"name": "empty", "stages": []}})
    assert "<svg " not in page
    assert page.count('class="note"') == 10
    check(page)


@pytest.mark.parametrize("keys", [("reward", "versions", "curves"), ("gatt_retention", "ppo", "samples")])
def test_each_part_may_be_missing(report: dict, keys: tuple[str, ...]) -> None:
    report |= {key: copy.deepcopy(empty_report()[key]) for key in keys}
    page = render(report)
    check(page)
    assert page.count('class="note"') == {"reward": 4, "gatt_retention": 3}[keys[0]]


@pytest.mark.usefixtures("undrawn")
def test_versions_beyond_the_second_have_their_columns(report: dict) -> None:
    report["versions"]["v3/ppo"] = report["versions"]["v2/ppo"] | {"gold_helpfulness": 0.777}
    page = render(report)
    assert "<th>v3 ppo</th>" in page
    assert "0.37 → </i>0.78" in page


def test_versions_and_turns_that_were_not_measured_are_omitted(report: dict) -> None:
    page = render(report)
    assert "<th>v1 rejection</th>" in page
    assert page.count(">v1</text>") == 5  # four panels of versions, one of rejection sampling
    assert page.count(">20</text>") == 2
    assert "<th>20</th>" in page
    del report["versions"]["v1/rejection"]
    del report["rejection"]["v1/rejection"]
    for groups in (report["gatt_retention"], report["gatt_retention_explicit"]):
        for group in groups.values():
            group["20"] = None
    for found in report["gatt_attention"].values():
        found["by_turn"]["20"] = None
    report["samples"] = []
    page = render(report)
    assert "<th>v1 rejection</th>" not in page
    assert ">v1</text>" not in page
    assert ">20</text>" not in page
    assert "<th>20</th>" not in page


@pytest.mark.usefixtures("undrawn")
def test_the_tile_of_ghost_attention_shows_the_last_measured_turn(report: dict) -> None:
    assert "at turn 20, without" in render(report)
    for series in report["gatt_retention"].values():
        series["20"] = None
    report["gatt_retention"]["with"]["10"] = 0.555
    assert "at turn 10, without" in (page := render(report))
    assert "56%" in page


@pytest.mark.usefixtures("undrawn")
def test_versions_are_compared_in_pairs(report: dict) -> None:
    page = render(report)
    assert "<th>v2 ppo − v2 rejection</th><th>v2 ppo − sft</th>" in page
    assert "<td>+0.240 ± 0.005</td>" in page
    assert "<th>with − without GAtt, paired</th><td>+1.0 ± 0.7</td>" in page
    report["differences"] = {}
    report["gatt_retention_difference"] = empty_report()["gatt_retention_difference"]
    page = render(report)
    assert "<th>paired difference</th>" not in page
    assert "GAtt, paired" not in page


@pytest.mark.usefixtures("undrawn")
def test_accuracy_is_shown_with_the_number_of_pairs_and_prompts(report: dict) -> None:
    report["reward"]["safety"]["prompts"] = None  # a model of an older version of this project
    page = render(report)
    assert "<th>held-out pairs</th><td>800</td><td>640</td>" in page
    assert "<th>distinct prompts of these pairs</th><td>200</td><td>–</td>" in page


@pytest.mark.usefixtures("undrawn")
def test_a_second_evaluation_is_noted(report: dict) -> None:
    report["run"]["metrics_only"] = ["evaluate"]
    assert "evaluate: a second stage of kind evaluate; its metrics are in report.json" in render(report)


def labels(svg: str | None) -> list[str]:
    assert svg is not None
    return re.findall(r">([^<>]+)</text>", svg)


def test_each_ppo_stage_has_a_line_and_null_values_leave_gaps(report: dict) -> None:
    one = rlhf_figures.ppo_progress(report)
    report["ppo"]["v3/ppo"] = copy.deepcopy(report["ppo"]["v2/ppo"])
    report["ppo"]["v3/ppo"]["kl"] = [None] * 30
    two = rlhf_figures.ppo_progress(report)
    assert "v3 ppo" not in labels(one)
    assert [label for label in labels(two) if "ppo" in label] == ["v2 ppo", "v3 ppo"]
    report["ppo"] = {"v2/ppo": {key: [] for key in report["ppo"]["v2/ppo"]}}
    assert rlhf_figures.ppo_progress(report) is None


def test_an_unfinished_ppo_is_drawn_without_missing_series(report: dict) -> None:
    report["ppo"]["v2/ppo"]["safety_score"] = [None] * 30
    assert "safety RM score" in labels(rlhf_figures.ppo_progress(report))


@pytest.mark.usefixtures("undrawn")
def test_the_page_of_three_rounds(three_rounds: Path) -> None:
    report = collect("smoke", read_artifacts(inputs_of(three_rounds)))
    check(page := render(report))
    names = {f"v{number} {stage}" for number in (1, 2, 3) for stage in ("reward", "rejection", "ppo")}
    assert all(f"<summary>{name} <" in page for name in names)
    assert names <= set(labels(figures.wall_time(report)))
    assert {name for name in names if "ppo" not in name} <= set(labels(figures.loss_curves(report)))
    assert {name for name in names if "ppo" in name} <= set(labels(rlhf_figures.ppo_progress(report)))
    assert labels(rlhf_figures.rejection_scores(report)).count("rejection") == 3
    assert page.count("<th>v3 rejection</th>") == 2  # versions and rejection sampling
    assert "<th>prompts with a selected answer</th><td>690</td><td>690</td><td>690</td>" in page
    start = page.index("<thead><tr><th>prompt</th>")
    columns = re.findall("<th>([^<]+)</th>", page[start : page.index("</thead>", start)])
    assert columns == ["prompt", "sft", "v1 ppo", "v2 ppo", "v3 ppo"]


@pytest.mark.usefixtures("undrawn")
def test_any_name_of_a_round_or_stage_is_shown(report: dict) -> None:
    """Titles come from the run: names of rounds and stages are not fixed."""
    page = render(json.loads(json.dumps(report).replace("v1/rejection", "first_try/best_of_n")))
    assert page.count("<th>first try best of n</th>") == 3  # versions, rejection sampling, samples
    assert "v1" not in page


def test_null_errors_are_drawn_without_bars(report: dict) -> None:
    text = json.dumps(report)
    report = json.loads(re.sub(r'(_se": )[\d.]+', r"\1null", text))
    assert re.search(r"\d ± ", render(report)) is None


@pytest.mark.usefixtures("undrawn")
def test_omitted_rows_and_values_are_noted(report: dict) -> None:
    report["gatt_dialogues"]["with"]["outgrown"] = 3
    report["prompts"]["ordinary"]["too_long"] = 2
    report["gatt_dialogues"]["with"]["reached"] |= {"10": 199, "20": 197}
    report["gatt_dialogues"]["with"]["asked"]["20"] = 39
    report["not_finite"] = {"v2/ppo": {"kl_to_sft": 4}}
    report["prompts"]["ordinary"]["skipped"] = {"repeated prompt": 7}
    report["curves"]["sft"]["not_finite"] = 5
    page = render(report)
    assert "3 of 200 dialogues exceeded the context length" in page
    assert "only dialogues that reached its turn (turn 10: 199, turn 20: 197)." in page
    assert ">97.0 ± 1.2 (197 of 200)</td>" in page
    assert "(39 of 40)</td>" in page
    assert page.count(" of 200)</td>") == 2
    assert "at turn 20 (197 of 200), without" in page
    assert "v2 ppo: KL to SFT is not shown: 4 of its values are NaN or infinite." in page
    assert "7 other rows of ordinary prompts were skipped: repeated prompt." in page
    assert "sft: 5 losses were NaN or infinite" in page
    assert "2 of 1,000 ordinary prompts were skipped: prompt and answer would exceed" in page


def test_same_run_same_bytes(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = inputs_of(example)
    texts = []
    for _ in range(2):
        out = example / "report.partial"
        out.mkdir(exist_ok=True)
        run(ReportSettings(), inputs, out)
        texts.append(((out / "report.html").read_text(), (out / "report.json").read_text()))
    assert texts[0] == texts[1]
    assert json.loads(texts[0][1])["run"]["name"] == "smoke"
    assert f"{example}/report/report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("width", "label", "rotation"), [(4.0, "v1\nbest of n", 0), (1.0, "v1 best of n", 40)]
)
def test_names_below_a_panel_rotate_before_they_overlap(width: float, label: str, rotation: int) -> None:
    _, (axes,) = panels(1, 2.0)
    name_ticks(axes, ["sft", "v1/best_of_n", "v2/ppo"], width)
    tick = axes.get_xticklabels()[1]
    assert (tick.get_text(), tick.get_rotation()) == (label, rotation)


def test_more_models_than_colours_are_distinguishable(report: dict) -> None:
    report["reward"] |= {f"v{number}/reward": report["reward"]["safety"] for number in range(4)}
    drawn = reward_figures.reward_accuracy(report)
    assert len([label for label in labels(drawn) if label.endswith("reward")]) == 4
    assert drawn is not None
    assert drawn.count("opacity: 0.5") == 8  # seven bars of the sixth model, and its place in the legend


@pytest.mark.usefixtures("undrawn")
def test_the_tile_of_instructions_compares_only_what_was_measured(report: dict) -> None:
    assert "without → with GAtt" in render(report)
    report["gatt_retention"]["without"] = dict.fromkeys(report["gatt_retention"]["without"])
    page = render(report)
    assert "without → with GAtt" not in page
    assert ", with GAtt<" in page
