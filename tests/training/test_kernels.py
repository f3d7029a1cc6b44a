"""Kernels, checkpointing and micro-batches change the time of a step, not its loss."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.models.llama.modeling_llama import LlamaMLP

from llamita.errors import ConfigError
from llamita.model.checkpoint import load_tokenizer
from llamita.pretrain import stage as pretrain
from llamita.pretrain.settings import PretrainSettings
from llamita.reward import stage as reward
from llamita.reward.settings import RewardSettings
from llamita.rlhf.rejection import stage as rejection
from llamita.sft import stage as sft
from llamita.sft.settings import SftSettings
from llamita.training.attention import OneRowCollator, one_row

from ..helpers.material import HELPFULNESS, PRETRAIN, SFT, write_data
from ..helpers.rlhf import inputs_of, make_inputs
from ..helpers.rlhf import rejection as rejection_settings
from ..helpers.tiny import save_tiny_model

TRAINER = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    root = tmp_path_factory.mktemp("kernels")
    tokenizer.save_pretrained(str(root / "tokenizer"))
    save_tiny_model(root / "base" / "model", tokenizer, spread=0.3)
    write_data(root / "data")
    return root


@contextmanager
def passes() -> Iterator[list[int]]:
    """Collects an entry at the beginning of each forward pass through the feed-forward part of a layer."""
    found: list[int] = []
    hook = register_module_forward_pre_hook(
        lambda module, *_: found.append(1) if isinstance(module, LlamaMLP) else None
    )
    yield found
    hook.remove()


def losses(root: Path, out: Path, stage: str = "pretrain", **changes: Any) -> list[float]:
    """Losses of four steps; initial weights are so large that losses depend on which tokens are visible."""
    trainer = TRAINER | changes.pop("trainer", {})
    out.mkdir()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_MODE", "disabled")
        if stage == "sft":
            chosen = SftSettings.model_validate(SFT | {"trainer": trainer} | changes)
            sft.run(chosen, {"model": root / "base", "data": root / "data"}, out)
        elif stage == "reward":
            rewarded = RewardSettings.model_validate(HELPFULNESS | {"trainer": trainer} | changes)
            reward.run(rewarded, {"model": root / "base", "data": root / "data"}, out)
        elif stage == "rejection":
            made = inputs_of("rejection", make_inputs(root / "rlhf", load_tokenizer(root / "base")))
            rejection.run(rejection_settings(trainer=trainer, **changes), made, out)
        else:
            sizes = PRETRAIN["model"] | {"initializer_range": 0.3}
            settings = PretrainSettings.model_validate(
                PRETRAIN | {"model": sizes, "trainer": trainer} | changes
            )
            pretrain.run(settings, {"tokenizer": root / "tokenizer", "data": root / "data"}, out)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row["train/loss"] for row in rows if "train/loss" in row]


@pytest.fixture(scope="module")
def usual(root: Path) -> dict[str, list[float]]:
    return {stage: losses(root, root / stage, stage) for stage in ("pretrain", "sft")}


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward", "rejection"])
def test_activation_checkpointing_recomputes_layers_and_keeps_the_loss(
    root: Path, tmp_path: Path, stage: str
) -> None:
    with passes() as usual:
        expected = losses(root, tmp_path / "usual", stage)
    with passes() as recomputed:
        found = losses(root, tmp_path / "out", stage, trainer={"gradient_checkpointing": True})
    assert found == pytest.approx(expected, rel=1e-5)
    layers, steps = 2, TRAINER["max_steps"]
    assert len(recomputed) - len(usual) == layers * steps


@pytest.mark.parametrize("stage", ["pretrain", "sft"])
@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"attn_implementation": "packed"}, 0.0),
        ({"attn_implementation": "sdpa"}, 1e-4),
        ({"attn_implementation": "eager"}, 1e-4),
        ({"trainer": {"bf16": True}}, 5e-2),
        ({"trainer": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}}, 1e-4),
    ],
)
def test_the_loss_stays_the_same(
    root: Path, tmp_path: Path, usual: Any, stage: str, changes: dict[str, Any], tolerance: float
) -> None:
    found = losses(root, tmp_path / "out", stage, **changes)
    assert found == pytest.approx(usual[stage], rel=tolerance)
    if tolerance > 1e-3:
        assert found != usual[stage]  # bf16 was used


@pytest.mark.long
def test_compiled_the_loss_stays_the_same(root: Path, tmp_path: Path, usual: Any) -> None:
    found = losses(root, tmp_path / "out", attn_implementation="sdpa", trainer={"torch_compile": True})
    assert found == pytest.approx(usual["pretrain"], rel=1e-4)


def test_a_kernel_that_is_not_installed_is_an_error(root: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("flash_attn"):
        pytest.skip("flash-attn is installed")
    with pytest.raises(ConfigError, match="attn_implementation: flash_attention_2: "):
        losses(root, tmp_path / "out", attn_implementation="flash_attention_2")


def test_joined_rows_have_the_loss_of_separate_rows(root: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(root / "base" / "model")
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 30, (3, 20), generator=draws)
    places = torch.arange(20).repeat(3, 1) % torch.tensor([[20], [7], [9]])
    rows = [
        {"input_ids": row, "labels": row.masked_fill(place == 0, -100), "position_ids": place}
        for row, place in zip(ids, places, strict=True)
    ]
    separate = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    together = OneRowCollator()(rows)
    assert together["input_ids"].shape == (1, 60)
    assert torch.equal(together["labels"], one_row(separate)["labels"])
    found, expected = (model(**batch, use_cache=False).loss for batch in (together, separate))
    torch.testing.assert_close(found, expected)
