"""Packed documents in architectures other than Llama: independent of each other, or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version

from llamita.errors import ConfigError
from llamita.training.attention import attending_within_segments
from llamita.training.isolation import isolate

from ..helpers.architectures import tiny_architecture

LENGTHS = [20, 1, 33, 9]  # some longer than a window or a chunk of 8
CHUNKS_BY_DOCUMENT = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.24"),
    reason="transformers 5.17 cuts packed rows into chunks, not their documents",
)


def documents() -> tuple[dict[str, Any], list[torch.Tensor]]:
    """A packed row, and its documents."""
    ids = torch.randint(3, 60, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(0))
    places = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    return {"input_ids": ids, "position_ids": places, "use_cache": False}, list(ids.split(LENGTHS, dim=1))


@pytest.mark.parametrize(
    "name", ["mistral", "qwen2", "qwen2_moe", "gemma2", "gemma3_text", "gpt_oss", "deepseek_v3", "opt"]
)
def test_packed_attention_equals_the_architectures_own(name: str) -> None:
    model = tiny_architecture(name)
    row, parts = documents()
    model.set_attn_implementation("eager")  # transformers 5.17 lets sdpa ignore Gemma 2's softcap
    with torch.no_grad():
        alone = torch.cat([model(part, use_cache=False).logits for part in parts], dim=1)
        with attending_within_segments(model):
            assert model.config._attn_implementation == "packed"
            torch.testing.assert_close(model(**row).logits, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "kernel", "reason"),
    [
        ("mistral", "packed", ""),
        ("opt", "packed", ""),
        pytest.param(
            "llama4_text", "sdpa", "NotImplementedError: chunks of a document", marks=CHUNKS_BY_DOCUMENT
        ),
        ("persimmon", "sdpa", "NotImplementedError: needs position_ids"),
    ],
)
def test_a_kernel_that_keeps_documents_apart_is_chosen(
    name: str, kernel: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_architecture(name)
    own = model.config._attn_implementation
    row, parts = documents()
    with torch.no_grad(), attending_within_segments(model):
        isolate(model)
        assert model.config._attn_implementation == kernel
        packed = model(**row).logits
    output = capsys.readouterr().out
    assert reason in output
    assert bool(output) == (kernel != "packed")
    assert model.config._attn_implementation == own
    with torch.no_grad():
        alone = torch.cat([model(part, use_cache=False).logits for part in parts], dim=1)
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-4)


def test_a_default_with_which_documents_see_each_other_is_replaced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tiny_architecture("gpt_oss")
    with attending_within_segments(model):
        model.set_attn_implementation("eager")
        isolate(model)
        assert model.config._attn_implementation == "packed"
    message = "trained with packed instead of eager (packed documents see each other)"
    assert message in capsys.readouterr().out


def test_a_kernel_of_the_settings_is_not_replaced() -> None:
    model = tiny_architecture("opt")
    refused = pytest.raises(
        ConfigError, match="attn_implementation: sdpa: OPTForCausalLM: packed documents see"
    )
    with attending_within_segments(model, "sdpa"), refused:
        isolate(model, "sdpa")


@pytest.mark.parametrize("name", ["bloom", "lfm2", "qwen3_next", "minimax"])
def test_where_no_kernel_keeps_documents_apart_the_architecture_is_refused(name: str) -> None:
    model = tiny_architecture(name)
    refused = pytest.raises(ConfigError, match=r"can't be trained on packed documents .*; do this")
    with attending_within_segments(model), refused:
        isolate(model, remedy="do this")
