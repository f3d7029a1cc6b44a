"""Manifests and metrics of a run -> the report's dictionary, `report.json`, explained in `docs/report.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..data.rows import RATINGS
from ..errors import DataError
from ..measures import REWARD_MODELS, empty_evaluation, empty_version, with_errors
from .artifacts import Artifact

BY_LENGTH = ("longer_chosen", "shorter_chosen")
TRAINED_STAGES = ("pretrain", "sft", "reward", "rejection")
REJECTION_MEASURES = (
    "prompts",
    "samples",
    "selected",
    "without_answer",
    "all_unsafe",
    "finished_share",
    "mean_score",
    "best_score",
)
PPO_SERIES = (
    "iteration",
    "score",
    "helpfulness_score",
    "safety_score",
    "kl",
    "entropy",
    "answer_length",
)
CURVE_POINTS = 300
"""Points kept of each loss curve; `metrics.jsonl` has them all."""


def empty_report() -> dict[str, Any]:
    """Every key of `report.json`, nothing measured: stages and versions get their places once measured."""
    return {
        "run": {"name": None, "stages": [], "metrics_only": []},
        "wall_seconds": {},
        "pretrain": {"validation_bits_per_byte": None, "unigram_bits_per_byte": None},
        "reward": {name: _empty_reward() for name in REWARD_MODELS},
        **empty_evaluation(),
        "curves": {},
        "rejection": {},
        "ppo": {},
        "settings": {},
        "metrics": {},
        "packages": {},
    }


def collect(name: str, artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """The report of these artifacts of the run `name`; what no artifact tells stays null.

    A stage that is named as its kind goes first, then the older one: others of that kind are ablations.

    Raises:
        DataError: a reward model's manifest does not say which of the two it is.
    """
    report = empty_report()
    report["run"]["name"] = name
    for artifact in artifacts:
        manifest = artifact.manifest
        noted = {key: manifest.get(key) for key in ("stage", "created", "git_commit", "fingerprint")}
        report["run"]["stages"].append({"name": artifact.name, **noted})
        report["wall_seconds"][artifact.name] = manifest["wall_seconds"]
        report["settings"][artifact.name] = manifest["settings"]
        if artifact.stage in TRAINED_STAGES:
            report["curves"][artifact.name] = _curve(artifact)
    filled = set()
    for artifact in sorted(
        artifacts, key=lambda artifact: artifact.name not in (artifact.stage, *REWARD_MODELS)
    ):
        if artifact.stage in _OF_EACH:
            _OF_EACH[artifact.stage](report, artifact)
        elif artifact.stage in filled:
            report["run"]["metrics_only"].append(artifact.name)
        elif artifact.stage in _OF_ONE:
            filled.add(artifact.stage)
            _OF_ONE[artifact.stage](report, artifact)
    report["packages"] = _packages(artifacts)
    for artifact in artifacts:
        spread = artifact.stage == "evaluate" and artifact.name not in report["run"]["metrics_only"]
        if not spread:  # over the report already
            report["metrics"][artifact.name] = artifact.metrics
    return report


def _packages(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Versions of the libraries; all of them where stages were made with different ones, the oldest first."""
    used: dict[str, dict[str, None]] = {}
    for artifact in artifacts:
        for package, version in (artifact.manifest.get("versions") or {}).items():
            used.setdefault(package, {})[version] = None
    return {package: ", ".join(versions) for package, versions in used.items()}


def _pretrain(report: dict[str, Any], artifact: Artifact) -> None:
    _fill(report["pretrain"], artifact.metrics)


def _reward(report: dict[str, Any], artifact: Artifact) -> None:
    """Under the model's kind; under its own name in a round, or where its kind has one already."""
    errors = artifact.metrics.get("by_rating_se") or {}
    by_rating = {
        **(artifact.metrics.get("by_rating") or {}),
        **{f"{rating}_se": error for rating, error in errors.items()},
    }
    by_length: dict[str, float | None] = {}
    for name, part in (artifact.metrics.get("by_length") or {}).items():
        by_length |= {name: part["accuracy"], f"{name}_se": part["accuracy_se"]}
    kind = artifact.manifest["settings"].get("kind")
    if kind not in REWARD_MODELS:
        raise DataError(
            f"manifest of {artifact.name}: settings.kind is {kind!r}; expected {' or '.join(REWARD_MODELS)}"
        )
    first = "/" not in artifact.name and report["reward"][kind]["pairs"] is None
    name = kind if first else artifact.name
    filled = report["reward"][name] = _empty_reward()
    _fill(filled, {**artifact.metrics, "by_rating": by_rating, "by_length": by_length})


def _rejection(report: dict[str, Any], artifact: Artifact) -> None:
    report["rejection"][artifact.name] = {key: artifact.metrics.get(key) for key in REJECTION_MEASURES}


def _ppo(report: dict[str, Any], artifact: Artifact) -> None:
    rows = [row for row in artifact.rows if "kl" in row]
    report["ppo"][artifact.name] = {key: [row.get(key) for row in rows] for key in PPO_SERIES}


def _evaluation(report: dict[str, Any], artifact: Artifact) -> None:
    for key in empty_evaluation():
        if isinstance(report[key], dict):
            _merge(report[key], artifact.metrics.get(key) or {})
        else:
            report[key] = artifact.metrics.get(key) or report[key]
    report["versions"] = {name: empty_version() | found for name, found in report["versions"].items()}


# kinds of which every stage has its place, and kinds that a report has one place for
_OF_EACH = {"reward": _reward, "rejection": _rejection, "ppo": _ppo}
_OF_ONE = {"pretrain": _pretrain, "evaluate": _evaluation}


def _empty_reward() -> dict[str, Any]:
    return {
        **with_errors(("accuracy",)),
        "by_rating": with_errors(RATINGS),
        "by_length": with_errors(BY_LENGTH),
        "mean_score": None,
        "pairs": None,
        "prompts": None,
    }


def _fill(empty: dict[str, Any], metrics: Mapping[str, Any]) -> None:
    """Takes over the values of the keys that `empty` has, at every depth."""
    for key, value in empty.items():
        if isinstance(value, dict):
            _fill(value, metrics.get(key) or {})
        else:
            empty[key] = metrics.get(key)


def _merge(target: dict[str, Any], found: Mapping[str, Any]) -> None:
    """Lays `found` over `target`, at every depth; keys of `target` that it lacks stay."""
    for key, value in found.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _curve(artifact: Artifact) -> dict[str, Any]:
    """Training loss by optimizer step, thinned to at most `CURVE_POINTS` points, the last one kept.

    A loss that was NaN or infinite is null in the metrics: no point, but counted.
    """
    losses = [(row["step"], row["loss"]) for row in artifact.rows if "loss" in row and "step" in row]
    points = [(step, loss) for step, loss in losses if loss is not None]
    every = -(-len(points) // CURVE_POINTS) or 1
    kept = points[::-1][::every][::-1]
    return {
        "stage": artifact.stage,
        "step": [step for step, _ in kept],
        "loss": [loss for _, loss in kept],
        "not_finite": len(losses) - len(points),
    }
