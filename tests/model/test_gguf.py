"""GGUF files as models: the same weights and tokenizer, converted once, and errors for broken files."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from llamita.errors import DataError
from llamita.hashes import input_hash
from llamita.model.checkpoint import context_length, load_causal_lm, load_tokenizer, new_reward_model

from ..helpers.chatml import chatml_tokenizer
from ..helpers.tiny import tiny_model

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMITA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model() -> LlamaForCausalLM:
    return tiny_model(
        vocab_size=len(chatml_tokenizer()), tie_word_embeddings=True, pad_token_id=2, rope_theta=10000.0
    )


@pytest.fixture
def file(tmp_path: Path, model: LlamaForCausalLM) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", model)


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp rotates neighbours, `transformers` halves."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    architecture: str = "llama",
    more: Callable[[gguf.GGUFWriter], None] | None = None,
    without: str = "",
) -> Path:
    """`more` adds keys and tensors; `without` names a tensor that is omitted."""
    config, tokenizer = model.config, chatml_tokenizer()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    special = {token.content for token in tokenizer.added_tokens_decoder.values()}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    kinds = gguf.TokenType
    writer.add_token_types([kinds.CONTROL if token in special else kinds.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in bpe["merges"]])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template(tokenizer.chat_template)
    if more is not None:
        more(writer)
    for name, tensor in model.state_dict().items():
        if (theirs := _their_name(name)) not in (None, without):
            if "q_proj" in name or "k_proj" in name:
                heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
                tensor = interleaved(tensor, heads)
            writer.add_tensor(theirs, tensor.numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _their_name(name: str) -> str | None:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    if name == "lm_head.weight":
        return None  # tied
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def test_the_same_logits_and_tokenizer(file: Path, model: LlamaForCausalLM) -> None:
    read = load_causal_lm(file)
    ids = torch.randint(0, model.config.vocab_size, (2, 20), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(read(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    tokenizer, ours = load_tokenizer(file), chatml_tokenizer()
    messages = [
        {"role": "user", "content": "hello friend 12?"},
        {"role": "assistant", "content": "what is a bolo"},
    ]
    assert (
        tokenizer.apply_chat_template(messages)["input_ids"]
        == ours.apply_chat_template(messages)["input_ids"]
    )
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert context_length(file) == 128
    assert new_reward_model(file, seed=0).config.num_labels == 1


def test_the_model_can_be_saved_and_loaded_with_transformers(file: Path, tmp_path: Path) -> None:
    load_causal_lm(file).save_pretrained(tmp_path / "saved")
    assert not hasattr(AutoModelForCausalLM.from_pretrained(tmp_path / "saved").config, "quantization_config")


def test_a_file_is_converted_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_tokenizer(file)
    monkeypatch.setattr("llamita.model.gguf.convert", None)  # a second conversion would fail
    load_causal_lm(file)
    assert input_hash(file) == input_hash(file.rename(file.with_name("other.gguf")))


@pytest.mark.parametrize("damage", ["truncated", "no gguf"])
def test_a_broken_file(file: Path, damage: str, tmp_path: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"no gguf at all")
    with pytest.raises(DataError, match=r"tiny\.gguf: the GGUF file can't be read"):
        load_causal_lm(file)
    assert not any((tmp_path / "cache" / "gguf").iterdir()), "nothing half-converted stays"


def test_another_architecture(tmp_path: Path, model: LlamaForCausalLM) -> None:
    file = write_gguf(tmp_path / "whisper.gguf", model, "whisper")
    with pytest.raises(DataError, match=r"whisper\.gguf: the GGUF file can't be read: .*whisper"):
        load_causal_lm(file)


def test_the_error_names_the_missing_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(DataError, match=r'pip install -c constraints\.txt -e "\.\[gguf\]"'):
        load_causal_lm(file)


def test_missing_and_unknown_tensors(tmp_path: Path, model: LlamaForCausalLM) -> None:
    file = write_gguf(tmp_path / "part.gguf", model, without="blk.1.ffn_down.weight")
    with pytest.raises(DataError, match=r"part\.gguf: no weights for model\.layers\.1\.mlp\.down_proj"):
        load_causal_lm(file)
    bias = np.ones(32, np.float32)
    file = write_gguf(
        tmp_path / "more.gguf", model, more=lambda writer: writer.add_tensor("blk.0.attn_q.bias", bias)
    )
    with pytest.raises(DataError, match=r"more\.gguf: .* weights that .* not have: blk\.0\.attn_q\.bias"):
        load_causal_lm(file)


def test_tensors_that_follow_from_the_keys(tmp_path: Path, model: LlamaForCausalLM) -> None:
    buffer = np.ones(4, np.float32)
    file = write_gguf(
        tmp_path / "old.gguf", model, more=lambda writer: writer.add_tensor("blk.0.attn_rot_embd", buffer)
    )
    load_causal_lm(file)


def test_a_file_without_a_tokenizer(
    tmp_path: Path, model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf.GGUFWriter, "add_token_list", lambda *_: None)
    file = write_gguf(tmp_path / "part.gguf", model)
    with pytest.raises(DataError, match=r"part\.gguf: the file has no tokenizer \(tokenizer\.ggml\.tokens\)"):
        load_causal_lm(file)


def test_the_folder_of_a_file(file: Path) -> None:
    with pytest.raises(
        DataError, match=r"expected a model folder, or the path of one GGUF file, .*tiny\.gguf"
    ):
        load_causal_lm(file.parent)


# ------------------------------------------------------------------------------------------ RoPE scaling


def linear(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def yarn(writer: gguf.GGUFWriter) -> None:
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(2.0)
    writer.add_rope_scaling_orig_ctx_len(64)


def llama3(writer: gguf.GGUFWriter) -> None:
    """As llama.cpp's converter writes the factor 8 from a context of 64, for heads of 8, a base of 10,000."""
    factors = []
    for place in range(0, 8, 2):
        length = 2 * math.pi * 10000.0 ** (place / 8)
        smooth = min(1.0, max(0.0, (64 / length - 1) / (4 - 1)))
        factors.append(1 / ((1 - smooth) / 8 + smooth))
    add_factors(writer, factors)


