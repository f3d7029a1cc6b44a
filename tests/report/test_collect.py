"""report.json: every key there, whatever is missing; numbers taken over as the stages wrote them."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from llamita.artifact import write_json
from llamita.data.rows import RATINGS
from llamita.errors import DataError
from llamita.measures import MEASURES, RETENTION_SERIES, VERSIONS
from llamita.report.artifacts import Artifact, read_artifacts
from llamita.report.collect import CURVE_POINTS, collect, empty_report


def artifacts_of(run: Path) -> list[Artifact]:
    return read_artifacts({path.parent.name: path.parent for path in run.glob("*/manifest.json")})


TURNS = ("1", "2", "4", "6", "10", "20")


def required_keys() -> list[str]:
    """The keys that others rely on, written out once more as dotted paths."""
    keys = ["wall_seconds", "pretrain.validation_bits_per_byte", "pretrain.unigram_bits_per_byte"]
    for model in ("helpfulness", "safety"):
        keys += [f"reward.{model}.accuracy", f"reward.{model}.accuracy_se", f"reward.{model}.pairs"]
        keys += [f"reward.{model}.prompts"]
        keys += [f"reward.{model}.by_rating.{rating}{se}" for rating in RATINGS for se in ("", "_se")]
        for length in ("longer_chosen", "shorter_chosen"):
            keys += [f"reward.{model}.by_length.{length}{se}" for se in ("", "_se")]
    keys += ["demonstrations.gold_helpfulness", "demonstrations.gold_helpfulness_se"]
    for version in ("sft", "v1", "v2_rejection", "v2"):
        for measure in (
            *("gold_helpfulness", "violation_rate", "invalid_rate", "false_refusal_rate"),
            *("false_refusal_borderline", "kl_to_sft", "kl_to_start"),
        ):
            keys += [f"versions.{version}.{measure}{se}" for se in ("", "_se")]
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
    missing = {path for path in required_keys() if look_up(report, path) is None}
    assert missing == {
        f"versions.{name}.kl_to_start{se}" for name in VERSIONS if name != "v2" for se in ("", "_se")
    }


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
    assert report["versions"]["v2"]["kl_to_start"] == 0.9
    assert report["gatt_retention"]["without"]["6"] == 0.25
    assert list(report["wall_seconds"])[:2] == ["world", "tokenizer"]  # in the order they were made


@pytest.mark.parametrize("created", ["2020", "2099"])
def test_a_second_reward_model_of_a_kind_stands_under_its_own_name(example: Path, created: str) -> None:
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
def test_a_second_evaluation_does_not_cover_the_first(example: Path, created: str) -> None:
    """Whatever the order: an ablation's nulls once wiped out what the run's own evaluation had measured."""
    before = collect("smoke", artifacts_of(example))
    copied(example, "evaluate", "evaluate_big", created, gatt_retention={}, samples=[])
    copied(example, "pretrain", "pretrain_big", created, validation_bits_per_byte=9.9)
    report = collect("smoke", artifacts_of(example))
    for key in ("versions", "gatt_retention", "samples", "pretrain", "ppo"):
        assert report[key] == before[key]
    assert sorted(report["run"]["metrics_only"]) == ["evaluate_big", "pretrain_big"]
    assert report["metrics"]["evaluate_big"]["versions"]["v2"]["gold_helpfulness"] == 0.61
    assert report["metrics"]["pretrain_big"]["validation_bits_per_byte"] == 9.9
    assert "evaluate" not in report["metrics"]


def test_inputs_have_any_names_and_stages_of_one_name_are_kept_apart(example: Path) -> None:
    copied(example, "sft", "sft_big", "2099")
    report = collect("smoke", artifacts_of(example))
    assert report["wall_seconds"].keys() >= {"sft", "sft_big"}
    folders = {"a": example / "sft", "b": example / "sft", "rm": example / "safety"}
    report = collect("smoke", read_artifacts(folders))
    assert report["wall_seconds"] == {"a": 88.5, "b": 88.5, "rm": 41.0}
    assert report["reward"]["safety"]["pairs"] == 640


def ppo_rows(*rounds: tuple[int, ...]) -> str:
    rows = [
        {"step": at, "round": number, "iteration": at, "kl": 0.1, "score": 0.5}
        for number, iterations in enumerate(rounds, 1)
        for at in iterations
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_iterations_of_several_rounds_are_shown_with_their_round(example: Path) -> None:
    (example / "rlhf" / "metrics.jsonl").write_text(ppo_rows((1, 2, 3), (4, 5, 6), (7,)))
    ppo = collect("smoke", artifacts_of(example))["ppo"]
    assert ppo["iteration"] == [1, 2, 3, 4, 5, 6, 7]
    assert ppo["round"] == [1, 1, 1, 2, 2, 2, 3]


def test_stages_made_with_different_versions_show_them_all(example: Path) -> None:
    path = example / "safety" / "manifest.json"
    path.write_text(path.read_text().replace('"torch": "2.13.0"', '"torch": "2.14.0"'))
    packages = collect("smoke", artifacts_of(example))["packages"]
    assert packages == {"torch": "2.13.0, 2.14.0", "trl": "1.16.0"}


def test_losses_that_are_no_numbers_are_counted(example: Path) -> None:
    rows = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": null}\n{"step": 3, "eval_loss": 1.0}\n'
    (example / "sft" / "metrics.jsonl").write_text(rows)
    curve = collect("smoke", artifacts_of(example))["curves"]["sft"]
    assert (curve["step"], curve["not_finite"]) == ([1], 1)


def test_missing_stages_leave_nulls(pretrain_alone: Path) -> None:
    report = collect("begun", artifacts_of(pretrain_alone))
    assert report["pretrain"]["validation_bits_per_byte"] == 0.412
    assert report["reward"]["safety"]["accuracy"] is None
    assert report["versions"]["v2"]["gold_helpfulness"] is None


def test_a_measure_that_the_evaluation_lacks_stays_null(example: Path) -> None:
    path = example / "evaluate" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"]["gatt_retention"].pop("without")
    manifest["metrics"]["versions"]["v1"].pop("violation_rate")
    path.write_text(json.dumps(manifest))
    report = collect("smoke", artifacts_of(example))
    assert report["gatt_retention"]["without"]["20"] is None
    assert report["versions"]["v1"]["violation_rate"] is None
    assert report["versions"]["v1"]["gold_helpfulness"] == 0.45


def test_long_curves_are_thinned_and_end_where_training_ended(example: Path) -> None:
    rows = [{"step": step, "loss": 1 / step} for step in range(1, 1001)]
    (example / "pretrain" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curve = collect("smoke", artifacts_of(example))["curves"]["pretrain"]
    assert len(curve["step"]) <= CURVE_POINTS
    assert curve["step"][-1] == 1000
    assert curve["loss"][-1] == 0.001


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "manifest.json"),
        ("[]", "manifest.json"),
        ('{"stage": "sft", "name": "sft", "settings": {}}', "metrics"),
    ],
)
def test_broken_manifest(example: Path, text: str, told: str) -> None:
    (example / "sft" / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=told):
        artifacts_of(example)


def test_a_reward_model_of_no_known_kind(example: Path) -> None:
    path = example / "safety" / "manifest.json"
    path.write_text(path.read_text().replace('"kind": "safety"', '"kind": "taste"'))
    with pytest.raises(DataError, match=r"safety: settings\.kind is 'taste'"):
        collect("smoke", artifacts_of(example))


def test_broken_metrics_row_says_its_line(example: Path) -> None:
    with (example / "sft" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 301, "lo')
    with pytest.raises(DataError, match=r"metrics\.jsonl:301"):
        artifacts_of(example)


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text(encoding="utf-8")
    report = empty_report()
    names = {*report, *report["ppo"], *report["pretrain"], *report["versions"], *MEASURES, *RETENTION_SERIES}
    names |= {*report["run"], *report["reward"]["safety"], "not_finite", "reached", "asked", "skipped"}
    names = {name.removesuffix("_se") for name in names}
    assert [name for name in names if name not in text] == []
