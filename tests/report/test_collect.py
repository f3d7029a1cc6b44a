"""report.json: it has every key, null if not measured, and the numbers that the stages wrote."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from llamita.artifact import write_json
from llamita.data.rows import RATINGS
from llamita.errors import DataError
from llamita.measures import BREAKDOWN_LABELS, MEASURES, RETENTION_SERIES
from llamita.report.artifacts import Artifact, read_artifacts
from llamita.report.collect import CURVE_POINTS, PPO_SERIES, REJECTION_MEASURES, collect, empty_report

from ..helpers.finished_run import inputs_of
from ..helpers.safety_run import write_safety_run


def artifacts_of(run: Path) -> list[Artifact]:
    return read_artifacts(inputs_of(run))


TURNS = ("1", "2", "4", "6", "10", "20")


def required_keys() -> list[str]:
    """The documented keys as dotted paths, independent of the code."""
    keys = ["wall_seconds", "pretrain.validation_bits_per_byte", "pretrain.unigram_bits_per_byte"]
    for model in ("helpfulness", "safety"):
        keys += [f"reward.{model}.accuracy", f"reward.{model}.accuracy_se", f"reward.{model}.pairs"]
        keys += [f"reward.{model}.prompts"]
        keys += [f"reward.{model}.by_rating.{rating}{se}" for rating in RATINGS for se in ("", "_se")]
        for length in ("longer_chosen", "shorter_chosen"):
            keys += [f"reward.{model}.by_length.{length}{se}" for se in ("", "_se")]
    keys += ["demonstrations.gold_helpfulness", "demonstrations.gold_helpfulness_se"]
    for series in ("with", "without", "unseen"):
        keys += [f"gatt_retention.{series}.{turn}{se}" for turn in TURNS for se in ("", "_se")]
    keys += [f"gatt_retention_difference.{turn}{se}" for turn in TURNS for se in ("", "_se")]
    return keys


def look_up(report: object, path: str) -> object:
    for key in path.split("."):
        assert isinstance(report, dict)
        assert key in report, f"{path}: no {key}"
        report = report[key]
    return report


@pytest.mark.parametrize("path", required_keys())
def test_empty_report_has_every_key(path: str) -> None:
    assert look_up(empty_report(), path) in (None, {})


def test_full_report_fills_every_key(example: Path) -> None:
    report = collect("smoke", artifacts_of(example))
    assert {path for path in required_keys() if look_up(report, path) is None} == set()
    assert list(report["versions"]) == ["sft", "v1/rejection", "v2/rejection", "v2/ppo"]


def test_stages_and_versions_have_keys_only_once_measured() -> None:
    empty = empty_report()
    assert [empty[key] for key in ("versions", "rejection", "ppo", "curves", "wall_seconds")] == [{}] * 5


def test_rounds_are_stored_under_the_names_of_their_stages(three_rounds: Path) -> None:
    """The report uses the names of its inputs, not those in the manifests."""
    report = collect("smoke", artifacts_of(three_rounds))
    rounds = ("v1", "v2", "v3")
    names = [f"{one}/{stage}" for one in rounds for stage in ("reward", "rejection", "ppo")]
    assert [stage["name"] for stage in report["run"]["stages"]][-10:] == [*names, "evaluate"]
    assert list(report["ppo"]) == [f"{one}/ppo" for one in rounds]
    assert report["ppo"]["v3/ppo"].keys() == set(PPO_SERIES)
    assert report["ppo"]["v3/ppo"]["iteration"] == list(range(1, 31))
    assert list(report["rejection"]) == [f"{one}/rejection" for one in rounds]
    assert report["rejection"]["v2/rejection"] == {
        "prompts": 700,
        "samples": 5600,
        "selected": 690,
        "without_answer": 4,
        "all_unsafe": 6,
        "finished_share": 0.93,
        "mean_score": pytest.approx(0.54),
        "best_score": pytest.approx(0.79),
        "judge_score": None,
        "selected_judge_score": None,
    }
    assert list(report["reward"]) == ["helpfulness", "safety", "v1/reward", "v2/reward", "v3/reward"]
    assert [name for name, curve in report["curves"].items() if curve["stage"] == "rejection"] == [
        f"{one}/rejection" for one in rounds
    ]
    assert report["run"]["metrics_only"] == []
    assert report["metrics"]["v2/rejection"]["steps"] == 800


def test_a_reward_model_of_a_round_never_takes_the_place_of_its_kind(three_rounds: Path) -> None:
    inputs = inputs_of(three_rounds)
    del inputs["helpfulness"]
    reward = collect("smoke", read_artifacts(inputs))["reward"]
    assert reward["helpfulness"]["accuracy"] is None
    assert reward["v1/reward"]["pairs"] == 800


def test_missing_metrics_of_rejection_sampling_are_null(three_rounds: Path) -> None:
    artifacts = artifacts_of(three_rounds)
    (second,) = (one for one in artifacts if one.name == "v2/rejection")
    second.metrics.pop("best_score")
    found = collect("smoke", artifacts)["rejection"]
    assert found["v2/rejection"]["best_score"] is None
    assert found["v2/rejection"].keys() == set(REJECTION_MEASURES)


def test_numbers_are_those_of_the_manifests(example: Path) -> None:
    report = collect("smoke", artifacts_of(example))
    assert report["wall_seconds"]["pretrain"] == 121.0
    assert report["pretrain"]["unigram_bits_per_byte"] == 1.93
    assert report["reward"]["helpfulness"]["by_rating"]["better"] == 0.91
    assert report["reward"]["helpfulness"]["by_rating"]["better_se"] == pytest.approx(
        (0.91 * 0.09 / 200) ** 0.5
    )
    assert report["reward"]["safety"]["pairs"] == 640
    assert report["reward"]["safety"]["mean_score"] == 0.25
    assert report["versions"]["v2/ppo"]["kl_to_start"] == 0.9
    assert report["gatt_retention"]["without"]["6"] == 0.25
    assert list(report["wall_seconds"])[:2] == ["world", "tokenizer"]  # in the order they were made


@pytest.mark.parametrize("created", ["2020", "2099"])
def test_a_second_reward_model_of_a_kind_is_stored_under_its_own_name(example: Path, created: str) -> None:
    artifacts = artifacts_of(example)
    (helpfulness,) = (one for one in artifacts if one.name == "helpfulness")
    manifest = copy.deepcopy(helpfulness.manifest) | {"name": "without_margin", "created": created}
    manifest["metrics"] |= {"accuracy": 0.6}
    (example / "without_margin").mkdir()
    write_json(example / "without_margin" / "manifest.json", manifest)
    expected = collect("smoke", artifacts)["reward"]
    found = collect("smoke", artifacts_of(example))["reward"]
    assert found.pop("without_margin")["accuracy"] == 0.6
    assert found == expected


def copied(run: Path, name: str, new: str, created: str, **metrics: object) -> None:
    manifest = json.loads((run / name / "manifest.json").read_text())
    manifest |= {"name": new, "created": created}
    manifest["metrics"] |= metrics
    (run / new).mkdir()
    write_json(run / new / "manifest.json", manifest)


@pytest.mark.parametrize("created", ["2020", "2099"])
def test_a_second_evaluation_does_not_overwrite_the_first(example: Path, created: str) -> None:
    """In any order: nulls of an ablation once replaced the figures of the run's own evaluation."""
    before = collect("smoke", artifacts_of(example))
    copied(example, "evaluate", "evaluate_big", created, gatt_retention={}, samples=[])
    copied(example, "pretrain", "pretrain_big", created, validation_bits_per_byte=9.9)
    report = collect("smoke", artifacts_of(example))
    for key in ("versions", "gatt_retention", "samples", "pretrain", "ppo"):
        assert report[key] == before[key]
    assert sorted(report["run"]["metrics_only"]) == ["evaluate_big", "pretrain_big"]
    assert report["metrics"]["evaluate_big"]["versions"]["v2/ppo"]["gold_helpfulness"] == 0.61
    assert report["metrics"]["pretrain_big"]["validation_bits_per_byte"] == 9.9
    assert "evaluate" not in report["metrics"]


