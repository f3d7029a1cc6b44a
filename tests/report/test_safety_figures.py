"""Figures of safety training, distillation and false refusals: drawn from the report, nulls are omitted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from matplotlib.axes import Axes

from llamita.measures import empty_evaluation
from llamita.report.collect import empty_report
from llamita.report.distillation_figures import ablations, distillation
from llamita.report.ghost_attention import version_retention
from llamita.report.notes import notes
from llamita.report.refusal_figures import false_refusals
from llamita.report.reward_figures import reward_accuracy, reward_groups
from llamita.report.rlhf_figures import PPO_DIAGNOSTICS, ppo_contexts, ppo_diagnostics, ppo_progress
from llamita.report.safety_figures import data_scaling, scaling_series, score_shift
from llamita.report.version_figures import reward_by_round

Draw = Callable[[Any, dict[str, Any]], Any]


def lines(axes: Axes) -> dict[str, list[float]]:
    """Returns the values of each line with a label; those of error bars are labelled at their container."""
    found = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    found |= {
        container.get_label(): list(container.lines[0].get_ydata())
        for container in axes.containers
        if hasattr(container, "lines")
    }
    return {str(label): values for label, values in found.items() if not str(label).startswith("_")}


def bars(axes: Axes) -> list[float]:
    return [round(float(patch.get_height()), 6) for patch in axes.patches]


def test_score_shift_has_a_point_per_prompt_and_the_diagonal(
    safety_report: dict[str, Any], drawn: Draw
) -> None:
    points = [[0.1, 0.9], [0.2, 0.8], [0.9, 0.85], [0.5, 0.5]]
    safety_report["score_shift"]["safety"] = points
    figure = drawn(score_shift, safety_report)
    safety, helpfulness = figure.axes
    assert numpy.allclose(safety.collections[0].get_offsets(), points)
    assert list(safety.lines[0].get_xdata()) == list(safety.lines[0].get_ydata()) == [0, 1]
    assert safety.get_title(loc="left").endswith("higher: 50%, lower: 25% of 4 answers")
    assert (safety.get_xlabel(), safety.get_ylabel()) == ("score of sft", "score of v2 ppo")
    assert len(helpfulness.collections[0].get_offsets()) == 60
    safety_report["score_shift"]["safety"] = [[0.0, 1.0], [0.001, 0.999], [0.5, 0.5]]
    merged = drawn(score_shift, safety_report).axes[0].collections[0]
    assert numpy.allclose(merged.get_offsets(), [[0.0, 1.0], [0.5, 0.5]])
    assert list(merged.get_sizes()) == [28, 14], "the area of a point is the number of answers"
    safety_report["score_shift"]["helpfulness"] = None
    assert len(drawn(score_shift, safety_report).axes) == 1


def test_mean_and_left_tail_of_each_version(safety_report: dict[str, Any], drawn: Draw) -> None:
    found = safety_report["distributions"]
    found["v1/rejection"]["safety_score"] = {"mean": None}
    safety, helpfulness = drawn(data_scaling, safety_report).axes
    expected = [found[name]["safety_score"]["mean"] for name in found if name != "v1/rejection"]
    assert lines(safety)["mean"] == pytest.approx(expected)
    tails = [scores["helpfulness_score"]["left_tail"] for scores in found.values()]
    assert lines(helpfulness)["left tail: mean of the lowest 10%"] == pytest.approx(tails)
    assert [label.get_text() for label in safety.get_xticklabels()][:2] == ["sft", "v1\nrejection"]
    assert safety.get_xlabel() == ""
    for scores in found.values():
        scores["helpfulness_score"] = None
    (axes,) = drawn(data_scaling, safety_report).axes
    assert axes.get_title(loc="left") == "safety RM score, harmful prompts"


def test_a_series_of_safety_data_is_drawn_by_share(safety_report: dict[str, Any], drawn: Draw) -> None:
    scores = safety_report["distributions"]
    names = ("safety_100", "safety_0", "sft", "safety_25")
    safety_report["distributions"] = dict.fromkeys(names, scores["sft"])
    axes = drawn(data_scaling, safety_report).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0%", "25%", "100%"]
    assert axes.get_xlabel() == "share of the safety data"
    assert list(scaling_series(["sft", "v_2", "v_1"])) == ["sft", "v_2", "v_1"]  # too few for a series


def test_distillation_scores_changes_and_kept_share(safety_report: dict[str, Any], drawn: Draw) -> None:
    metrics = safety_report["distillation"]["distillation"]
    metrics["by_category"]["hateful"]["kept_share"] = None
    metrics["by_category"]["none"] = metrics["by_category"].pop("unqualified")
    scores, changes, kept = drawn(distillation, safety_report).axes
    original = metrics["score_histograms"]["original"]
    steps = {patch.get_label(): patch.get_data().values for patch in scores.patches}
    assert list(steps) == ["no preprompt", "generic preprompt", "tailored to the category"]
    assert list(steps["no preprompt"]) == pytest.approx([count / sum(original) for count in original])
    generic, tailored = (container.lines[0] for container in changes.containers)
    assert list(generic.get_ydata()) == [part["generic"] for part in metrics["score_changes"]]
    assert len(tailored.get_ydata()) == 19  # one bin has no tailored answer
    names = [label.get_text() for label in kept.get_yticklabels()]
    assert names == ["all prompts", "illicit", "no category", "generic", "tailored"]
    widths = [float(patch.get_width()) for patch in kept.patches]
    assert widths == pytest.approx([170 / 240, 0.72, 0.76, 0.5, 160 / 220])


def test_ablations_are_drawn_with_two_errors(safety_report: dict[str, Any], drawn: Draw) -> None:
    (axes,) = drawn(ablations, safety_report).axes
    assert [label.get_text().split(" (")[0] for label in axes.get_yticklabels()] == [
        "gold helpfulness",
        "violation rate",
        "false refusal rate",
    ]
    (container,) = axes.containers
    assert list(container.lines[0].get_xdata()) == pytest.approx([-2.0, 1.1, 1.3])
    first = container.lines[2][0].get_segments()[0]
    assert list(first[:, 0]) == pytest.approx([-3.2, -0.8])
    assert container.get_label() == "sft ungated − sft"


def test_false_refusals_by_rules_and_by_the_classifier(safety_report: dict[str, Any], drawn: Draw) -> None:
    versions = safety_report["versions"]
    versions["v1/rejection"]["classifier_false_refusal_rate"] = None
    ordinary, borderline = drawn(false_refusals, safety_report).axes
    rules = [figures["false_refusal_rate"] for figures in versions.values()]
    classifier = [
        value
        for figures in versions.values()
        if (value := figures["classifier_false_refusal_rate"]) is not None
    ]
    assert bars(ordinary) == pytest.approx([*rules, *classifier])
    assert len(bars(borderline)) == 8
    assert [line.get_ydata()[0] for line in ordinary.lines if line.get_label() == "paper: about 0.05%"]
    assert not [line for line in borderline.lines if line.get_label() == "paper: about 0.05%"]


def test_without_borderline_prompts_there_is_no_panel_for_them(
    safety_report: dict[str, Any], drawn: Draw
) -> None:
    for figures in safety_report["versions"].values():
        figures |= dict.fromkeys(("false_refusal_borderline", "classifier_refusal_borderline"))
    (ordinary,) = drawn(false_refusals, safety_report).axes
    assert ordinary.get_title(loc="left") == "ordinary prompts"


def test_false_refusals_are_not_drawn_without_the_classifier(safety_report: dict[str, Any]) -> None:
    for figures in safety_report["versions"].values():
        figures |= dict.fromkeys(("classifier_false_refusal_rate", "classifier_refusal_borderline"))
    assert false_refusals(safety_report) is None


def test_retention_of_each_version_and_its_difference(safety_report: dict[str, Any], drawn: Draw) -> None:
    retention = safety_report["version_retention"]
    retention["v2/ppo"]["20"] = None
    retention["v1/rejection"] = dict.fromkeys(retention["v1/rejection"], 0.0)
    left, right = drawn(version_retention, safety_report).axes
    assert lines(left)["v2 ppo"] == pytest.approx(
        [retention["v2/ppo"][turn] for turn in "1 2 4 6 10".split()]
    )
    assert lines(left)["v1 rejection"] == [0.0] * 6
    assert len(lines(left)["sft"]) == 6
    points = [float(container.lines[0].get_ydata()[0]) for container in right.containers]
    differences = safety_report["version_retention_differences"].values()
    assert points == pytest.approx([100 * figures["1-10"] for figures in differences])


def test_the_third_reward_model_is_drawn_beside_the_two(safety_report: dict[str, Any], drawn: Draw) -> None:
    (axes,) = drawn(reward_by_round, safety_report).axes
    expected = [figures["judge_score"] for figures in safety_report["versions"].values()]
    assert lines(axes)["third RM, both kinds of prompts"] == pytest.approx(expected)
    (axes,) = drawn(reward_accuracy, safety_report).axes
    paper = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D" and len(line.get_ydata())]
    assert paper[:2] == [0.632, 0.807]
    assert len(paper) == 10  # two of the models, on all pairs and by four ratings
    assert bars(axes)[-1] == 0.79  # the judge has no ratings


def test_ppo_is_drawn_by_context_and_with_the_third_model(safety_report: dict[str, Any], drawn: Draw) -> None:
    series = safety_report["ppo"]["v2/ppo"]
    axes = drawn(ppo_contexts, safety_report).axes
    titles = ["plain", "system message", "several turns", "system message, turns"]
    assert [one.get_title(loc="left") for one in axes] == titles
    scores = series["adversarial_safety_score_multi_turn"]
    assert scores[5] is None
    assert lines(axes[2])["v2 ppo"] == [score for score in scores if score is not None]
    panels = {one.get_title(loc="left"): one for one in drawn(ppo_progress, safety_report).axes}
    assert lines(panels["third RM score"])["v2 ppo"] == series["judge_score"]
    series["judge_score"] = [None] * 30
    assert len(drawn(ppo_progress, safety_report).axes) == 4


def test_accuracy_by_context_category_and_on_evasions(safety_report: dict[str, Any], drawn: Draw) -> None:
    models = safety_report["reward"]
    models["helpfulness"]["by_context"]["multi_turn"]["accuracy"] = None
    models["safety"]["evasions"] = None
    (axes,) = drawn(reward_groups, safety_report).axes
    assert [label.get_text() for label in axes.get_xticklabels()][::2] == [
        "plain",
        "several\nturns",
        "illicit",
        "unqualified",
    ]
    parts = [*models["safety"]["by_context"].values(), *models["safety"]["by_category"].values()]
    assert bars(axes)[7:14] == pytest.approx([part["accuracy"] for part in parts])
    assert len(bars(axes)) == 7 + 7 + 8


@pytest.mark.parametrize(
    "draw",
    [
        *(score_shift, data_scaling, distillation, ablations, false_refusals),
        *(version_retention, reward_groups, ppo_contexts),
    ],
)
def test_nothing_is_drawn_without_figures(draw: Callable[[dict[str, Any]], str | None]) -> None:
    assert draw(empty_report()) is None
    nulls = empty_report() | {
        "distillation": {"distillation": {"prompts": None}},
        "ablation_differences": {"sft_ungated": {"gold_helpfulness": None}},
        "version_retention": {"sft": {"1": None, "1-10": None}},
        "distributions": {"sft": {"safety_score": {"mean": None}}, "v1": {}},
    }
    assert draw(nulls | {"score_shift": empty_evaluation()["score_shift"]}) is None


def test_ppo_diagnostics_and_held_out_prompts(safety_report: dict[str, Any], drawn: Draw) -> None:
    assert ppo_diagnostics(safety_report) is None, "not measured"
    series = safety_report["ppo"]["v2/ppo"]
    empty = [None] * 30
    series |= dict.fromkeys((key for key, *_ in PPO_DIAGNOSTICS), empty)
    series["sampler_deviation_p95"] = [0.01] * 30
    series["held_out_score"] = [*empty[:9], 0.5, *empty[:19], 0.6]
    titles = [one.get_title(loc="left") for one in drawn(ppo_diagnostics, safety_report).axes]
    assert titles == [title for _, title, _ in PPO_DIAGNOSTICS]
    panels = {one.get_title(loc="left"): one for one in drawn(ppo_progress, safety_report).axes}
    assert lines(panels["held-out reward"])["v2 ppo"] == [0.5, 0.6]


def test_early_stopping_is_noted(safety_report: dict[str, Any]) -> None:
    assert not [note for note in notes(safety_report)["ppo"] if "held-out" in note]
    figures = {"prompts": 64, "reward_difference": 0.12, "reward_difference_se": 0.02, "reward": 0.7}
    held_out = figures | {"stopped_by": "kl", "best_iteration": 20}
    safety_report["metrics"]["v2/ppo"] = {"held_out": held_out}
    (note,) = [note for note in notes(safety_report)["ppo"] if "held-out" in note]
    assert "stopped early because the KL" in note
    assert "iteration 20, the best on 64 held-out prompts (reward +0.120 ± 0.020 against the start)" in note
    held_out["stopped_by"] = None
    assert "ran to its last iteration" in notes(safety_report)["ppo"][-1]
