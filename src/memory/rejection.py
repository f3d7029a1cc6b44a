"""What a rank of `rejection` holds while it samples, scores and trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..rlhf.rejection.settings import RejectionSettings
from .account import Account, account, largest
from .engine import BF16, FP32
from .lora import base_model
from .sampling import Batch, sampling
from .scoring import Scorers
from .shape import Shape


def rejection(
    settings: RejectionSettings, config: Mapping[str, Any], ranks: int, *, judge: bool = False
) -> dict[str, Account]:
    """What a rank holds in the phases `sampling`, `scoring` and `training`, one after the other.

    The reward models, and with `judge` a third one, have the policy's shape. The model that is sampled is in
    the host's memory, from where the sampler copies it.

    Args:
        settings: of the stage; its ZeRO file is read.
        config: content of the `config.json` of the model that is sampled.
        ranks: number of GPUs.

    Raises:
        DataError: the config is not that of a Llama, or its context is too short for an answer.
        OSError, ValueError: the ZeRO file cannot be read.
    """
    bf16 = settings.dtype == "bfloat16"
    width = BF16 if bf16 else FP32
    policy = Shape.from_config(config)
    prompts = -(-settings.prompts_per_round // ranks)
    batch = Batch.of(settings, config, prompts, settings.num_generations)
    scorers = Scorers(3 if judge else 2, Shape.from_config(config, scores=True), bf16, settings.frozen_models)
    gpu, host = scorers.held(settings.lora, ranks)
    scoring = scorers.used(settings.lora, ranks, batch.longest)
    if settings.lora is not None:
        sharded = settings.frozen_models == "sharded"
        base, gathered = base_model(policy, bf16=bf16, partitioned=sharded, ranks=ranks)
        gpu, scoring = gpu | base, scoring | gathered
    loaded = {"model": width * policy.parameters}
    return {
        "sampling": largest({}, loaded, {"sampling": sampling(policy, width, batch)}),
        "scoring": largest(gpu, host, {"scoring": scoring}),
        "training": account(settings, config, ranks),
    }