def add_factors(writer: gguf.GGUFWriter, factors: list[float]) -> None:
    writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))


SCALED = [
    (linear, {"rope_type": "linear", "factor": 4.0}),
    (yarn, {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}),
    (
        llama3,
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
]


@pytest.mark.parametrize(("write", "expected"), SCALED)
def test_rope_scaling(
    tmp_path: Path, write: Callable[[gguf.GGUFWriter], None], expected: dict[str, Any]
) -> None:
    rope = {"rope_theta": 10000.0, **expected}
    shape = {"vocab_size": len(chatml_tokenizer()), "tie_word_embeddings": True, "pad_token_id": 2}
    scaled, plain = (tiny_model(**shape, rope_parameters=one) for one in (rope, {"rope_theta": 10000.0}))
    read = load_causal_lm(write_gguf(tmp_path / "scaled.gguf", scaled, more=write))
    assert {name: read.config.rope_parameters[name] for name in rope} == rope
    ids = torch.arange(3, 103)[None]
    with torch.no_grad():
        found, wanted, unscaled = (model(input_ids=ids).logits for model in (read, scaled, plain))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (wanted - unscaled).abs().max() > 0.1


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (
            lambda writer: add_factors(writer, [1, 2, 3, 8]),
            "rope_freqs.weight differs from the RoPE scaling of Llama 3",
        ),
        (lambda writer: (llama3(writer), linear(writer)), "together with rope.scaling.type 'linear'"),
        (lambda writer: (yarn(writer), writer.add_rope_scaling_attn_factors(0.5)), "attn_factor is 0.5"),
        (
            lambda writer: writer.add_tensor("rope_factors_long.weight", np.ones(4, np.float32)),
            "rope_factors_long.weight: RoPE scaling by longrope is not supported",
        ),
        (
            lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE),
            "rope.scaling.type 'longrope' is not supported",
        ),
    ],
)
def test_unsupported_rope_scaling(
    tmp_path: Path, model: LlamaForCausalLM, more: Callable[[gguf.GGUFWriter], None], problem: str
) -> None:
    file = write_gguf(tmp_path / "other.gguf", model, more=more)
    with pytest.raises(DataError, match=rf"other\.gguf: .*{re.escape(problem)}"):
        load_causal_lm(file)
