"""Properties of an architecture that limit which sequences can share a batch."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoConfig, LlamaConfig

from llamita.model.architecture import carries_state, context_of

from ..helpers.architectures import OTHERS, SHAPE


def config_of(name: str, **changes: Any) -> Any:
    return AutoConfig.for_model(name, **SHAPE | OTHERS[name] | changes)


def test_the_context_ends_where_other_sequences_of_a_batch_have_an_influence() -> None:
    assert context_of(config_of("phi3")) == 24
    assert context_of(config_of("mistral")) == 128
    assert context_of(LlamaConfig(max_position_embeddings=64)) == 64


def test_rope_by_layer_type() -> None:
    longrope = OTHERS["phi3"]["rope_parameters"]
    config = config_of("mistral")
    config.rope_parameters = {"sliding_attention": {"rope_type": "default"}, "full_attention": longrope}
    assert context_of(config) == 24


@pytest.mark.parametrize("name", ["lfm2", "qwen3_next", "minimax"])
def test_layers_that_carry_state(name: str) -> None:
    assert carries_state(config_of(name))


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gpt_oss", "llama4_text", "deepseek_v3"])
def test_attention_carries_no_state(name: str) -> None:
    assert not carries_state(config_of(name))
