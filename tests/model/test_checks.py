"""Inconsistent models, tokenizers and configs: an error with the reason, or a permanent correction."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from llamita.chat import Chat
from llamita.errors import DataError
from llamita.model.checkpoint import (
    context_length,
    load_causal_lm,
    load_reward_model,
    load_tokenizer,
    new_reward_model,
    tokenizer_hash,
)
from llamita.model.saving import save_model
from llamita.sampling.generate import GenerateSampler
from llamita.sampling.llama import LlamaSampler

from ..helpers.llama3 import RESERVED, llama3_tokenizer
from ..helpers.tiny import save_tiny_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def folder(tokenizer: Any, tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "model", tokenizer, tie_word_embeddings=False)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def make_constant(folder: Path, token: int) -> None:
    """Makes the model always predict one token."""

    def draw(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"].zero_()
        tensors["model.norm.weight"][0] = 1
        tensors["model.embed_tokens.weight"][:, 0] = 100
        tensors["lm_head.weight"].zero_()
        tensors["lm_head.weight"][token, 0] = 10

    change_weights(folder, draw)


# --------------------------------------------------------------------------------------------------- EOS


def test_a_config_with_another_eos_than_the_tokenizer(folder: Path, tmp_path: Path, capsys: Any) -> None:
    make_constant(folder, 2)
    change(folder / "config.json", eos_token_id=0)
    change(folder / "generation_config.json", eos_token_id=0, _from_model_config=True)
    model = load_causal_lm(folder)
    assert "config.json: eos_token_id 0 differs from the tokenizer's" in capsys.readouterr().out
    assert model.config.eos_token_id == model.generation_config.eos_token_id == 2
    for sampler in (LlamaSampler(model), GenerateSampler(model)):
        samples = sampler.sample([[1, 300]], max_new_tokens=5, temperature=0)
        assert (samples.answer_ids, samples.finished) == ([[2]], [True])
    chat = Chat(folder, None, 0.0, max_new_tokens=5, seed=0)
    assert "".join(chat.answer("what is red ?")) == ""
    save_model(model, load_tokenizer(folder), tmp_path / "saved")
    for kind in (AutoConfig, GenerationConfig):
        assert kind.from_pretrained(tmp_path / "saved").eos_token_id == 2


def test_further_eos_ids_of_the_generation_config_end_answers(folder: Path, tmp_path: Path) -> None:
    make_constant(folder, 305)
    change(folder / "generation_config.json", eos_token_id=[305, 2], _from_model_config=False)
    for place in (folder, tmp_path / "saved"):
        model = load_causal_lm(place)
        assert model.config.eos_token_id == model.generation_config.eos_token_id == [2, 305]
        assert LlamaSampler(model).sample([[1, 300]], 5, temperature=0).answer_ids == [[305]]
        if place == folder:
            save_model(model, load_tokenizer(folder), tmp_path / "saved")
    assert AutoConfig.from_pretrained(tmp_path / "saved").eos_token_id == [2, 305]
    assert new_reward_model(tmp_path / "saved", seed=0).config.eos_token_id == 2, "scores are read there"


# --------------------------------------------------------------------------------------------- pad, rows


def test_a_reserved_token_becomes_the_pad(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "llama3", llama3_tokenizer())
    change(folder / "config.json", pad_token_id=0)  # an ordinary token, which would get no gradient
    tokenizer, model = load_tokenizer(folder), load_causal_lm(folder)
    assert tokenizer.pad_token == RESERVED[0]
    assert model.config.pad_token_id == model.get_input_embeddings().padding_idx == tokenizer.pad_token_id
    assert model.config.vocab_size == len(tokenizer) == len(llama3_tokenizer())
    assert tokenizer_hash(tokenizer) == tokenizer_hash(llama3_tokenizer())


@pytest.mark.parametrize("tied", [False, True])
def test_a_new_token_becomes_the_pad_if_no_other_is_free(tmp_path: Path, capsys: Any, tied: bool) -> None:
    before = llama3_tokenizer(reserved=False)
    folder = save_tiny_model(tmp_path / f"bare{tied}", before, tie_word_embeddings=tied)
    tokenizer, model = load_tokenizer(folder), load_causal_lm(folder)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<pad>", len(before))
    assert f"no pad token; '<pad>' is added as row {len(before)}" in capsys.readouterr().out
    ids = torch.tensor([[5, 6, 7]])
    plain = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(model(input_ids=ids).logits[..., :-1], plain(input_ids=ids).logits)
    same = load_causal_lm(folder)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    save_model(model, tokenizer, tmp_path / "saved")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert (
        saved.config.vocab_size == len(AutoTokenizer.from_pretrained(tmp_path / "saved")) == len(before) + 1
    )
    assert saved.config.pad_token_id == saved.generation_config.pad_token_id == len(before)
    assert tokenizer_hash(load_tokenizer(tmp_path / "saved")) == tokenizer_hash(load_tokenizer(folder))


def test_tokens_without_an_embedding(folder: Path, tokenizer: Any) -> None:
    larger = load_tokenizer(folder)
    larger.add_tokens(["<one>", "<two>"])
    larger.save_pretrained(folder)
    rows = len(tokenizer)
    with pytest.raises(
        DataError, match=rf"{rows} rows: none for '<one>', '<two>'; .*resize_token_embeddings"
    ):
        load_causal_lm(folder)


# --------------------------------------------------------------------------- weights, config, other files


def test_tensors_that_the_model_does_not_have(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.bias"
    change_weights(folder, lambda tensors: tensors.update({name: torch.ones(32)}))
    for load in (load_causal_lm, lambda folder: new_reward_model(folder, seed=0)):
        with pytest.raises(DataError, match=rf"weights that a Llama\w+ with this config .* have: {name}"):
            load(folder)
    tied = save_tiny_model(tmp_path / "tied", tokenizer, tie_word_embeddings=True)
    save_model(new_reward_model(tied, seed=1), tokenizer, tmp_path / "reward")
    load_reward_model(tmp_path / "reward")
    with pytest.raises(DataError, match=r"LlamaForCausalLM with this config does not have: score\.weight"):
        load_causal_lm(tmp_path / "reward")


def test_a_vocabulary_size_that_differs_from_the_weights(folder: Path, tokenizer: Any) -> None:
    change(folder / "config.json", vocab_size=300)
    with pytest.raises(
        DataError, match=rf"model: the config .*expected vocab_size: {len(tokenizer)} instead"
    ):
        load_causal_lm(folder)
    change(folder / "config.json", vocab_size=len(tokenizer), intermediate_size=64)
    with pytest.raises(DataError, match=r"down_proj.weight has shape \[32, 48\] in the file, but \[32, 64\]"):
        load_causal_lm(folder)


def test_a_quantised_model(folder: Path) -> None:
    change(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    for load in (load_causal_lm, context_length):
        with pytest.raises(
            DataError, match=r"config\.json: quantization_config: .*\(gptq\).*; expected the orig"
        ):
            load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_git_lfs_pointers(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    for load in (load_causal_lm, load_tokenizer, context_length):
        with pytest.raises(DataError, match=rf"{name}: a git-lfs pointer .*; run `git lfs pull` in {folder}"):
            load(folder)


def test_a_missing_shard(folder: Path) -> None:
    load_causal_lm(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    load_causal_lm(folder)
    shard = min(folder.glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(
        DataError, match=rf"model: {shard.name} missing; expected all \d+ files that .*index\.json"
    ):
        load_causal_lm(folder)


def test_a_gguf_file_that_is_a_pointer(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text(POINTER)
    with pytest.raises(DataError, match=r"model\.gguf: a git-lfs pointer"):
        load_causal_lm(tmp_path / "model.gguf")


def test_rope_of_an_unknown_type(folder: Path) -> None:
    change(folder / "config.json", rope_parameters={"rope_type": "spiral", "rope_theta": 10000.0})
    with pytest.raises(
        DataError, match=r"config\.json: rope_parameters: unknown rope_type 'spiral'; expected"
    ):
        load_causal_lm(folder)
    change(folder / "config.json", rope_parameters={"rope_type": "linear", "rope_theta": 10000.0})
    with pytest.raises(DataError, match=r"config\.json: .*Missing required keys .*factor"):
        load_causal_lm(folder)


def test_a_config_that_ties_weights_that_differ_in_the_file(folder: Path, tmp_path: Path) -> None:
    change(folder / "config.json", tie_word_embeddings=True)
    model = load_causal_lm(folder)
    assert model.config.tie_word_embeddings is False
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_missing_and_wrong_values_in_a_config(folder: Path) -> None:
    change(folder / "config.json", max_position_embeddings="many")
    with pytest.raises(DataError, match=r"config\.json: .*max_position_embeddings"):
        load_causal_lm(folder)
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(
        DataError, match=r"config\.json: max_position_embeddings is missing; expected the model"
    ):
        context_length(folder)


# ---------------------------------------------------------------- files of the Hub that differ from ours


def test_a_generation_config_with_a_temperature_but_without_do_sample(folder: Path, tmp_path: Path) -> None:
    change(folder / "generation_config.json", temperature=0.6, top_p=0.9, _from_model_config=False)
    save_model(load_causal_lm(folder), load_tokenizer(folder), tmp_path / "saved")
    saved = GenerationConfig.from_pretrained(tmp_path / "saved")
    assert (saved.do_sample, saved.temperature, saved.top_p) == (True, 0.6, 0.9)


def test_a_derived_generation_config_to_which_an_eos_was_added(folder: Path) -> None:
    change(folder / "generation_config.json", eos_token_id=[305, 2], _from_model_config=True)
    assert load_causal_lm(folder).config.eos_token_id == [2, 305]


@pytest.mark.parametrize("text", ["{", "[]", '{"eos_token_id": "</s>"}', '{"eos_token_id": [2, null, "x"]}'])
def test_a_broken_generation_config(folder: Path, text: str) -> None:
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(DataError, match=r"generation_config\.json: "):
        load_causal_lm(folder)


def test_tensors_that_follow_from_the_config_are_ignored(folder: Path) -> None:
    names = ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.1.attn.masked_bias"]
    change_weights(folder, lambda tensors: tensors.update({name: torch.ones(4) for name in names}))
    load_causal_lm(folder)


def test_an_adapter_instead_of_a_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(
        DataError, match=r"contains a model and an adapter .*; expected a whole model without"
    ):
        load_causal_lm(folder)
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"contains an adapter without its model .*; expected a whole model"):
        load_causal_lm(folder)


def test_a_tokenizer_without_eos(folder: Path, capsys: Any) -> None:
    change(folder / "tokenizer_config.json", eos_token=None)
    assert load_causal_lm(folder).config.eos_token_id is None
    assert "config.json: eos_token_id 2 is not used: the tokenizer has no EOS" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_kernel_that_is_not_installed(folder: Path) -> None:
    change(folder / "config.json", attn_implementation="flash_attention_2")
    with pytest.raises(DataError, match=r"the model can't be read: FlashAttention"):
        load_causal_lm(folder)


def test_code_in_a_folder_is_never_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run it"))
    code = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    change(folder / "config.json", model_type="other", auto_map=code)
    with pytest.raises(DataError, match=r"config\.json: the model's config can't be read"):
        load_causal_lm(folder)


def test_an_empty_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(DataError, match="weight_map is empty"):
        load_causal_lm(folder)


def test_an_unknown_model_type(folder: Path) -> None:
    change(folder / "config.json", model_type="t5")
    with pytest.raises(DataError, match=r"Unrecognized configuration class.*AutoModelForCausalLM\.$"):
        load_causal_lm(folder)
