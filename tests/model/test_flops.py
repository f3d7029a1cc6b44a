"""FLOPs, compared with those that torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from llamita.model.flops import forward_flops_per_token, training_flops_per_token


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_flops_equal_those_that_torch_counts(kv_heads: int) -> None:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    ids = torch.randint(0, 50, (2, 24))
    with FlopCounterMode(display=False) as forward:
        logits = model(ids, use_cache=False).logits
    # eager attention computes the scores of all pairs, masked ones too; so 24 positions are attended to
    assert forward.get_total_flops() / ids.numel() == pytest.approx(
        forward_flops_per_token(config, 24), rel=1e-3
    )
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    both = forward.get_total_flops() + backward.get_total_flops()
    assert both / ids.numel() == pytest.approx(training_flops_per_token(config, 24), rel=1e-2)
