"""A tiny Llama for tests, and prompts for it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from llamita.model.saving import save_model

EOS = 2


def tiny_model(seed: int = 0, spread: float = 0.2, **changes: object) -> LlamaForCausalLM:
    """Returns a model with random weights; `changes` replaces settings of its configuration."""
    torch.manual_seed(seed)
    settings = {
        "vocab_size": 29,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": EOS,
        "initializer_range": spread,
    }
    return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()


def ragged_prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Returns prompts of 1 to 12 ids that begin with BOS."""
    draw = random.Random(seed)
    return [[1, *(draw.randrange(3, 29) for _ in range(draw.randrange(0, 12)))] for _ in range(count)]


def save_tiny_model(folder: Path, tokenizer: Any, seed: int = 0, **changes: object) -> Path:
    """Writes the folder of a chat model with random weights."""
    save_model(tiny_model(seed, vocab_size=len(tokenizer), **changes), tokenizer, folder)
    return folder


def save_tiny_reward_model(folder: Path, tokenizer: Any, seed: int = 0, **changes: object) -> Path:
    """Writes the folder of a reward model with random weights."""
    torch.manual_seed(seed)
    config = tiny_model(seed, vocab_size=len(tokenizer), **changes).config
    config.num_labels = 1
    save_model(LlamaForSequenceClassification(config), tokenizer, folder)
    return folder
