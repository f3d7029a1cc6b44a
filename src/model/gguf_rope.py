"""Converts RoPE scaling of GGUF files, which transformers ignores, to the parameters of a config.

llama.cpp stores it under `<architecture>.rope.scaling.*`; for Llama 3.1 and later as a tensor with one factor
per frequency, from which the parameters are recovered.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from ..errors import DataError

FACTORS = "rope_freqs.weight"
TENSORS = frozenset({FACTORS, "rope_factors_long.weight", "rope_factors_short.weight"})
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}  # in every Llama since 3.1
CONTEXTS = [2**power for power in range(5, 21)]  # possible contexts of the model before its extension
# Keys for variants of YaRN that transformers does not support, and the values with which they have no effect.
NEUTRAL = {"attn_factor": (1.0,), "alpha": (0.0, 1.0), "yarn_ext_factor": (1.0, -1.0)}
NEUTRAL |= {"yarn_attn_factor": (1.0,), "yarn_log_multiplier": (0.0,)}


def rope_parameters(config: Any, fields: Mapping[str, Any], factors: torch.Tensor | None) -> dict[str, Any]:
    """Returns the config's `rope_parameters` with the scaling of a GGUF file.

    Args:
        config: config that transformers reads from the file, without scaling.
        fields: the file's values by key without the prefix `<architecture>.rope.`.
        factors: divisors of the frequencies, `[size of a head / 2]`, None if the file has no such tensor.

    Raises:
        DataError: transformers does not support the scaling.
    """
    plain = dict(getattr(config, "rope_parameters", None) or {})
    kind = fields.get("scaling.type", "linear")  # llama.cpp's default, with a factor of 1
    factor = float(fields.get("scaling.factor") or fields.get("scale_linear") or 1.0)
    for name, values in NEUTRAL.items():
        value = fields.get(f"scaling.{name}")
        if value is not None and not any(abs(value - neutral) < 1e-6 for neutral in values):
            raise DataError(f"rope.scaling.{name} is {value:g}, which transformers does not support")
    scaled = factor != 1.0 if kind == "linear" else kind != "none"
    if factors is not None and bool((factors != 1).any()):
        if scaled:
            raise DataError(
                f"{FACTORS} together with rope.scaling.type {kind!r}, which transformers does not support"
            )
        return _llama3(config, plain, factors)
    if not scaled:
        return plain
    if "rope_theta" not in plain:
        raise DataError(f"rope.scaling.type {kind!r}: expected the same RoPE in all layers")
    if kind == "linear":
        return {**plain, "rope_type": "linear", "factor": factor}
    if kind == "yarn":
        return {**plain, "rope_type": "yarn", "factor": factor, **_yarn(config, fields)}
    raise DataError(f"rope.scaling.type {kind!r} is not supported; expected none, linear or yarn")


def _yarn(config: Any, fields: Mapping[str, Any]) -> dict[str, Any]:
    context = fields.get("scaling.original_context_length") or config.max_position_embeddings
    betas = {name: fields.get(f"scaling.yarn_{name}") for name in ("beta_fast", "beta_slow")}
    present = {name: float(beta) for name, beta in betas.items() if beta is not None}
    return {"original_max_position_embeddings": int(context), **present}


def _llama3(config: Any, plain: dict[str, Any], factors: torch.Tensor) -> dict[str, Any]:
    """Returns the parameters of Llama 3's scaling that result in exactly these factors."""
    for context in CONTEXTS:
        scaled = {**plain, "rope_type": "llama3", "factor": round(float(factors.max()), 6), **LLAMA3}
        scaled["original_max_position_embeddings"] = context
        frequencies = [_frequencies(config, parameters) for parameters in (plain, scaled)]
        if len(frequencies[0]) != len(factors):
            break
        if torch.allclose(frequencies[0] / factors, frequencies[1], rtol=1e-5, atol=0):
            return scaled
    raise DataError(
        f"{FACTORS} differs from the RoPE scaling of Llama 3 (low_freq_factor 1, high_freq_factor 4), so "
        "transformers does not support it"
    )


def _frequencies(config: Any, parameters: dict[str, Any]) -> torch.Tensor:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if parameters.get("rope_type", "default") == "default":  # has no function, but equals linear scaling by 1
        parameters = {**parameters, "rope_type": "linear", "factor": 1.0}
    scaled = copy.deepcopy(config)
    scaled.rope_parameters = parameters
    return ROPE_INIT_FUNCTIONS[parameters["rope_type"]](scaled, device=torch.device("cpu"))[0]
