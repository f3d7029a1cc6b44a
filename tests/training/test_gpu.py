"""Kernels that only a GPU has, beside the same model on the CPU; run by `make test-gpu`."""

from __future__ import annotations

import copy
import importlib.util
import random
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from transformers.models.llama import modeling_llama

from llamita.distributed.device import device
from llamita.training import varlen
from llamita.training.attention import attending_within_segments, packed_attention

from ..helpers.tiny import tiny_model

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
SINGLE, HALF = 1e-5, 2e-2  # relative tolerances


@pytest.fixture(autouse=True)
def exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


def batch() -> dict[str, torch.Tensor]:
    """Two rows of 300 tokens in segments of 1 to 90."""
    draw = random.Random(0)
    rows = []
    for _ in range(2):
        positions: list[int] = []
        while len(positions) < 300:
            positions += range(draw.randint(1, 90))
        rows.append(positions[:300])
    positions = torch.tensor(rows)
    ids = torch.tensor([[draw.randrange(3, 60) for _ in row] for row in rows])
    return {"input_ids": ids, "position_ids": positions, "labels": ids.masked_fill(positions == 0, -100)}


def loss_and_gradient(model: Any, dtype: torch.dtype, **changes: Any) -> tuple[float, torch.Tensor]:
    """Loss and the first layer's gradient, computed where the model is; `changes` go to the model's call."""
    place = model.device
    model.train().zero_grad()
    inputs = {name: states.to(place) for name, states in batch().items()}
    with torch.autocast(place.type, dtype, enabled=dtype != torch.float32):
        loss = model(**inputs, use_cache=False, **changes).loss
    loss.backward()
    gradient = model.model.layers[0].self_attn.k_proj.weight.grad
    return loss.item(), gradient.float().cpu()


@pytest.fixture(scope="module", params=[4, 2], ids=["equal heads", "grouped heads"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(
        vocab_size=60,
        hidden_size=128,
        num_key_value_heads=request.param,
        max_position_embeddings=512,
        spread=0.1,
    )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, SINGLE), (torch.bfloat16, HALF)])
def test_packed_rows_have_the_loss_and_gradient_of_the_cpu(
    model: Any, dtype: torch.dtype, tolerance: float, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Mock(wraps=varlen.varlen_attn)
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    with attending_within_segments(model):
        wanted, wanted_gradient = loss_and_gradient(model, torch.float32)
    on_gpu = copy.deepcopy(model).to(device())
    if checkpointing:
        on_gpu.gradient_checkpointing_enable()
    with attending_within_segments(on_gpu):
        found, gradient = loss_and_gradient(on_gpu, dtype)
    assert kernel.called == (dtype == torch.bfloat16)
    assert found == pytest.approx(wanted, rel=tolerance)
    assert (gradient - wanted_gradient).norm() < 5 * tolerance * wanted_gradient.norm()


def test_sliding_windows() -> None:
    heads, positions = (4, 2, 2), batch()["position_ids"]
    draws = torch.Generator().manual_seed(0)
    states = [torch.randn(2, count, 300, 64, generator=draws) for count in heads]
    mask = torch.tensor(20).view(1, 1, 1, 1)
    wanted, _ = packed_attention(torch.nn.Module(), *states, mask, positions, scaling=0.125)
    half = [part.to(device(), torch.bfloat16) for part in states]
    found, _ = packed_attention(torch.nn.Module(), *half, mask, positions.to(device()), scaling=0.125)
    torch.testing.assert_close(found.float().cpu(), wanted, rtol=0, atol=3e-2)


@pytest.mark.skipif(not importlib.util.find_spec("liger_kernel"), reason="needs the extra `liger`")
def test_with_liger_kernels_the_loss_stays_the_same(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    for name, value in vars(modeling_llama).items():  # Liger replaces some for the whole process
        monkeypatch.setattr(modeling_llama, name, value)
    plain = copy.deepcopy(model).to(device())
    liger = copy.deepcopy(plain)
    _apply_liger_kernel_to_instance(model=liger)
    losses = []
    for one in (plain, liger):
        with attending_within_segments(one):
            losses.append(loss_and_gradient(one, torch.bfloat16)[0])
    assert losses[1] == pytest.approx(losses[0], rel=HALF)
