"""The precision of PPO's engines."""

from __future__ import annotations

import pytest

from llamita.deepspeed_file import engine_config
from llamita.rlhf.ppo.loading import precision_of

from ...helpers.repository import zero_file


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_precision_is_that_of_the_finished_settings(stage: int) -> None:
    """The files say `auto`: bf16 on GPUs, fp32 on CPUs."""
    for gpu, expected in ((True, "bfloat16"), (False, "float32")):
        config = engine_config(
            zero_file(stage), gpu=gpu, micro_batch_size=1, accumulates=False, hidden_size=32
        )
        assert precision_of(config) == expected
    assert precision_of({}) == "float32"
