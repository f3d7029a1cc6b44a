"""The models of PPO: policy and critic with the settings of their engines, and the reference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ...checkpoints.universal import Saved, fit_engine
from ...deepspeed_file import DeepSpeedFile, check_deepspeed_file, engine_config
from ...distributed.device import device
from ...errors import ConfigError
from ...model.checkpoint import load_causal_lm, load_reward_model, model_config
from ...model.frozen import FrozenModel, load_partitioned, partitioning
from ...model.lora import base_model_of
from ...model.precision import store_in
from ...model.sharded import is_partitioned
from ...sampling.engines import Samplers
from ...sampling.interface import Sampler
from ...sampling.weights import is_supported
from ...settings import Precision
from ..shared_base import AdaptedLanguageModel, SharedBaseModel, transformers_model
from .critic import Critic
from .policy import Policy
from .rollout import sizes_per_rank
from .settings import PpoSettings

Config = dict[str, Any]
ENGINES = "engines.json"  # in a checkpoint: number of ranks and ZeRO stages of both engines


class EngineConfigs(NamedTuple):
    """DeepSpeed settings of both engines, see `engine_config`; None: plain torch."""

    policy: Config | None = None
    critic: Config | None = None


class Models(NamedTuple):
    """Policy and critic before they are trained, and the reference of the KL penalty."""

    policy: Any
    critic: Critic
    reference: Any


def engine_configs(settings: PpoSettings, inputs: Mapping[str, Path]) -> EngineConfigs:
    """The settings of both engines. With `lora` and ZeRO-3 the adapters, which are small, use ZeRO-2.

    Raises ConfigError for files that PPO cannot use, or of different precision.
    """
    if settings.deepspeed is None:
        return EngineConfigs()
    files = settings.deepspeed, settings.critic_deepspeed or settings.deepspeed
    gpu = device().type == "cuda"
    if len({DeepSpeedFile.read(file).computes_in_bf16(gpu) for file in files}) > 1:
        raise ConfigError(
            f"critic_deepspeed: {files[1]}: bf16: expected the same precision as in {files[0]}, the policy's"
        )
    sizes = sizes_per_rank(settings)
    for file in files:
        check_deepspeed_file(file, gpu=gpu, accumulates=sizes.accumulates)
    configs = (
        engine_config(
            file,
            gpu=gpu,
            micro_batch_size=sizes.micro,
            accumulates=sizes.accumulates,
            hidden_size=model_config(inputs[name]).get_text_config().hidden_size,
        )
        for file, name in zip(files, ("start", "helpfulness"), strict=True)
    )
    return EngineConfigs(*(_with_whole_weights(config) if settings.lora else config for config in configs))


def _with_whole_weights(config: Config) -> Config:
    zero = config.get("zero_optimization", {})
    if zero.get("stage") != 3:
        return config
    kept = {name: value for name, value in zero.items() if not name.startswith(("stage3_", "offload_param"))}
    return config | {"zero_optimization": kept | {"stage": 2}}


def computes_in_bf16(settings: PpoSettings) -> bool:
    """Whether the passes of policy, critic and reference compute in bf16."""
    if settings.deepspeed is None:
        return settings.dtype == "bfloat16"
    return DeepSpeedFile.read(settings.deepspeed).computes_in_bf16(device().type == "cuda")


def precision_of(config: Config) -> Precision:
    """The precision in which an engine with these settings computes."""
    return "bfloat16" if config.get("bf16", {}).get("enabled") else "float32"


def load_shared_base(settings: PpoSettings, inputs: Mapping[str, Path]) -> SharedBaseModel | None:
    """The base model of all adapters; None without `lora`."""
    if settings.adapter is None:
        return None
    partitioned = settings.frozen_models == "sharded" or (
        settings.deepspeed is not None and DeepSpeedFile.read(settings.deepspeed).zero_stage == 3
    )
    return SharedBaseModel(
        base_model_of(inputs["start"]),
        settings.adapter,
        bf16=computes_in_bf16(settings),
        partitioned=partitioned,
    )


def load_models(
    settings: PpoSettings,
    inputs: Mapping[str, Path],
    configs: EngineConfigs,
    *,
    shared: SharedBaseModel | None,
) -> Models:
    """Adapters of `shared`, or whole models, partitioned where ZeRO-3 will train or hold them.

    The critic starts as the helpfulness model. Every rank calls it.
    """
    if shared is not None:
        policy, reference = (shared.language_model(name, inputs["start"]) for name in ("policy", "reference"))
        reward_model = shared.reward_model("critic", inputs["helpfulness"])
        for model in (policy, reward_model.base_model):
            model.train_adapter()
        return Models(policy, Critic(reward_model), reference)
    with partitioning(configs.policy):
        trained = load_causal_lm(inputs["start"])
    with partitioning(configs.critic):
        critic = Critic(load_reward_model(inputs["helpfulness"]))
    if settings.frozen_models == "sharded":
        bf16 = computes_in_bf16(settings)
        return Models(trained, critic, load_partitioned(lambda: load_causal_lm(inputs["start"]), bf16=bf16))
    return Models(trained, critic, load_causal_lm(inputs["start"]))


def fit_reference(reference: nn.Module, policy: nn.Module, dtype: str) -> None:
    """Gives a whole reference the precision of the policy, so that both compute the same.

    Buffers keep their dtype, as in a DeepSpeed engine: RoPE frequencies rounded to bf16 would change every
    key and query.

    Args:
        policy: as its engine left it.
        dtype: precision of autocast, see `store_in`.
    """
    for parameter, policy_parameter in zip(reference.parameters(), policy.parameters(), strict=True):
        parameter.data = parameter.data.to(policy_parameter.dtype)
    store_in(dtype, reference)


def fit_checkpoint(checkpoint: Path, configs: EngineConfigs) -> None:
    """Converts what `PpoTrainer.save` wrote, if needed, for the ranks and ZeRO stages of this run.

    Every rank calls it, and makes the trainer with `configs` afterwards, which it may change.
    Raises ConfigError if only one of checkpoint and run shards its optimizer states.
    """
    saved = json.loads((checkpoint / ENGINES).read_text(encoding="utf-8"))
    for name, stage in saved["zero_stages"].items():
        fit_engine(checkpoint / name, Saved(saved["ranks"], stage), getattr(configs, name))


def frozen_reference(reference: Any, policy: Any, settings: PpoSettings, *, dtype: str) -> FrozenModel:
    """Holds the reference as the settings say, in the policy's precision; arguments as of `fit_reference`.

    The module that is held is a `Policy`.
    """
    if isinstance(reference, AdaptedLanguageModel):  # the base model is shared
        held, bf16 = "whole", False
        fit_reference(reference, policy, "float32")
    elif settings.frozen_models == "sharded":
        held, bf16 = "sharded", computes_in_bf16(settings)
    else:
        held, bf16 = settings.frozen_models, False
        fit_reference(reference, policy, dtype)
    return FrozenModel(Policy(reference, settings.temperature), held, bf16=bf16)


def policy_sampler(
    policy: Any, settings: PpoSettings, samplers: Samplers, *, start: Path, configs: EngineConfigs
) -> Sampler:
    """The sampler of the policy, without weights until it is synced; every rank calls it.

    Args:
        policy: as loaded from the folder `start`.

    Raises:
        ConfigError: the weights are partitioned and the sampler would need whole ones.
        LlamitaError: a server cannot be started or reached.
    """
    model, engine = transformers_model(policy), settings.sampler.engine
    whole_needed = engine == "generate" or (engine == "builtin" and not is_supported(model))
    if whole_needed and any(map(is_partitioned, model.parameters())):
        raise ConfigError(
            f"deepspeed: {type(model).__name__} is sampled by `generate`, which needs whole weights; these "
            "are partitioned: use ZeRO-2, and with lora no frozen_models: sharded"
        )
    # with DeepSpeed the precision is that of its file
    dtype = settings.dtype if configs.policy is None else None
    return samplers.for_training(model, start, dtype=dtype)
