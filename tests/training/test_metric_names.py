"""docs/metrics.md lists exactly the metrics that the stages log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from llamita.jsonl import read_rows
from llamita.pretrain import stage as pretrain
from llamita.pretrain.settings import PretrainSettings
from llamita.reward import stage as reward
from llamita.reward.settings import RewardSettings
from llamita.rlhf.ppo import stage as ppo_stage
from llamita.rlhf.rejection import stage as rejection_stage
from llamita.sft import stage as sft
from llamita.sft.settings import SftSettings
from llamita.training import monitoring

from ..helpers.material import HELPFULNESS, PRETRAIN, SFT, write_data
from ..helpers.repository import REPOSITORY
from ..helpers.rlhf import inputs_of, make_inputs, ppo, rejection
from ..helpers.rows import turn, write
from ..helpers.tiny import save_tiny_model

pytestmark = pytest.mark.usefixtures("without_wandb")

HELD_OUT: dict[str, Any] = {"held_out": 2, "eval_iterations": 1, "episodes": 16}
PREFIXES = {"train", "eval", "ppo", "sampling", "time"}
ROW = re.compile(r"\| `(?P<name>\S+)` \|[^|]*\| (?P<stages>[^|]+) \| (?P<meaning>[^|]+) \|[^|]*\|")


def documented() -> dict[str, set[str]]:
    """Stage -> metrics that the page lists for it, except those that only a GPU has."""
    page = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    names: dict[str, set[str]] = {}
    for row in map(ROW.fullmatch, page.splitlines()):
        if row is not None and "(GPU only)" not in row["meaning"]:
            for stage in row["stages"].split(", "):
                names.setdefault(stage, set()).add(row["name"])
    return names


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    root = tmp_path_factory.mktemp("metric_names")
    tokenizer.save_pretrained(str(root / "tokenizer"))
    save_tiny_model(root / "base" / "model", tokenizer)
    write_data(root / "data")
    return root


@pytest.fixture(scope="module")
def rlhf_inputs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("rlhf"), tokenizer)


def logged(out: Path) -> set[str]:
    return {name for row in read_rows(out / "metrics.jsonl") for name in row} - {"step"}


def short(settings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    trainer = settings["trainer"] | {"max_steps": 2, "logging_steps": 1}
    return settings | changes | {"trainer": trainer}


def test_every_metric_has_a_known_prefix() -> None:
    names = set().union(*documented().values())
    assert {name.partition("/")[0] for name in names} == PREFIXES


@pytest.mark.parametrize(
    ("name", "stage", "settings"),
    [
        ("pretrain", pretrain, PretrainSettings.model_validate(short(PRETRAIN, eval_steps=1))),
        ("sft", sft, SftSettings.model_validate(short(SFT))),
        ("reward", reward, RewardSettings.model_validate(short(HELPFULNESS))),
    ],
    ids=["pretrain", "sft", "reward"],
)
def test_the_page_lists_what_a_stage_logs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stage: Any, settings: Any
) -> None:
    monkeypatch.setattr(monitoring, "peak_flops", lambda: 1e12)  # of a GPU that is known
    folders = {"tokenizer": root / "tokenizer", "model": root / "base", "data": root / "data"}
    required = {"pretrain": ("tokenizer", "data")}.get(name, ("model", "data"))
    stage.run(settings, {kind: folders[kind] for kind in required}, tmp_path)
    assert logged(tmp_path) == documented()[name]


@pytest.mark.parametrize(
    ("name", "stage", "settings"),
    [
        ("rejection", rejection_stage, rejection()),
        ("ppo", ppo_stage, ppo(prompts=[{"path": "contexts.jsonl", "format": "prompts"}], **HELD_OUT)),
    ],
    ids=["rejection", "ppo"],
)
def test_the_page_lists_what_a_stage_of_rlhf_logs(
    rlhf_inputs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    stage: Any,
    settings: Any,
) -> None:
    monkeypatch.setattr(monitoring, "peak_flops", lambda: 1e12)
    system = [{"role": "system", "content": "fine"}]
    rows = []
    for color, is_safety in (("red", True), ("blue", True), ("green", False), ("brown", False)):
        plain = turn(f"is it {color} ?")
        multi_turn = [*turn(f"{color} ?", "yes"), *plain]
        contexts = [plain, multi_turn, [*system, *plain], [*system, *multi_turn]]
        rows += [{"messages": messages, "is_safety": is_safety} for messages in contexts]
    write(rlhf_inputs["data"] / "contexts.jsonl", rows)
    folders = inputs_of(name, rlhf_inputs) | {"judge": rlhf_inputs["judge"]}
    stage.run(settings, folders, tmp_path)
    assert logged(tmp_path) == documented()[name]
