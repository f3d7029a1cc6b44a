"""Collects the manifests and metrics of a run into `report.json`; `docs/report.md` lists its keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.rows import CONTEXTS, RATINGS
from ..errors import DataError
from ..measures import REWARD_MODELS, empty_evaluation, empty_version, with_errors
from .artifacts import Artifact

BY_LENGTH = ("longer_chosen", "shorter_chosen")
BY_GROUP = ("by_context", "by_category")
"""Accuracy of a reward model by group of prompts: only groups that were measured are keys."""
TRAINED_STAGES = ("pretrain", "sft", "reward", "rejection")
STAGES_WITH_KEYS = ("distillation", "red_team", "refusal_classifier", "benchmark", "contamination")
"""Kinds of stages with a key of their own, which has all metrics of each stage."""
REJECTION_MEASURES = (
    "prompts",
    "samples",
    "selected",
    "without_answer",
    "all_unsafe",
    "finished_share",
    "mean_score",
    "best_score",
    "judge_score",
    "selected_judge_score",
)
TRAIN_LOSS = "train/loss"
GENERAL = "general"
"""Kind of reward model that is stored under the name of its stage: an independent judge."""
PPO_SERIES = {
    "iteration": "step",
    "score": "ppo/reward",
    "helpfulness_score": "ppo/helpfulness_score",
    "safety_score": "ppo/safety_score",
    "kl": "ppo/kl",
    "entropy": "ppo/entropy",
    "answer_length": "ppo/answer_length",
    "judge_score": "ppo/judge_score",
    **{f"held_out_score{end}": f"eval/reward{end}" for end in ("", "_difference", "_difference_se")},
    **{
        name: f"ppo/{name}"
        for name in (
            "safety_branch_share",
            "reward_safety_branch",
            "reward_helpfulness_branch",
            "advantage_std",
            "sampler_deviation_p95",
            "sampler_clip_fraction",
        )
    },
    **{f"adversarial_safety_score_{name}": f"ppo/adversarial_safety_score_{name}" for name in CONTEXTS},
}
"""Key in `report.json` -> key of the rows that PPO logs to `metrics.jsonl`."""
CURVE_POINTS = 300
"""Maximum number of points of a loss curve in `report.json`; `metrics.jsonl` has all logged points."""


def empty_report() -> dict[str, Any]:
    """Returns `report.json` before anything is measured: no stages, no versions, null for every figure."""
    return {
        "run": {"name": None, "stages": [], "metrics_only": []},
        "wall_seconds": {},
        "pretrain": {"validation_bits_per_byte": None, "unigram_bits_per_byte": None},
        "reward": {name: _empty_reward() for name in REWARD_MODELS},
        **empty_evaluation(),
        "curves": {},
        "rejection": {},
        "ppo": {},
        **{stage: {} for stage in STAGES_WITH_KEYS},
        "settings": {},
        "metrics": {},
        "packages": {},
    }


def collect(name: str, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Returns the report on the artifacts of the run `name`; metrics that no artifact contains are null.

    Where the report has one place for a kind of stage, the stage named like its kind fills it, or else the
    oldest one: others of that kind are ablations.

    Raises:
        DataError: a reward model's manifest has no valid `settings.kind`.
    """
    report = empty_report()
    report["run"]["name"] = name
    for artifact in artifacts:
        manifest = artifact.manifest
        origin = {key: manifest.get(key) for key in ("stage", "created", "git_commit", "fingerprint")}
        report["run"]["stages"].append({"name": artifact.name, **origin})
        report["wall_seconds"][artifact.name] = manifest["wall_seconds"]
        report["settings"][artifact.name] = manifest["settings"]
        if artifact.stage in TRAINED_STAGES:
            report["curves"][artifact.name] = _curve(artifact)
    collected = set()
    for artifact in sorted(
        artifacts, key=lambda artifact: artifact.name not in (artifact.stage, *REWARD_MODELS)
    ):
        if artifact.stage in _REPEATABLE:
            _REPEATABLE[artifact.stage](report, artifact)
        elif artifact.stage in collected:
            report["run"]["metrics_only"].append(artifact.name)
        elif artifact.stage in _SINGLE:
            collected.add(artifact.stage)
            _SINGLE[artifact.stage](report, artifact)
    report["packages"] = _packages(artifacts)
    for artifact in artifacts:
        in_own_keys = artifact.stage in STAGES_WITH_KEYS or (
            artifact.stage == "evaluate" and artifact.name not in report["run"]["metrics_only"]
        )
        if not in_own_keys:
            report["metrics"][artifact.name] = artifact.metrics
    return report


