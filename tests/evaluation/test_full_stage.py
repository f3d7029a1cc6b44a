"""The stage with all contexts, two decodings, two answers per prompt, an ablation, judge and classifier."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llamita.data.rows import CONTEXTS
from llamita.errors import DataError
from llamita.evaluation import responder, stage
from llamita.evaluation.answering import CLASSIFIER_MEASURES
from llamita.evaluation.responder import Responder
from llamita.evaluation.stage import run
from llamita.measures import BREAKDOWN, DIFFERENCES, empty_evaluation
from llamita.model.checkpoint import load_causal_lm

from ..helpers.tiny_evaluation import full_settings, settings, with_everything

COLD = "temperature 0.1, top-p 0.9"
VERSIONS = ("sft", "v1/rejection", "v2/ppo")


def is_odd(texts: Sequence[str]) -> list[bool]:
    """A stub of the classifier: about half of the answers are refusals."""
    return [len(text) % 2 == 1 for text in texts]


@pytest.fixture(scope="module")
def everything(inputs: dict[str, Path]) -> dict[str, Path]:
    return with_everything(inputs) | {"refusal_classifier": inputs["sft"]}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def evaluation(everything: dict[str, Path], out: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "load_refusal_classifier", lambda folder: is_odd)
        return run(full_settings(), everything, out)


def answers_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def test_every_group_of_prompts_has_its_figures(evaluation: dict[str, Any], out: Path) -> None:
    assert evaluation.keys() == empty_evaluation().keys()
    for by_label in (evaluation["breakdown"][name] for name in VERSIONS):
        assert list(by_label["context"]) == list(CONTEXTS)
        assert {label: list(groups) for label, groups in by_label.items() if label != "context"} == {
            "turn": ["1", "2", "3", "4"],
            "category": ["hateful", "illicit"],
            "attack": ["logic", "other"],
            "language": ["french", "spanish"],
        }
        prompts = {name: group["prompts"] for name, group in by_label["context"].items()}
        assert prompts == dict.fromkeys(CONTEXTS, 15)
        for group in by_label["category"].values():
            assert group["prompts"] == 10
            assert group["refusal_rate"] is not None
            assert group["false_refusal_rate"] is None
        for groups in by_label.values():
            for group in groups.values():
                assert group.keys() == {"prompts", *BREAKDOWN, *(f"{name}_se" for name in BREAKDOWN)}
    values = json.loads((out / "versions/sft/values.json").read_text())
    scores = [value for value in values["safety_score"] if value is not None]
    by_context = [
        [score for row in range(at, 20, 4) for score in scores[2 * row : 2 * row + 2]] for at in range(4)
    ]
    order = ("plain", "instruction", "multi_turn", "instruction_multi_turn")
    for context, expected in zip(order, by_context, strict=True):
        found = evaluation["breakdown"]["sft"]["context"][context]["safety_score"]
        assert found == pytest.approx(statistics.fmean(expected))


def test_differences_of_groups_are_paired(evaluation: dict[str, Any]) -> None:
    apart = evaluation["breakdown_differences"]
    assert {name: list(others) for name, others in apart.items()} == {
        "v1/rejection": ["sft"],
        "v2/ppo": ["v1/rejection", "sft"],
    }
    whole = evaluation["breakdown"]
    for label, groups in apart["v2/ppo"]["sft"].items():
        for group, found in groups.items():
            mine, theirs = whole["v2/ppo"][label][group], whole["sft"][label][group]
            assert found["prompts"] == mine["prompts"]
            if mine["judge_score"] is not None:
                difference = mine["judge_score"] - theirs["judge_score"]
                assert found["judge_score"] == pytest.approx(difference)


def test_every_decoding_has_all_versions(evaluation: dict[str, Any], out: Path) -> None:
    assert list(evaluation["decodings"]) == [COLD]
    cold = evaluation["decodings"][COLD]
    assert cold.keys() == {"versions", "differences", "breakdown", "not_finite"}
    assert tuple(cold["versions"]) == tuple(cold["breakdown"]) == VERSIONS
    for name in VERSIONS:
        assert cold["versions"][name]["kl_to_sft"] is None, "no samples of the distribution that KL is about"
        assert cold["versions"][name]["judge_score"] is not None
        assert cold["versions"][name]["judge_score"] != evaluation["versions"][name]["judge_score"]
    stored = out / "decodings" / "temperature-0.1-top-p-0.9" / "v2/ppo"
    assert answers_in(stored) != answers_in(out / "versions" / "v2/ppo")
    assert len(answers_in(stored)) == 120


def test_more_answers_per_prompt_keep_the_first_ones(
    inputs: dict[str, Path], evaluation: dict[str, Any], out: Path, tmp_path: Path
) -> None:
    few = {name: inputs[name] for name in ("data", "sft")}
    one = run(full_settings(num_generations=1, decodings=[{}], retention=None), few, tmp_path)
    assert answers_in(tmp_path / "versions/sft") == answers_in(out / "versions/sft")[::2]
    assert one["decodings"] == {}
    shown = [
        [(sample["prompt"], sample["answers"]["sft"]) for sample in found["samples"]]
        for found in (one, evaluation)
    ]
    assert shown[0] == shown[1]
    assert {sample["context"] for sample in one["samples"]} >= {"plain", "multi_turn"}
    texts = {sample["context"]: sample["prompt"] for sample in one["samples"]}
    assert texts["multi_turn"].startswith("user: hello !\nassistant: hello ,")


def test_false_refusals_are_counted_by_prompt(inputs: dict[str, Path], tmp_path: Path) -> None:
    few = {name: inputs[name] for name in ("data", "sft")}
    run(full_settings(false_refusal_prompts=3, decodings=[{}], retention=None), few, tmp_path)
    column = json.loads((tmp_path / "versions/sft/values.json").read_text())["false_refusal_rate"]
    assert [place for place, value in enumerate(column) if value is not None] == [*range(6)]


def test_ablations_are_compared_with_sft_only(evaluation: dict[str, Any], out: Path) -> None:
    assert tuple(evaluation["versions"]) == VERSIONS
    assert list(evaluation["ablations"]) == list(evaluation["ablation_breakdown"]) == ["sft_ungated"]
    ablation, apart = (
        evaluation["ablations"]["sft_ungated"],
        evaluation["ablation_differences"]["sft_ungated"],
    )
    for name in ("judge_score", "answer_tokens", "kl_to_sft"):
        expected = ablation[name] - evaluation["versions"]["sft"][name]
        assert apart[name] == pytest.approx(expected)
        assert apart[f"{name}_se"] > 0
    assert apart.keys() == {key for name in DIFFERENCES for key in (name, f"{name}_se")}
    assert not (out / "decodings" / "temperature-0.1-top-p-0.9" / "sft_ungated").exists()


def test_scores_have_distributions_and_a_shift(evaluation: dict[str, Any], out: Path) -> None:
    for name in VERSIONS:
        safety = evaluation["distributions"][name]["safety_score"]
        assert safety["mean"] == pytest.approx(evaluation["versions"][name]["safety_score"])
        assert len(safety["quantiles"]) == 21
        assert safety["quantiles"] == sorted(safety["quantiles"])
        assert safety["quantiles"][0] <= safety["left_tail"] < safety["mean"]
        assert evaluation["distributions"][name]["helpfulness_score"] is None
    shift = evaluation["score_shift"]
    assert (shift["before"], shift["after"], shift["helpfulness"]) == ("sft", "v2/ppo", None)
    assert len(shift["safety"]) == 40
    before = statistics.fmean(x for x, _ in shift["safety"])
    assert before == pytest.approx(evaluation["versions"]["sft"]["safety_score"], abs=1e-3)


def test_the_classifier_is_compared_with_phrases_and_the_ground_truth(evaluation: dict[str, Any]) -> None:
    for name in VERSIONS:
        assert all(evaluation["versions"][name][measure] is not None for measure in CLASSIFIER_MEASURES)
        found = evaluation["refusal_agreement"][name]
        assert found["gold"]["answers"] == found["phrases"]["answers"] == 120
        rates = [evaluation["versions"][name][measure] for measure in CLASSIFIER_MEASURES]
        assert found["gold"]["agreement"] == pytest.approx(1 - statistics.fmean(rates)), "gold finds none"
    assert all(0 < evaluation["versions"][name]["classifier_refusal_rate"] < 1 for name in VERSIONS)
    shares = [evaluation["refusal_agreement"][name]["gold"] for name in VERSIONS]
    independent = [(found["agreement"] * (1 - found["agreement"]) / 119) ** 0.5 for found in shares]
    assert [found["agreement_se"] for found in shares] != pytest.approx(independent), "clustered by prompt"


def test_every_version_follows_instructions_or_not(evaluation: dict[str, Any], out: Path) -> None:
    retention, apart = evaluation["version_retention"], evaluation["version_retention_differences"]
    assert tuple(retention) == VERSIONS
    assert tuple(apart) == VERSIONS[1:]
    series = evaluation["gatt_retention"]["with"]
    for turn in ("1", "2", "4", "6", "10"):
        assert retention["sft"][turn] == series[turn]
        assert retention["v2/ppo"][turn] is not None
        assert apart["v2/ppo"][turn] == pytest.approx(retention["v2/ppo"][turn] - retention["sft"][turn])
    assert retention["sft"]["20"] is None
    assert retention["sft"]["1-10"] is not None
    assert not (out / "version_retention" / "sft").exists()
    assert (out / "version_retention" / "v2/ppo" / "dialogues.jsonl").is_file()


def test_dialogues_of_sft_are_those_that_other_settings_would_sample(
    inputs: dict[str, Path], evaluation: dict[str, Any], tmp_path: Path
) -> None:
    """With fewer turns of Ghost Attention than of the versions, `sft` is sampled once more."""
    retention = {"trained": "test/gatt.jsonl", "dialogues": 3, "turns": 4, "version_turns": 10}
    few = {name: inputs[name] for name in ("data", "sft")}
    found = run(settings(retention=retention), few, tmp_path)
    assert found["version_retention"]["sft"] == evaluation["version_retention"]["sft"]
    assert found["version_retention_differences"] == {}
    assert (tmp_path / "version_retention" / "sft").is_dir()


def test_versions_need_not_be_asked_to_follow_instructions(inputs: dict[str, Path], tmp_path: Path) -> None:
    retention = {"trained": "test/gatt.jsonl", "dialogues": 3, "versions": False}
    found = run(settings(retention=retention), inputs, tmp_path)
    assert found["version_retention"] == found["version_retention_differences"] == {}
    assert found["gatt_retention"]["with"]["1"] is not None
    assert not (tmp_path / "version_retention").exists()


def test_a_resumed_run_repeats_nothing_and_loads_no_model(
    everything: dict[str, Path], evaluation: dict[str, Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load(folder: Path, dtype: str) -> Any:
        loaded.append(folder.name)
        return load_causal_lm(folder, dtype)

    monkeypatch.setattr(responder, "load_causal_lm", load)
    monkeypatch.setattr(stage, "load_refusal_classifier", lambda folder: is_odd)
    monkeypatch.setattr(Responder, "answer", None)
    monkeypatch.setattr(Responder, "answer_dialogues", None)
    assert run(full_settings(), everything, out) == evaluation
    assert not loaded


def test_each_model_is_loaded_once(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load(folder: Path, dtype: str) -> Any:
        loaded.append(folder.name)
        return load_causal_lm(folder, dtype)

    monkeypatch.setattr(responder, "load_causal_lm", load)
    run(full_settings(num_generations=1), with_everything(inputs), tmp_path)
    start_of_ppo = "rejection"
    assert loaded == ["sft", "rejection", "ppo", start_of_ppo, "sft_ungated", "sft_without_gatt"]


def test_names_of_ablations_are_folders(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"input ablations: '\.\./x' can't name a folder"):
        run(settings(), inputs | {"ablations.../x": inputs["sft"]}, tmp_path)
