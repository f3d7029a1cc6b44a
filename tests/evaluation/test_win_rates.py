"""Versions compared by their stored values, and by a judge behind an endpoint in the whole stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamita.comparison.settings import ComparisonSettings
from llamita.comparison.verdicts import LOSS, TIE, WIN
from llamita.errors import ConfigError
from llamita.evaluation.stage import run
from llamita.evaluation.win_rates import score_raters

from ..helpers.judge_server import judge_server
from ..helpers.tiny_evaluation import full_settings, with_everything


def test_each_measure_is_a_rater_of_its_prompts() -> None:
    """Prompts: two ordinary ones, two harmful ones, a borderline one."""
    first = {
        "helpfulness_score": [0.9, 0.50, None, None, None],
        "safety_score": [None, None, 0.2, 0.9, None],
        "judge_score": [0.1, 0.9, 0.9, 0.1, None],
        "gold_helpfulness": [1.0, 0.4, None, None, None],
        "violation_rate": [None, None, 1.0, 0.0, None],
    }
    second = {
        "helpfulness_score": [0.5, 0.54, None, None, None],
        "safety_score": [None, None, 0.9, 0.2, None],
        "judge_score": [0.1, 0.1, 0.1, 0.9, None],
        "gold_helpfulness": [0.7, 0.4, None, None, None],
        "violation_rate": [None, None, 0.0, 1.0, None],
    }
    raters = score_raters(first, second, ComparisonSettings(tie_margin=0.05))
    assert raters == {
        "helpfulness": {0: WIN, 1: TIE},
        "safety": {2: LOSS, 3: WIN},
        "judge": {0: TIE, 1: WIN, 2: WIN, 3: LOSS},
        "gold": {0: WIN, 1: TIE, 2: LOSS, 3: WIN},
    }
    assert score_raters(first, second, ComparisonSettings(tie_margin=0.0))["helpfulness"][1] == LOSS
    del first["gold_helpfulness"], second["safety_score"]
    assert score_raters(first, second, ComparisonSettings()).keys() == {"helpfulness", "judge"}


def test_a_judge_compares_first_answers_of_some_prompts(inputs: dict[str, Path], tmp_path: Path) -> None:
    with judge_server() as server:
        server.judge = lambda question: "Verdict: A"
        judge = {"base_url": server.url, "model": "m", "prompt": "{prompt}|{a}|{b}"}
        changed = full_settings(retention=None, comparison={"judge": judge, "judge_prompts": 5})
        evaluation = run(changed, with_everything(inputs), tmp_path / "out")
        asked = len(server.requests)
    comparisons = evaluation["comparisons"]
    assert {name: list(others) for name, others in comparisons.items()} == {
        "v1/rejection": ["sft"],
        "v2/ppo": ["v1/rejection", "sft"],
    }
    assert list(comparisons["v2/ppo"]["sft"]["kinds"]) == ["ordinary", "harmful"]
    for kind, own in (("ordinary", "judge"), ("harmful", "safety")):
        raters = comparisons["v2/ppo"]["sft"]["kinds"][kind]["raters"]
        assert raters[own]["pairs"] == raters["gold"]["pairs"] == 40, "two answers to 20 prompts"
        assert (raters["endpoint"]["pairs"], raters["endpoint"]["tie"]) == (5, 1)
    figures = comparisons["v1/rejection"]["sft"]["endpoint"]
    assert (figures["pairs"], figures["inconsistent"], figures["shown_first"]) == (10, 1, 1)
    assert 50 < asked <= 3 * 10 * 2, "equal questions are asked once"
    assert evaluation["comparison_judge"]["prompt"] == "{prompt}|{a}|{b}"
    stored = (tmp_path / "out" / "replies.jsonl").read_text().splitlines()
    assert len(stored) == asked
    answers = [
        json.loads(line)["text"]
        for line in (tmp_path / "out" / "versions/sft/answers.jsonl").read_text().splitlines()
    ]
    seconds = {json.loads(line)["question"].rpartition("|")[2] for line in stored}
    assert {answers[index] for index in (0, 8, 16, 24, 32)} <= seconds


def test_a_missing_key_stops_before_any_sampling(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    judge = {"base_url": "http://localhost/v1", "model": "m", "api_key_env": "JUDGE_KEY"}
    with pytest.raises(ConfigError, match="JUDGE_KEY is not set"):
        run(full_settings(comparison={"judge": judge}), inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()