def test_artifacts_have_the_names_of_their_inputs(example: Path) -> None:
    copied(example, "sft", "sft_big", "2099")
    report = collect("smoke", artifacts_of(example))
    assert report["wall_seconds"].keys() >= {"sft", "sft_big"}
    folders = {"a": example / "sft", "b": example / "sft", "v1/rm": example / "safety"}
    report = collect("smoke", read_artifacts(folders))
    assert report["wall_seconds"] == {"a": 88.5, "b": 88.5, "v1/rm": 41.0}
    assert {one["name"] for one in report["run"]["stages"]} == {"a", "b", "v1/rm"}  # as the page finds them
    assert report["reward"]["v1/rm"]["pairs"] == 640


def test_stages_made_with_different_versions_show_them_all(example: Path) -> None:
    path = example / "safety" / "manifest.json"
    path.write_text(path.read_text().replace('"torch": "2.13.0"', '"torch": "2.14.0"'))
    packages = collect("smoke", artifacts_of(example))["packages"]
    assert packages == {"torch": "2.13.0, 2.14.0", "trl": "1.16.0"}


def test_losses_that_are_not_finite_are_counted(example: Path) -> None:
    rows = '{"step": 1, "train/loss": 2.0}\n{"step": 2, "train/loss": null}\n{"step": 3, "eval/loss": 1.0}\n'
    (example / "sft" / "metrics.jsonl").write_text(rows)
    curve = collect("smoke", artifacts_of(example))["curves"]["sft"]
    assert (curve["step"], curve["not_finite"]) == ([1], 1)


