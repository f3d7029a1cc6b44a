"""Handmade figures of the safety evaluation, as the stages write them, without models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .finished_run import EXAMPLE_VERSIONS, example_evaluation, write_example, write_stage

GROUPS = {
    "context": {"plain": 0.6, "instruction": 1.2, "multi_turn": 1.0, "instruction_multi_turn": 1.2},
    "turn": {"1": 0.8, "2": 0.9, "3": 1.0, "4": 1.1, "5": 1.2, "6": 1.3},
    "category": {"illicit": 0.9, "hateful": 0.8, "unqualified": 1.3},
    "attack": {"none": 0.7, "psychological": 0.9, "logic": 1.0, "perspective": 1.4, "non_english": 1.6},
    "language": {"english": 0.9, "spanish": 1.3, "french": 1.2},
}
"""Dimension -> group -> violations of the group relative to all."""
TURNS = ("1", "2", "4", "6", "10", "20")
LABELLED = ("category", "attack")  # harmful prompts only
SECOND = "temperature 0.1, top-p 0.9"


def safety_evaluation(
    versions: dict[str, tuple[float | None, ...]] = EXAMPLE_VERSIONS,
) -> dict[str, Any]:
    """Returns the metrics of `evaluate` with everything that it measures of safety."""
    found = example_evaluation(versions)
    for place, figures in enumerate(found["versions"].values()):
        figures |= _measured("refusal_rate", 1 - figures["violation_rate"] - figures["invalid_rate"])
        figures |= _measured("judge_score", 0.4 + 0.1 * place)
        figures |= _measured("classifier_refusal_rate", figures["refusal_rate"] - 0.02)
        figures |= _measured("classifier_false_refusal_rate", figures["false_refusal_rate"] + 0.004)
        figures |= _measured("classifier_refusal_borderline", figures["false_refusal_borderline"] + 0.02)
    for name, others in found["differences"].items():
        for other, figures in others.items():
            ours, theirs = found["versions"][name], found["versions"][other]
            figures |= _measured("judge_score", ours["judge_score"] - theirs["judge_score"], 0.005)
    names = list(found["versions"])
    breakdown = {name: _groups(figures) for name, figures in found["versions"].items()}
    cold = {name: _colder(figures) for name, figures in found["versions"].items()}
    return found | {
        "breakdown": breakdown,
        "breakdown_differences": {
            name: {other: _apart(breakdown[name], breakdown[other]) for other in dict.fromkeys(others)}
            for name, others in zip(names[1:], ((before, names[0]) for before in names), strict=False)
        },
        "decodings": {
            SECOND: {
                "versions": cold,
                "differences": {},
                "breakdown": {name: _groups(figures) for name, figures in cold.items()},
            }
        },
        "distributions": {name: _distributions(figures) for name, figures in found["versions"].items()},
        "score_shift": {
            "before": names[0],
            "after": names[-1],
            "helpfulness": [[x / 60, min(1.0, x / 60 + 0.2)] for x in range(60)],
            "safety": [[x / 60, 1 - 0.3 * (1 - x / 60) ** 2] for x in range(60)],
        },
        "version_retention": {name: _retention(place) for place, name in enumerate(names)},
        "version_retention_differences": {
            name: {
                key: value if key.endswith("_se") else value - _retention(0)[key]
                for key, value in _retention(place).items()
            }
            for place, name in enumerate(names)
            if place
        },
        "ablations": {"sft_ungated": found["versions"][names[0]] | _measured("gold_helpfulness", 0.35)},
        "ablation_differences": {
            "sft_ungated": _measured("gold_helpfulness", -0.02, 0.006)
            | _measured("violation_rate", 0.011, 0.009)
            | _measured("false_refusal_rate", 0.013, 0.004)
        },
        "ablation_breakdown": {"sft_ungated": _groups(found["versions"][names[0]])},
        "refusal_agreement": {
            name: {
                "phrases": {"agreement": 0.93, "kappa": 0.81, "answers": 1500},
                "gold": {"agreement": 0.985, "kappa": 0.95, "answers": 1500},
            }
            for name in names
        },
    }


def _measured(name: str, value: float, error: float = 0.01) -> dict[str, float]:
    return {name: value, f"{name}_se": error}


def _groups(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        dimension: {
            group: {"prompts": 240} | _of_group(figures, factor, dimension)
            for group, factor in factors.items()
        }
        for dimension, factors in GROUPS.items()
    }


def _of_group(figures: dict[str, Any], factor: float, dimension: str) -> dict[str, Any]:
    harmful = _measured("violation_rate", min(1.0, figures["violation_rate"] * factor), 0.02)
    harmful |= _measured("refusal_rate", 1 - harmful["violation_rate"], 0.02)
    others = ("gold_helpfulness", "false_refusal_rate", "false_refusal_borderline")
    if dimension in LABELLED:
        return harmful | {name: None for other in others for name in (other, f"{other}_se")}
    helpful = _measured("gold_helpfulness", figures["gold_helpfulness"] / max(factor, 1.0), 0.02)
    refusals = {name: value for other in others[1:] for name, value in _scaled(figures, other, factor)}
    return harmful | helpful | refusals


def _scaled(figures: dict[str, Any], name: str, factor: float) -> list[tuple[str, float]]:
    return [(name, figures[name] * factor), (f"{name}_se", 0.004)]


def _colder(figures: dict[str, Any]) -> dict[str, Any]:
    rates = ("violation_rate", "invalid_rate", "false_refusal_rate", "false_refusal_borderline")
    colder = {name: figures[name] * 0.7 for name in rates}
    return figures | colder | {"gold_helpfulness": min(1.0, figures["gold_helpfulness"] * 1.15)}


def _apart(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    return {
        dimension: {
            group: {
                name: value
                if name.endswith("_se") or value is None
                else value - theirs[dimension][group][name]
                for name, value in figures.items()
            }
            for group, figures in groups.items()
        }
        for dimension, groups in ours.items()
    }


def _distributions(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        measure: {
            "mean": figures[measure],
            "mean_se": 0.01,
            "left_tail": figures[measure] ** 3,
            "left_tail_se": 0.02,
            "quantiles": [figures[measure] * (place / 20) ** 0.5 for place in range(21)],
        }
        for measure in ("helpfulness_score", "safety_score")
    }


def _retention(place: int) -> dict[str, float]:
    shares = {turn: 1 - 0.006 * (1 + place) * at**1.5 for at, turn in enumerate((*TURNS, "1-10"))}
    return shares | {f"{turn}_se": 0.012 for turn in shares}


def write_safety_run(run: Path) -> Path:
    """Writes the example run with the safety evaluation and the stages of section 4; returns its folder."""
    write_example(run, without=("evaluate",))
    for name in ("helpfulness", "safety"):
        path = run / name / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["metrics"] |= _reward_groups(0.02 if name == "safety" else 0.0)
        path.write_text(json.dumps(manifest))
    path = run / "v2" / "ppo" / "metrics.jsonl"
    rows = [json.loads(line) | _by_context(place) for place, line in enumerate(path.read_text().splitlines())]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for number, (name, (metrics, settings)) in enumerate(
        {
            "judge": (_judge(), {"kind": "general"}),
            "distillation": (distillation_metrics(), {}),
            "refusal_classifier": (_classifier(), {}),
            "evaluate": (safety_evaluation(), {}),
            "red_team": (red_team_metrics(), {}),
        }.items(),
        start=20,
    ):
        write_stage(run, name, metrics, seconds=30.0, number=number, **settings)
    return run


def _by_context(iteration: int) -> dict[str, float]:
    """Returns what PPO logs about contexts and the third model; one iteration has no prompts in context."""
    scores = {"ppo/judge_score": 0.5 + 0.004 * iteration}
    if iteration != 5:
        for name, factor in GROUPS["context"].items():
            scores[f"ppo/adversarial_safety_score_{name}"] = 1 - 0.5 * factor / (1 + 0.2 * iteration)
    return scores


def _reward_groups(more: float) -> dict[str, Any]:
    def accuracy(value: float) -> dict[str, Any]:
        return {"pairs": 200, "accuracy": value + more, "accuracy_se": 0.03}

    contexts = {name: accuracy(0.9 - 0.1 * factor) for name, factor in GROUPS["context"].items()}
    categories = {name: accuracy(0.9 - 0.1 * factor) for name, factor in GROUPS["category"].items()}
    return {"by_context": contexts, "by_category": categories, "evasions": accuracy(0.88)}


def _judge() -> dict[str, Any]:
    figures = {"accuracy": 0.79, "accuracy_se": 0.015, "mean_score": 0.1, "pairs": 700, "prompts": 350}
    return figures | _reward_groups(-0.03)


def _classifier() -> dict[str, Any]:
    rates = _measured("accuracy", 0.985, 0.004) | _measured("precision", 0.98) | _measured("recall", 0.97)
    phrases = _measured("accuracy", 0.93, 0.009) | _measured("precision", 0.99) | _measured("recall", 0.82)
    held_out = {"answers": 400, "refusals": 180, "classifier": rates, "phrases": phrases}
    return {"answers": 1600, "refusals": 700, "held_out": held_out}


def distillation_metrics() -> dict[str, Any]:
    """Returns the metrics of the stage `distillation`."""
    histograms = {
        "original": [60, 20, 10, *[4] * 14, 10, 30, 54],
        "generic": [30, 14, 10, *[4] * 14, 20, 40, 70],
        "tailored": [8, 6, 6, *[3] * 14, 20, 50, 108],
    }
    scores = {"original": 0.46, "generic": 0.6, "tailored": 0.8, "ungated": 0.79, "gated": 0.84}
    return {
        "prompts": 240,
        "kept": 170,
        **_measured("kept_share", 170 / 240, 0.03),
        "by_category": {
            name: {"prompts": 80, "kept": 56, **_measured("kept_share", share, 0.05)}
            for name, share in (("hateful", 0.65), ("illicit", 0.72), ("unqualified", 0.76))
        },
        "by_preprompt": {
            "generic": {"prompts": 20, "kept": 10, **_measured("kept_share", 0.5, 0.11)},
            "tailored": {"prompts": 220, "kept": 160, **_measured("kept_share", 160 / 220, 0.03)},
        },
        "scores": {name: {"prompts": 240, **_measured("score", value)} for name, value in scores.items()},
        "score_histograms": histograms,
        "score_changes": [
            {
                "from": place / 20,
                "to": (place + 1) / 20,
                "count": 12,
                **_measured("generic", 0.3 - 0.02 * place, 0.04),
                **(_measured("tailored", 0.7 - 0.036 * place, 0.04) if place != 7 else {"tailored": None}),
            }
            for place in range(20)
        ],
    }


def red_team_metrics() -> dict[str, Any]:
    """Returns the metrics of the stage `red_team`."""
    versions = {
        name: _attacks(rate) for name, rate in (("sft", 0.5), ("v1/rejection", 0.2), ("v2/ppo", 0.04))
    }
    return {
        "judge": "gold",
        "versions": versions,
        "mitigated": {
            "v1/rejection": {"sft": _mitigated(150, 110, 6)},
            "v2/ppo": {"sft": _mitigated(150, 141, 3), "v1/rejection": _mitigated(60, 55, 2)},
        },
    }


def _share(rate: float, answers: int) -> dict[str, Any]:
    return {
        "violation_rate": rate,
        "low": max(rate - 0.04, 0.0),
        "high": min(rate + 0.06, 1.0),
        "prompts": answers,
        "answers": answers,
    }


def _attacks(rate: float) -> dict[str, Any]:
    categories, attacks = GROUPS["category"], GROUPS["attack"] | {"multi_turn": 1.5}
    return {
        "overall": _share(rate, 300),
        "category": {name: _share(rate * factor, 100) for name, factor in categories.items()},
        "attack": {name: _share(min(rate * factor, 1.0), 50) for name, factor in attacks.items()},
        "turns": {"single": _share(rate * 0.9, 200), "multi": _share(rate * 1.2, 100)},
        "category_by_attack": {
            category: {
                attack: _share(min(rate * factor * other, 1.0), 17)
                for attack, other in attacks.items()
                if (category, attack) != ("hateful", "logic")
            }
            for category, factor in categories.items()
        },
    }


def _mitigated(violated: int, mitigated: int, new: int) -> dict[str, Any]:
    share = mitigated / violated
    return {
        "violated": violated,
        "mitigated": mitigated,
        "mitigated_share": share,
        "low": share - 0.08,
        "high": min(share + 0.05, 1.0),
        "not_violated": 300 - violated,
        "new": new,
        "new_share": new / (300 - violated),
        "new_low": 0.0,
        "new_high": 0.09,
    }
