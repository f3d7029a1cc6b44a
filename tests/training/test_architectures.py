"""Packed documents in architectures other than Llama: each as if alone, or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llamita.training.attention import attending_within_segments

from ..architectures import tiny_architecture

CPU = torch.device("cpu")
LENGTHS = [20, 1, 33, 9]  # some longer than a window or a chunk of 8


def documents() -> tuple[dict[str, Any], list[torch.Tensor]]:
    """A packed row, and its documents."""
    ids = torch.randint(3, 60, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(0))
    places = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    return {"input_ids": ids, "position_ids": places, "use_cache": False}, list(ids.split(LENGTHS, dim=1))


@pytest.mark.parametrize(
    "name", ["mistral", "qwen2", "qwen2_moe", "gemma2", "gemma3_text", "gpt_oss", "deepseek_v3", "opt"]
)
def test_segment_by_segment_is_what_the_architecture_computes(name: str) -> None:
    model = tiny_architecture(name)
    row, parts = documents()
    with torch.no_grad():
        alone = torch.cat([model(part, use_cache=False).logits for part in parts], dim=1)
        with attending_within_segments(model, CPU):
            assert model.config._attn_implementation == "packed"
            torch.testing.assert_close(model(**row).logits, alone, rtol=1e-4, atol=1e-4)
