"""A Llama's weights in a layout for decoding: q, k, v in one matrix, gate and up in another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from ..errors import ConfigError

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
        embedding=_weight(model.model.embed_tokens).to(dtype, copy=True),
        layers=tuple(_copy_layer(layer, dtype) for layer in model.model.layers),
        norm=_copy(model.model.norm.weight, dtype),
        head=_matrix(dtype, model.lm_head),
        rotary_frequencies=_copy(rotary.inv_freq, torch.float32),
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
        attention_norm=_copy(layer.input_layernorm.weight, dtype),
        qkv=_matrix(dtype, *qkv),
        qkv_bias=_bias(dtype, *qkv),
        output=_matrix(dtype, attention.o_proj),
        output_bias=_bias(dtype, attention.o_proj),
        mlp_norm=_copy(layer.post_attention_layernorm.weight, dtype),
        gate_up=_matrix(dtype, mlp.gate_proj, mlp.up_proj),
        gate_up_bias=_bias(dtype, mlp.gate_proj, mlp.up_proj),
        down=_matrix(dtype, mlp.down_proj),
        down_bias=_bias(dtype, mlp.down_proj),
    )


def _copy(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return weight.detach().to(dtype, copy=True)


def _matrix(dtype: torch.dtype, *linears: torch.nn.Linear) -> Tensor:
    return torch.cat([_weight(linear).to(dtype) for linear in linears]).t().contiguous()


def _weight(linear: Any) -> Tensor:
    """A layer's weight, merged with its active LoRA adapters if it has any."""
    weight: Tensor = linear.weight.detach()
    for name in getattr(linear, "active_adapters", ()):
        weight = weight + linear.get_delta_weight(name).detach()
    return weight


def _bias(dtype: torch.dtype, *linears: torch.nn.Linear) -> Tensor | None:
    biases = [linear.bias.detach().to(dtype) for linear in linears if linear.bias is not None]
    return torch.cat(biases) if biases else None
