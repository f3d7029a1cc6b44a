from __future__ import annotations

import copy

import pytest
import torch
from transformers import LlamaForSequenceClassification

from llamita.model.precision import computing_in, store_in

from ..helpers.tiny import tiny_model


@pytest.mark.parametrize("tied", [False, True])
def test_matrices_in_bf16_halve_the_memory_and_change_no_bit(*, tied: bool) -> None:
    whole = tiny_model(spread=0.05, tie_word_embeddings=tied)
    halved = copy.deepcopy(whole)
    store_in("bfloat16", halved)
    ids = torch.tensor([[1, *range(3, 29)]])
    with torch.no_grad(), computing_in("bfloat16", "cpu"):
        assert torch.equal(whole(ids).logits, halved(ids).logits)
    dtypes = {name: weight.dtype for name, weight in halved.named_parameters()}
    assert dtypes["model.layers.0.self_attn.q_proj.weight"] == torch.bfloat16
    assert dtypes["model.embed_tokens.weight"] == torch.float32, "autocast does not cast it"
    assert dtypes["model.norm.weight"] == torch.float32
    assert dtypes.get("lm_head.weight", torch.float32) == (torch.float32 if tied else torch.bfloat16)


def test_a_reward_models_head_and_other_precisions_are_not_changed() -> None:
    config = tiny_model().config
    config.num_labels = 1
    model = LlamaForSequenceClassification(config)
    store_in("float32", model)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    store_in("bfloat16", model)
    assert model.score.weight.dtype == torch.float32
