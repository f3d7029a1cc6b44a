"""DeepSpeed files: ZeRO stages, and files that PPO cannot use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamita.deepspeed_file import (
    check_deepspeed_file,
    check_gradient_sum,
    engine_config,
    zero_stage,
)
from llamita.errors import ConfigError

from .helpers.repository import zero_file


@pytest.mark.parametrize("data_types", [{}, {"data_types": {"grad_accum_dtype": "bf16"}}])
def test_a_file_of_ones_own_needs_the_sum_in_fp32(tmp_path: Path, data_types: dict[str, Any]) -> None:
    file = tmp_path / "zero.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}} | data_types))
    with pytest.raises(
        ConfigError, match=r'zero.json: .* several micro-batches in bf16.*"grad_accum_dtype": "fp32"'
    ):
        check_gradient_sum(str(file), bf16=True, accumulates=True)
    check_gradient_sum(str(file), bf16=True, accumulates=False)
    check_gradient_sum(str(file), bf16=False, accumulates=True)


def test_zero_0_takes_one_micro_batch_in_bf16() -> None:
    """DeepSpeed has no fp32 sum for it."""
    file = zero_file(0)
    assert "data_types" not in json.loads(Path(file).read_text())
    with pytest.raises(ConfigError, match=r"zero0.json: .* several micro-batches in bf16.*zero1"):
        check_gradient_sum(file, bf16=True, accumulates=True)
    check_gradient_sum(file, bf16=True, accumulates=False)
    check_gradient_sum(file, bf16=False, accumulates=True)
    check_gradient_sum(None, bf16=True, accumulates=True)
    check_gradient_sum(zero_file(1), bf16=True, accumulates=True)


@pytest.fixture
def files(tmp_path: Path) -> dict[int, str]:
    for stage in (0, 2, 3):
        (tmp_path / f"{stage}.json").write_text(json.dumps({"zero_optimization": {"stage": stage}}))
    return {stage: str(tmp_path / f"{stage}.json") for stage in (0, 2, 3)}


def test_the_zero_stage_in_a_file(files: dict[int, str], tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("{}")
    assert [zero_stage(file) for file in files.values()] == [0, 2, 3]
    assert zero_stage(str(tmp_path / "none.json")) == 0
    assert zero_stage(None) is None


def test_files_that_ppo_cannot_use_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "zero.json"
    for content, named in (
        ({"optimizer": {"type": "AdamW"}}, "optimizer"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=f"zero.json: .*{named}"):
            check_deepspeed_file(str(file), gpu=False, accumulates=False)
        with pytest.raises(ConfigError, match=f"zero.json: .*{named}"):
            engine_config(str(file), gpu=False, micro_batch_size=1, accumulates=False, hidden_size=8)
