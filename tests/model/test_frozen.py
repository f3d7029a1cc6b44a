"""Models that are not trained: offloaded, or partitioned by ZeRO-3."""

from __future__ import annotations

import copy
import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from llamita.model import frozen, sharded
from llamita.model.frozen import (
    FrozenModel,
    HostCopy,
    free_partitioned,
    load_partitioned,
    missing_passes,
    run_partitioned,
)
from llamita.processes import rank

from ..helpers.tiny import tiny_model
from ..helpers.two_ranks import on_two_deepspeed_ranks, on_two_ranks


def model() -> Any:
    """A partitioned model, after as many passes as DeepSpeed needs to remember their order."""
    config = tiny_model().config
    loaded = load_partitioned(lambda: sharded.build(LlamaForCausalLM, config), bf16=False)
    run_partitioned(loaded, bf16=False)
    with torch.no_grad():
        for _ in range(2):
            loaded(input_ids=torch.ones(1, 4, dtype=torch.long))
    return loaded


def test_an_offloaded_module_computes_the_same_and_is_empty_while_it_is_idle() -> None:
    whole, ids = tiny_model(vocab_size=77, spread=0.5).eval(), torch.arange(7)[None]
    whole.lm_head.bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = whole(input_ids=ids).logits
        held = FrozenModel(copy.deepcopy(whole), "offloaded", bf16=False)
        for _ in range(2):
            assert not any(weight.numel() for weight in held.module.parameters())
            with held.in_use():
                assert torch.equal(held(input_ids=ids).logits, expected)
                for weight, original in zip(held.module.parameters(), whole.parameters(), strict=True):
                    assert (weight.dtype, weight.shape) == (original.dtype, original.shape)
        assert not any(weight.numel() for weight in held.module.parameters())


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 5), (16,), (7, 11, 3)])
def test_pinned_pieces_have_sizes_that_torch_does_not_round_up(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, whose allocator of pinned memory rounds up to powers of two."""
    pinned: list[int] = []

    def pin(values: torch.Tensor) -> torch.Tensor:
        pinned.append(values.nbytes)
        return values.clone()

    monkeypatch.setattr(frozen, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    values = torch.randn(shape, dtype=torch.float64).bfloat16()
    host = HostCopy(values.t() if values.ndim == 2 else values)
    assert sum(pinned) == values.nbytes
    assert all(size.bit_count() == 1 for size in pinned)
    for _ in range(2):
        assert torch.equal(host.on_device(), values.t() if values.ndim == 2 else values)


def test_memory_of_partitioned_models_is_freed(tmp_path: Path) -> None:
    """But for the last one with DeepSpeed 0.19.2, which keeps it until another model is loaded."""

    def alive() -> list[bool]:
        weights = [weakref.ref(model().get_output_embeddings().weight) for _ in range(3)][:2]
        gc.collect()
        kept = all(weight() is not None for weight in weights)  # or nobody has to free them
        free_partitioned()
        return [kept, *(weight() is not None for weight in weights)]

    assert on_two_deepspeed_ranks(alive, tmp_path) == [[True, False, False]] * 2


def test_ranks_add_what_they_lack_of_the_largest_number_of_passes(tmp_path: Path) -> None:
    assert on_two_ranks(lambda: missing_passes([5, 2][rank()]), tmp_path) == [0, 3]
