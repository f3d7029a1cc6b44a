"""Attention over packed rows equals attention over each segment alone; the model is restored afterwards."""

from __future__ import annotations

import random

import pytest
import torch
from transformers import LlamaForCausalLM

from llamita.training.attention import attending_within_segments
from llamita.training.finetune import trained_tokens_only

from ..helpers.tiny import tiny_model


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return tiny_model(vocab_size=60, spread=0.5).double()


def rows(lengths: list[list[int]]) -> dict[str, torch.Tensor]:
    rng = random.Random(0)
    torch.manual_seed(0)
    ids = [[rng.randrange(3, 60) for _ in range(sum(row))] for row in lengths]
    positions = [[place for size in row for place in range(size)] for row in lengths]
    batch = {"input_ids": torch.tensor(ids), "position_ids": torch.tensor(positions)}
    untrained = (torch.rand(batch["input_ids"].shape) < 0.7) | (batch["position_ids"] == 0)
    return batch | {"labels": batch["input_ids"].masked_fill(untrained, -100)}


LENGTHS = [[1, 31, 32, 33, 2, 1], [70, 30], [100]]  # around the lengths at which groups end


def test_each_segment_is_computed_as_if_alone(model: LlamaForCausalLM) -> None:
    batch = rows(LENGTHS)
    with torch.no_grad(), attending_within_segments(model):
        assert model.config._attn_implementation == "packed"
        packed = model(batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
    for ids, logits, sizes in zip(batch["input_ids"], packed, LENGTHS, strict=True):
        with torch.no_grad():
            alone = [model(part[None]).logits[0] for part in ids.split(sizes)]
        torch.testing.assert_close(logits, torch.cat(alone), rtol=0, atol=1e-12)


def test_loss_and_gradients_are_those_of_the_masked_rows(model: LlamaForCausalLM) -> None:
    batch = rows(LENGTHS)
    gradients, losses = [], []
    model.zero_grad()
    for packed in (False, True):
        if packed:
            with attending_within_segments(model):
                loss = model(**trained_tokens_only(batch)).loss
                loss.backward()
        else:
            loss = model(**batch, use_cache=False).loss
            loss.backward()
        losses.append(loss.item())
        gradients.append([weight.grad.clone() for weight in model.parameters()])
        model.zero_grad()
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)  # the loss is computed in single precision
    for masked, segmented in zip(*gradients, strict=True):
        torch.testing.assert_close(segmented, masked, rtol=1e-5, atol=1e-7)


def test_rows_without_positions_are_one_segment_each(model: LlamaForCausalLM) -> None:
    ids = rows([[40], [40], [40]])["input_ids"]
    with torch.no_grad():
        expected = model(ids).logits
        with attending_within_segments(model):
            torch.testing.assert_close(model(ids, use_cache=False).logits, expected, rtol=0, atol=1e-12)


def test_the_models_kernel_is_restored_afterwards(model: LlamaForCausalLM, tmp_path) -> None:
    before = model.config._attn_implementation
    with pytest.raises(KeyError), attending_within_segments(model):
        model.save_pretrained(tmp_path)
        raise KeyError
    assert model.config._attn_implementation == before
    assert "packed" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize(("kernel", "allowed"), [(None, False), ("packed", False), ("sdpa", True)])
def test_cudnn_attention_is_allowed_for_rows_of_one_shape(
    model: LlamaForCausalLM, kernel: str | None, allowed: bool
) -> None:
    torch.backends.cuda.enable_cudnn_sdp(False)  # as `device` does on a GPU
    with attending_within_segments(model, kernel):
        assert torch.backends.cuda.cudnn_sdp_enabled() == allowed
    assert not torch.backends.cuda.cudnn_sdp_enabled()
