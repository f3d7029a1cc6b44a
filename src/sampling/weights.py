"""A Llama's weights in a layout for decoding: q, k, v in one matrix, gate and up in another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from ..distributed.device import device
from ..errors import ConfigError
from ..model.sharded import shape_of, whole

_FIXED_ROTARY = ("default", "linear", "llama3", "yarn")  # frequencies don't depend on the sequence length


@dataclass(frozen=True)
class LayerWeights:
    """Weights of one layer. Matrices are `[in, out]`, the layout of `addmm`; biases may be None."""

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    output: Tensor
    output_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


@dataclass(frozen=True)
class LlamaWeights:
    """A copy of a model's weights: later optimizer steps do not change it."""

    embedding: Tensor
    layers: tuple[LayerWeights, ...]
    norm: Tensor
    head: Tensor
    rotary_frequencies: Tensor
    rotary_scale: float
    norm_eps: float
    heads: int
    kv_heads: int
    head_dim: int

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype


def is_supported(model: Any) -> bool:
    """Whether `copy_weights` supports the model."""
    return (
        isinstance(model, LlamaForCausalLM)
        and model.config.hidden_act in ("silu", "swish")
        and model.model.rotary_emb.rope_type in _FIXED_ROTARY
    )


@torch.no_grad()
def copy_weights(model: LlamaForCausalLM, dtype: torch.dtype | None = None) -> LlamaWeights:
    """Copies the weights of a `LlamaForCausalLM` (grouped-query attention, biases, tied embeddings allowed).

    The copy is whole and on this rank's device, wherever the model is and also if ZeRO-3 has partitioned it:
    then every rank must call this function, and holds one gathered weight at a time beside the copy.

    `dtype` is the precision of the copy; None: that of the model.

    Raises:
        ConfigError: not a Llama, an activation other than SiLU, or rotary frequencies that depend on the
            sequence length.
    """
    if not is_supported(model):
        rotary = (getattr(model.config, "rope_parameters", None) or {}).get("rope_type")
        raise ConfigError(
            f"the sampler supports LlamaForCausalLM with SiLU and rotary type {', '.join(_FIXED_ROTARY)}; "
            f"this model is a {type(model).__name__} with rotary type {rotary!r}; use GenerateSampler"
        )
    config, rotary = model.config, model.model.rotary_emb
    dtype = dtype or model.dtype
    return LlamaWeights(
        embedding=_table(model.model.embed_tokens, dtype),
        layers=tuple(_copy_layer(layer, dtype) for layer in model.model.layers),
        norm=_vector(model.model.norm.weight, dtype),
        head=_matrix(dtype, model.lm_head),
        rotary_frequencies=rotary.inv_freq.to(device(), torch.float32, copy=True),
        rotary_scale=float(rotary.attention_scaling),
        norm_eps=config.rms_norm_eps,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
    )


def _copy_layer(layer: Any, dtype: torch.dtype) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    qkv = (attention.q_proj, attention.k_proj, attention.v_proj)
    return LayerWeights(
        attention_norm=_vector(layer.input_layernorm.weight, dtype),
        qkv=_matrix(dtype, *qkv),
        qkv_bias=_bias(dtype, *qkv),
        output=_matrix(dtype, attention.o_proj),
        output_bias=_bias(dtype, attention.o_proj),
        mlp_norm=_vector(layer.post_attention_layernorm.weight, dtype),
        gate_up=_matrix(dtype, mlp.gate_proj, mlp.up_proj),
        gate_up_bias=_bias(dtype, mlp.gate_proj, mlp.up_proj),
        down=_matrix(dtype, mlp.down_proj),
        down_bias=_bias(dtype, mlp.down_proj),
    )


def _vector(weight: Any, dtype: torch.dtype) -> Tensor:
    with whole(weight):
        copied: Tensor = weight.detach().to(device(), dtype, copy=True)
    return copied


def _table(embeddings: Any, dtype: torch.dtype) -> Tensor:
    """`[tokens, width]`, merged with the active adapters."""
    with whole(embeddings.weight):
        return merged(embeddings).to(device(), dtype, copy=True)


def _matrix(dtype: torch.dtype, *linears: Any) -> Tensor:
    """The transposed matrices side by side, `[in, out]`, merged with their active adapters."""
    shapes = [shape_of(linear.weight) for linear in linears]
    joined = torch.empty(shapes[0][1], sum(rows for rows, _ in shapes), dtype=dtype, device=device())
    places = joined.split([rows for rows, _ in shapes], dim=1)
    for place, linear in zip(places, linears, strict=True):
        with whole(linear.weight):
            place.copy_(merged(linear).to(device()).t())  # a GPU transposes faster than the host
    return joined


def merged(layer: Any) -> Tensor:
    """A layer's weight, merged with its active LoRA adapters if it has any."""
    weight: Tensor = layer.weight.detach()
    for name in getattr(layer, "active_adapters", ()):
        weight = weight + layer.get_delta_weight(name).detach()
    return weight


def _bias(dtype: torch.dtype, *linears: Any) -> Tensor | None:
    biases = [_vector(linear.bias, dtype) for linear in linears if linear.bias is not None]
    return torch.cat(biases) if biases else None
