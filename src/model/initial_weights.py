"""Initial weights of a new model: the same on any number of ranks, with and without ZeRO-3.

Every parameter has its own generator, so that no rank needs the others' values to draw its own.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from . import sharded


def new_causal_lm(config: LlamaConfig, seed: int) -> LlamaForCausalLM:
    """Returns a Llama in fp32 with random weights, partitioned over the ranks if ZeRO-3 is active.

    Matrices are drawn from N(0, `config.initializer_range`), norms are 1, and the pad token's embedding is 0,
    as in transformers. The generator of a parameter is seeded with `seed` and the parameter's name.
    """
    model: LlamaForCausalLM = sharded.build(LlamaForCausalLM, config)
    table = model.get_input_embeddings()
    for name, parameter in model.named_parameters():
        with sharded.whole(parameter, changed=True) as mine:
            if mine:
                _draw(parameter.data, f"{seed}/{name}", config.initializer_range)
                if parameter is table.weight and table.padding_idx is not None:
                    parameter.data[table.padding_idx] = 0
    return model


def _draw(weight: Any, seed: str, spread: float) -> None:
    if weight.ndim < 2:
        weight.fill_(1)
        return
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7]))
    weight.copy_(torch.randn(weight.shape, generator=generator).mul_(spread))
