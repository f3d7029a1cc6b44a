"""Parts of stages: settings and ZeRO files that decide them, and published figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamita.memory.account import Account, account, account_of
from llamita.memory.engine import Engine
from llamita.memory.lora import adapted
from llamita.memory.passes import MicroBatch, logits, stored
from llamita.memory.shape import Shape
from llamita.memory.states import Trained, weights
from llamita.pretrain.settings import PretrainSettings
from llamita.reward.settings import RewardSettings
from llamita.sft.settings import SftSettings
from llamita.training.settings import LoraSettings, TrainedSettings

from ..helpers.paper_shapes import PAPER
from ..helpers.repository import REPOSITORY, zero_file

GIB, GB = 2**30, 10**9
FILLING = "tests/helpers/filled_files.py"


def settings(kind: type[TrainedSettings], **values: Any) -> TrainedSettings:
    """Settings without the sources of data, which take no part."""
    return kind.model_construct(**values)


def of_7b(kind: type[TrainedSettings] = PretrainSettings, ranks: int = 8, **values: Any) -> Account:
    return account(settings(kind, **values), PAPER["7B"], ranks)


@pytest.mark.long
def test_auto_values_are_filled_as_by_the_code_that_starts_a_stage(tmp_path: Path) -> None:
    files = [zero_file(kind) for kind in ("0", "1", "2", "3", "2_offload", "3_offload")]
    environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29641", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, str(REPOSITORY / FILLING), str(tmp_path), *files]
    subprocess.run(command, env=os.environ | environment, check=True, timeout=300)
    found = json.loads((tmp_path / "filled.json").read_text())
    assert len(found) == len(files) * len(PAPER) * 3
    for file, size, stage, parameters, filled in found:
        assert '"auto"' not in json.dumps(filled)
        shape = Shape.from_config(PAPER[size], scores=stage == "reward")
        assert shape.parameters == parameters
        original = json.loads(Path(file).read_text())
        for ranks in (8, 64):
            by_accounting = Engine.of_file(original, shape, ranks, bf16=True)
            assert Engine.of_file(filled, shape, ranks, bf16=False) == by_accounting, (file, size)


def test_litgpts_lora_of_7b_and_13b() -> None:
    """21.30 and 29.07 GB at one and two rows of 1,304 tokens, 38.12 GB for 13B, out of 40 GB at four rows."""
    engine = Engine(1, 0, "bf16")
    totals = []
    for size, rows in (("7B", 1), ("7B", 2), ("13B", 1), ("7B", 4)):
        model = adapted(Shape.from_config(PAPER[size]), LoraSettings(r=8))
        totals.append(account_of(model, engine, MicroBatch(1304 * rows, "whole", False)).total / GB)
    assert totals[:3] == pytest.approx([21.30, 29.07, 38.12], rel=0.05)
    assert totals[3] > 40


@pytest.mark.parametrize(("size", "published"), [("7B", 13.48), ("13B", 26.03)])
def test_weights_in_bf16(size: str, published: float) -> None:
    model = Trained.whole(Shape.from_config(PAPER[size]))
    assert round(weights(model, Engine(1, 2, "bf16")) / GB, 2) == published


def test_prime_rls_sft_of_qwen3_4b() -> None:
    """On 8 GPUs at 16,384 tokens: states of 7.5 GiB, an fp32 tensor of logits of 9.3 GiB; 54.6 GiB in all."""
    shape = Shape(151_936, 2560, 9728, 36, 32, num_key_value_heads=8, head_dim=128, tie_word_embeddings=True)
    model, engine = Trained.whole(shape), Engine(8, 3, "bf16", persistence=0)
    batch = MicroBatch(16_384, "whole", checkpointing=True)
    assert round(16 * shape.parameters / 8 / GIB, 1) == 7.5
    assert round(logits(shape, engine, batch) / 3 / GIB, 1) == 9.3
    found = account_of(model, engine, batch)
    states = sum(found.gpu[name] for name in ("weights", "gradients", "optimizer"))
    assert states == pytest.approx(18 * shape.parameters / 8, rel=0.001)
    assert 0.7 * 54.6 < found.total / GIB < 1.05 * 54.6


def test_parts_of_stages_differ_as_their_losses_do() -> None:
    same: Any = {"deepspeed": zero_file(3), "trainer": {"gradient_checkpointing": True}}
    pretrain, sft, reward = (of_7b(kind, **same) for kind in (PretrainSettings, SftSettings, RewardSettings))
    states = ("weights", "gradients", "optimizer")
    assert all(pretrain.gpu[name] == sft.gpu[name] for name in states)
    assert pretrain.gpu["logits"] == 12 * 4096 * 32_000
    assert sft.gpu["logits"] < pretrain.gpu["logits"]
    assert reward.moment == "evaluation"
    assert "logits" not in reward.gpu
    assert reward.gpu["optimizer"] == pytest.approx(12 * (6_738_415_616 - 32_000 * 4096) / 8, rel=0.001)


def test_defaults_are_those_of_the_stages() -> None:
    """TRL's arguments checkpoint activations, those of transformers don't; one row of 4,096 tokens."""
    for kind, checkpointing in ((PretrainSettings, False), (SftSettings, True), (RewardSettings, True)):
        written = {"gradient_checkpointing": checkpointing, "per_device_train_batch_size": 1, "bf16": True}
        assert of_7b(kind, deepspeed=zero_file(2)) == of_7b(kind, deepspeed=zero_file(2), trainer=written)


def test_activations_grow_with_rows_and_shrink_with_checkpointing() -> None:
    one, two = (
        of_7b(deepspeed=zero_file(2), trainer={"per_device_train_batch_size": rows}).gpu for rows in (1, 2)
    )
    less = of_7b(deepspeed=zero_file(2), trainer={"gradient_checkpointing": True}).gpu
    assert two["activations"] == 2 * one["activations"]
    assert one["activations"] > 10 * less["activations"]


def test_offloaded_parts_are_on_the_host() -> None:
    """Under ZeRO-2 sums in fp32 stay on the GPU: see `Engine.offload_gradients`."""
    found = of_7b(deepspeed=zero_file("3_offload"))
    assert {"weights", "gradients", "optimizer"} <= found.host.keys()
    assert not {"weights", "gradients", "optimizer"} & found.gpu.keys()
    two = of_7b(deepspeed=zero_file("2_offload"))
    assert {"weights", "gradients"} <= two.gpu.keys()
    assert "optimizer" in two.host


def test_without_deepspeed_weights_are_in_fp32_and_copied() -> None:
    found = of_7b(ranks=1)
    parameters = 6_738_415_616
    states = sum(found.gpu[name] for name in ("weights", "gradients", "optimizer"))
    assert states == 16 * parameters
    assert found.gpu["gathered"] == 2 * (32 * Shape.from_config(PAPER["7B"]).layer_matrices + 32_000 * 4096)
    assert of_7b(ranks=2).gpu["buffers"] - found.gpu["buffers"] == 4 * parameters  # buckets of DDP


def test_an_adapter_on_one_gpu_takes_what_its_frozen_base_model_does_in_bf16() -> None:
    found = of_7b(SftSettings, ranks=1, lora=LoraSettings(r=8))
    trained = adapted(Shape.from_config(PAPER["7B"]), LoraSettings(r=8)).trained
    assert found.gpu["weights"] == 2 * 6_738_415_616 + 4 * trained
    assert found.gpu["optimizer"] == 8 * trained
    assert "gathered" not in found.gpu
    in_bf16 = of_7b(SftSettings, deepspeed=zero_file(2))
    assert found.gpu["activations"] == in_bf16.gpu["activations"]


@pytest.mark.parametrize(
    ("modules", "adapters"),
    [
        ("all-linear", 8 * (4 * (4096 + 4096) + 3 * (4096 + 11_008))),
        (["q_proj", "v_proj"], 8 * 2 * (4096 + 4096)),
        (r".*\.(up|down)_proj", 8 * 2 * (4096 + 11_008)),
    ],
)
def test_an_adapter_is_trained_and_the_base_model_frozen(modules: Any, adapters: int) -> None:
    shape = Shape.from_config(PAPER["7B"])
    model = adapted(shape, LoraSettings(r=8, target_modules=modules))
    assert model.trained == 32 * adapters
    assert model.frozen == shape.parameters
    whole = weights(model, Engine(8, 2, "bf16"))
    assert whole == 2 * (shape.parameters + model.trained)
    assert weights(model, Engine(8, 3, "bf16", persistence=0)) == -(-whole // 8)


def test_the_moment_is_that_with_the_highest_sum() -> None:
    model, batch = Trained.whole(Shape.from_config(PAPER["7B"])), MicroBatch(4096, "whole", True)
    one = Engine(8, 1, "bf16")
    assert account_of(model, one, batch).moment == "step"  # sums in bf16, as they are communicated
    assert account_of(model, replace(one, stage=2), batch).moment == "loss"
    large = Trained.whole(Shape.from_config(PAPER["70B"]))
    assert account_of(large, replace(one, stage=3), batch).moment == "backward"
    assert stored(model.shape, one, batch) > 0


def test_held_out_pairs_are_scored_with_more_tokens_than_are_trained() -> None:
    """At 70B on many GPUs an evaluation takes more than a step on one pair of 512 tokens."""
    found = account(
        settings(RewardSettings, deepspeed=zero_file(3), max_length=512, trainer={}), PAPER["70B"], 512
    )
    assert found.moment == "evaluation"
    assert found.gpu["activations"] == 65_536 * 2 * (4 * 8192 + 3 * 28_672)
    assert of_7b(deepspeed=zero_file(2)).moment == "loss"  # pretraining evaluates rows as it trains them