def _packages(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Returns the version of each library, or all of them, oldest first, if stages used different ones."""
    used: dict[str, dict[str, None]] = {}
    for artifact in artifacts:
        for package, version in (artifact.manifest.get("versions") or {}).items():
            used.setdefault(package, {})[version] = None
    return {package: ", ".join(versions) for package, versions in used.items()}


def _pretrain(report: dict[str, Any], artifact: Artifact) -> None:
    _fill(report["pretrain"], artifact.metrics)


def _reward(report: dict[str, Any], artifact: Artifact) -> None:
    """Stores the figures under the model's kind, or under its own name in a round or if the kind is taken."""
    errors = artifact.metrics.get("by_rating_se") or {}
    by_rating = {
        **(artifact.metrics.get("by_rating") or {}),
        **{f"{rating}_se": error for rating, error in errors.items()},
    }
    by_length: dict[str, float | None] = {}
    for name, part in (artifact.metrics.get("by_length") or {}).items():
        by_length |= {name: part["accuracy"], f"{name}_se": part["accuracy_se"]}
    kinds = (*REWARD_MODELS, GENERAL)
    kind = artifact.manifest["settings"].get("kind")
    if kind not in kinds:
        raise DataError(
            f"manifest of {artifact.name}: settings.kind is {kind!r}; expected {' or '.join(kinds)}"
        )
    has_place = kind != GENERAL and "/" not in artifact.name
    name = kind if has_place and report["reward"][kind]["pairs"] is None else artifact.name
    model = report["reward"][name] = _empty_reward()
    _fill(model, {**artifact.metrics, "by_rating": by_rating, "by_length": by_length})
    model |= {key: artifact.metrics.get(key) or {} for key in BY_GROUP}


def _stage_with_key(report: dict[str, Any], artifact: Artifact) -> None:
    report[artifact.stage][artifact.name] = artifact.metrics


def _rejection(report: dict[str, Any], artifact: Artifact) -> None:
    report["rejection"][artifact.name] = {key: artifact.metrics.get(key) for key in REJECTION_MEASURES}


def _ppo(report: dict[str, Any], artifact: Artifact) -> None:
    rows = [row for row in artifact.rows if PPO_SERIES["kl"] in row]
    report["ppo"][artifact.name] = {
        key: [row.get(logged) for row in rows] for key, logged in PPO_SERIES.items()
    }


def _evaluation(report: dict[str, Any], artifact: Artifact) -> None:
    for key in empty_evaluation():
        if isinstance(report[key], dict):
            _merge(report[key], artifact.metrics.get(key) or {})
        else:
            report[key] = artifact.metrics.get(key) or report[key]
    report["versions"] = {name: empty_version() | measured for name, measured in report["versions"].items()}


# kinds whose stages each have an entry in the report, and kinds that have one place in it
_REPEATABLE = {
    "reward": _reward,
    "rejection": _rejection,
    "ppo": _ppo,
    **dict.fromkeys(STAGES_WITH_KEYS, _stage_with_key),
}
_SINGLE = {"pretrain": _pretrain, "evaluate": _evaluation}


def _empty_reward() -> dict[str, Any]:
    return {
        **with_errors(("accuracy",)),
        "by_rating": with_errors(RATINGS),
        "by_length": with_errors(BY_LENGTH),
        **{key: {} for key in BY_GROUP},
        "evasions": None,
        "mean_score": None,
        "pairs": None,
        "prompts": None,
    }


def _fill(empty: dict[str, Any], metrics: Mapping[str, Any]) -> None:
    """Copies the metrics whose keys are in `empty` into it, recursively."""
    for key, value in empty.items():
        if isinstance(value, dict):
            _fill(value, metrics.get(key) or {})
        else:
            empty[key] = metrics.get(key)


def _merge(target: dict[str, Any], update: Mapping[str, Any]) -> None:
    """Updates `target` recursively; keys that are missing in `update` keep their values."""
    for key, value in update.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _curve(artifact: Artifact) -> dict[str, Any]:
    """Returns the training loss by optimizer step, thinned to `CURVE_POINTS` points with the last one kept.

    A loss that was NaN or infinite is null in `metrics.jsonl`: it is counted and gives no point.
    """
    losses = [(row["step"], row[TRAIN_LOSS]) for row in artifact.rows if TRAIN_LOSS in row and "step" in row]
    points = [(step, loss) for step, loss in losses if loss is not None]
    interval = -(-len(points) // CURVE_POINTS) or 1
    kept = points[::-1][::interval][::-1]
    return {
        "stage": artifact.stage,
        "step": [step for step, _ in kept],
        "loss": [loss for _, loss in kept],
        "not_finite": len(losses) - len(points),
    }
