"""Tiny random models of other architectures than Llama, each with a feature that makes packing hard."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
OTHERS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8},
    "qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    # passes its window only to the mask
    "qwen2_moe": EXPERTS | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "gemma2": {"sliding_window": 8, "attn_logit_softcapping": 1.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 8, "query_pre_attn_scalar": 8},
    "gpt_oss": EXPERTS | {"sliding_window": 8},  # sinks; its own kernels let packed documents see each other
    "deepseek_v3": EXPERTS  # values and keys have different sizes
    | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4}
    | {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},  # its own kernels let packed documents see each other
    "llama4_text": EXPERTS | {"attention_chunk_size": 8, "intermediate_size_mlp": 48},
    "persimmon": {},  # does not pass its positions to the kernel
    "bloom": {},  # documents see each other under any kernel
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": EXPERTS
    | {"layer_types": ["linear_attention", "full_attention"], "shared_expert_intermediate_size": 16}
    | {"linear_num_value_heads": 4, "linear_num_key_heads": 2}
    | {"linear_key_head_dim": 8, "linear_value_head_dim": 8},
    "minimax": EXPERTS | {"layer_types": ["linear_attention", "full_attention"], "block_size": 8},
    "phi3": {  # short or long factors, chosen by the longest position in a batch
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0] * 4,
            "original_max_position_embeddings": 24,
            "factor": 128 / 24,
        },
        "original_max_position_embeddings": 24,
    },
}


def tiny_architecture(name: str, **changes: Any) -> Any:
    """Returns an architecture of `OTHERS` with random weights."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **SHAPE | OTHERS[name] | changes)
    return AutoModelForCausalLM.from_config(config).eval()
