"""Sizes: parameter counts of the published and of real models, and invalid shapes."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from llamita.model.sizes import ModelSize, parameter_count

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def llama2(hidden: int, intermediate: int, layers: int, heads: int, groups: int) -> ModelSize:
    return ModelSize(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=4096,
    )


def test_published_counts() -> None:
    assert parameter_count(llama2(4096, 11008, 32, 32, 32), 32000) == 6_738_415_616
    assert parameter_count(llama2(5120, 13824, 40, 40, 40), 32000) == 13_015_864_320
    assert parameter_count(llama2(8192, 28672, 80, 64, 8), 32000) == 68_976_648_192


@pytest.mark.parametrize("tied", [False, True])
def test_the_count_equals_that_of_the_real_model(tied: bool) -> None:
    from transformers import LlamaForCausalLM

    size = ModelSize(**TINY, tie_word_embeddings=tied)
    model = LlamaForCausalLM(size.llama_config(300))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameter_count(size, 300)


def test_config() -> None:
    config = ModelSize(**TINY, rope_theta=500.0, rms_norm_eps=1e-6).llama_config(300)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 1, 2)
    assert config.vocab_size == 300
    assert config.rope_parameters["rope_theta"] == 500.0
    assert config.rms_norm_eps == 1e-6
    assert config.tie_word_embeddings is False
    assert {name: getattr(config, name) for name in TINY} == TINY


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"num_attention_heads": 5, "num_key_value_heads": 5}, "5 does not divide hidden_size 32"),
        ({"num_attention_heads": 32}, "expected an even number"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3 does not divide num_attention_heads 4"),
        ({"num_hidden_layers": 0}, "greater than 0"),
    ],
)
def test_impossible_sizes(change: dict[str, int], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ModelSize(**{**TINY, **change})