def test_stages_of_safety_have_their_metrics_under_keys_of_their_own(safety_run: Path) -> None:
    report = collect("smoke", artifacts_of(safety_run))
    for name in ("distillation", "red_team", "refusal_classifier"):
        metrics = json.loads((safety_run / name / "manifest.json").read_text())["metrics"]
        assert report[name] == {name: metrics}
        assert name not in report["metrics"]
    assert empty_report()["red_team"] == {}


def test_a_third_reward_model_is_stored_under_the_name_of_its_stage(safety_run: Path) -> None:
    reward = collect("smoke", artifacts_of(safety_run))["reward"]
    assert list(reward) == ["helpfulness", "safety", "judge"]
    assert reward["judge"]["accuracy"] == 0.79
    assert reward["judge"]["by_rating"]["better"] is None
    assert reward["helpfulness"]["pairs"] == 800  # its place is not taken
    assert reward["safety"]["by_context"]["plain"]["accuracy"] == pytest.approx(0.86)
    assert reward["safety"]["evasions"]["accuracy"] == pytest.approx(0.9)


def test_the_evaluation_of_safety_is_taken_whole(safety_run: Path) -> None:
    report = collect("smoke", artifacts_of(safety_run))
    evaluation = json.loads((safety_run / "evaluate" / "manifest.json").read_text())["metrics"]
    for key in (
        *("breakdown", "breakdown_differences", "decodings", "distributions", "score_shift"),
        *("version_retention", "version_retention_differences", "refusal_agreement"),
        *("ablations", "ablation_differences", "ablation_breakdown"),
    ):
        assert report[key] == evaluation[key]


def test_a_second_evaluation_stays_metrics_only(tmp_path: Path) -> None:
    run = write_safety_run(tmp_path / "smoke")
    before = collect("smoke", artifacts_of(run))
    copied(run, "evaluate", "evaluate_scaling", "2099", breakdown={}, distributions={"safety_0": {}})
    report = collect("smoke", artifacts_of(run))
    assert report["breakdown"] == before["breakdown"]
    assert report["distributions"] == before["distributions"]
    assert report["metrics"]["evaluate_scaling"]["distributions"] == {"safety_0": {}}


def test_missing_stages_leave_nulls(pretrain_alone: Path) -> None:
    report = collect("begun", artifacts_of(pretrain_alone))
    assert report["pretrain"]["validation_bits_per_byte"] == 0.412
    assert report["reward"]["safety"]["accuracy"] is None
    assert report["versions"] == {}


def test_measures_missing_in_the_evaluation_are_null(example: Path) -> None:
    path = example / "evaluate" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"]["gatt_retention"].pop("without")
    manifest["metrics"]["versions"]["v1/rejection"].pop("violation_rate")
    path.write_text(json.dumps(manifest))
    report = collect("smoke", artifacts_of(example))
    assert report["gatt_retention"]["without"]["20"] is None
    assert report["versions"]["v1/rejection"]["violation_rate"] is None
    assert report["versions"]["v1/rejection"]["gold_helpfulness"] == 0.45


def test_long_curves_are_thinned_and_end_where_training_ended(example: Path) -> None:
    rows = [{"step": step, "train/loss": 1 / step} for step in range(1, 1001)]
    (example / "pretrain" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curve = collect("smoke", artifacts_of(example))["curves"]["pretrain"]
    assert len(curve["step"]) <= CURVE_POINTS
    assert curve["step"][-1] == 1000
    assert curve["loss"][-1] == 0.001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "manifest.json"),
        ("[]", "manifest.json"),
        ('{"stage": "sft", "name": "sft", "settings": {}}', "metrics"),
    ],
)
def test_broken_manifest(example: Path, text: str, message: str) -> None:
    (example / "sft" / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=message):
        artifacts_of(example)


def test_a_reward_model_of_an_unknown_kind(example: Path) -> None:
    path = example / "safety" / "manifest.json"
    path.write_text(path.read_text().replace('"kind": "safety"', '"kind": "taste"'))
    with pytest.raises(DataError, match=r"safety: settings\.kind is 'taste'"):
        collect("smoke", artifacts_of(example))


def test_error_for_a_broken_metrics_row_has_its_line(example: Path) -> None:
    with (example / "sft" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 301, "lo')
    with pytest.raises(DataError, match=r"metrics\.jsonl:301"):
        artifacts_of(example)


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    report = empty_report()
    names = {*report, *PPO_SERIES, *REJECTION_MEASURES, *report["pretrain"], *MEASURES, *RETENTION_SERIES}
    names |= {*report["run"], *report["reward"]["safety"], "not_finite", "reached", "asked", "skipped"}
    names |= {*BREAKDOWN_LABELS, *report["score_shift"], "left_tail", "quantiles", "kappa"}
    names = {name.removesuffix("_se") for name in names}
    assert [name for name in names if name not in text] == []
