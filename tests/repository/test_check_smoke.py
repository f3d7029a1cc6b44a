"""The check of the smoke run's report: every missing figure and every loss that did not fall is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..helpers.repository import REPOSITORY

SCRIPT = REPOSITORY / ".ci" / "check_smoke.py"
RATINGS = dict.fromkeys(("significantly_better", "better", "slightly_better", "negligibly_better"), 0.8)
VERSION = dict.fromkeys(
    (
        "invalid_rate",
        "refusal_rate",
        "false_refusal_rate",
        "false_refusal_borderline",
        "kl_to_sft",
        "helpfulness_score",
        "safety_score",
        "judge_score",
        "answer_tokens",
        "truncated_rate",
        "classifier_refusal_rate",
        "classifier_false_refusal_rate",
        "classifier_refusal_borderline",
    ),
    0.1,
)
STAGES = "pretrain sft_first safety_first sft helpfulness safety judge v1/rejection".split()
CONTEXTS = ("plain", "instruction", "multi_turn", "instruction_multi_turn")
IN_CONTEXT = {"violation_rate": 0.2, "false_refusal_rate": 0.0, "gold_helpfulness": 0.4}


def good() -> dict[str, Any]:
    first = {**VERSION, "gold_helpfulness": 0.4, "violation_rate": 0.5}
    last = {**VERSION, "gold_helpfulness": 0.6, "violation_rate": 0.05}
    report: dict[str, Any] = {
        "wall_seconds": {"world": 2.5},
        "pretrain": {"validation_bits_per_byte": 0.2, "unigram_bits_per_byte": 1.7},
        "demonstrations": {"gold_helpfulness": 0.5},
        "reward": {
            kind: {"accuracy": 0.8, "by_rating": RATINGS} for kind in ("helpfulness", "safety", "judge")
        },
        "distillation": {
            "distillation": {"kept_share": 0.5, "score_differences": {"gated": {"difference": 0.2}}}
        },
        "refusal_classifier": {"refusal_classifier": {"held_out": {"classifier": {"accuracy": 0.99}}}},
        "rejection": {"v1/rejection": {"selected": 300}},
        "curves": {stage: {"loss": [3.0, 2.0, 1.0]} for stage in STAGES},
        "ppo": {"v2/ppo": {"score": [0.1, 0.2]}},
        "versions": {"sft": first, "v1/rejection": first, "v2/ppo": last},
        "breakdown": {
            version: {"context": dict.fromkeys(CONTEXTS, IN_CONTEXT)}
            for version in ("sft", "v1/rejection", "v2/ppo")
        },
        "version_retention": {version: {"1-10": 0.5} for version in ("sft", "v1/rejection", "v2/ppo")},
        "red_team": {
            "red_team": {
                "versions": {
                    version: {"overall": {"violation_rate": 0.2}}
                    for version in ("sft", "v1/rejection", "v2/ppo")
                }
            }
        },
        "gatt_retention": {"with": {str(turn): 0.5 for turn in (1, 2, 4, 6, 10, 20)}},
        "comparisons": {"v2/ppo": {"sft": {"kinds": {"ordinary": {"raters": {"gold": {"net": 0.1}}}}}}},
        "contamination": {
            "contamination": {"benchmarks": {"ordinary": {"spans": {"10": {"contaminated": 0.7}}}}}
        },
    }
    copied: dict[str, Any] = json.loads(json.dumps(report))
    return copied


def check(tmp_path: Path, report: object) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True, check=False
    )


def test_a_whole_report_passes(tmp_path: Path) -> None:
    result = check(tmp_path, good())
    assert result.returncode == 0
    assert "stages took 0.0 min" in result.stdout


def test_an_easy_first_step_is_no_fault(tmp_path: Path) -> None:
    report = good()
    report["curves"]["judge"]["loss"] = [0.6, 1.0, 0.9, 0.7, 0.7]
    assert check(tmp_path, report).returncode == 0


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        (("pretrain", "validation_bits_per_byte"), None, "pretrain > validation_bits_per_byte: expected a"),
        (("reward", "safety"), {}, "reward > safety > accuracy: expected a number, found None"),
        (("versions", "v1/rejection"), None, "versions > v1/rejection > kl_to_sft: expected a number"),
        (("versions", "sft", "violation_rate"), None, "versions > sft > violation_rate: expected a number"),
        (("contamination",), {}, "contamination > contamination > benchmarks > ordinary > spans > 10 > con"),
        (("comparisons", "v2/ppo", "sft"), {}, "comparisons > v2/ppo > sft > kinds > ordinary > raters > g"),
        (("gatt_retention", "with", "20"), None, "gatt_retention > with > 20: expected a number"),
        (("curves", "sft", "loss"), [1.0, 1.1], "curves > sft > loss: 1.000 at the start, 1.100 at the end"),
        (("curves", "v1/rejection", "loss"), [1.0, None], "curves > v1/rejection > loss: expected at least"),
        (("curves", "safety"), None, "curves > safety > loss: expected at least two numbers"),
        (("ppo", "v2/ppo", "score"), [], "ppo > v2/ppo > score: expected a number for each iteration"),
        (("versions", "v2/ppo", "violation_rate"), 0.5, "violation_rate is 0.500 for sft and 0.500 for v2"),
        (("versions", "v2/ppo", "gold_helpfulness"), 0.39, "gold_helpfulness is 0.400 for sft and 0.390"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, key: tuple[str, ...], value: object, fault: str) -> None:
    report = good()
    section = report
    for part in key[:-1]:
        section = section[part]
    section[key[-1]] = value
    result = check(tmp_path, report)
    assert result.returncode == 1
    assert fault in result.stdout


def test_an_empty_report_and_a_missing_file(tmp_path: Path) -> None:
    assert check(tmp_path, {}).returncode == 1
    missing = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path / "none.json")], check=False)
    assert missing.returncode == 2
