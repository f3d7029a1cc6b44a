"""Saved models: complete, readable by plain transformers, and errors for missing parts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from llamita.errors import DataError
from llamita.model.checkpoint import (
    load_causal_lm,
    load_reward_model,
    load_tokenizer,
    new_reward_model,
    tokenizer_hash,
)
from llamita.model.saving import save_model
from llamita.model.sizes import ModelSize

SIZE = ModelSize(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pretrain")
    config = SIZE.llama_config(len(tokenizer))
    config.pad_token_id = None  # saving writes the tokenizer's
    save_model(LlamaForCausalLM(config), tokenizer, folder / "model")
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder / "model", tmp_path / "copy"))


def test_language_model(folder: Path) -> None:
    model = load_causal_lm(folder)  # an artifact
    same = load_causal_lm(folder / "model")  # the plain folder
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert model.dtype == torch.float32
    assert model.config._attn_implementation == "sdpa"
    assert load_causal_lm(folder, "bfloat16").dtype == torch.bfloat16
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / "model" / name).read_text())
        assert [config[f"{token}_token_id"] for token in ("pad", "bos", "eos")] == [0, 1, 2]
    assert list((folder / "model").glob("*.safetensors"))


def test_reward_model_keeps_its_head(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    started = new_reward_model(folder, seed=1)
    assert torch.equal(started.score.weight, new_reward_model(folder, seed=1).score.weight)
    assert not torch.equal(started.score.weight, new_reward_model(folder, seed=2).score.weight)
    assert torch.equal(
        started.model.layers[1].mlp.up_proj.weight, load_causal_lm(folder).model.layers[1].mlp.up_proj.weight
    )
    assert started.score.bias is None
    save_model(started, tokenizer, tmp_path / "reward" / "model")
    loaded = load_reward_model(tmp_path / "reward")
    ids = torch.tensor([[1, 300, 301, 2, 0, 0]])
    assert torch.equal(loaded(input_ids=ids).logits, started.eval()(input_ids=ids).logits)
    assert loaded.config.pad_token_id == 0


def test_a_model_of_the_other_kind_raises_an_error(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no weights for score.weight"):
        load_reward_model(folder)
    save_model(new_reward_model(folder, seed=1), tokenizer, tmp_path / "reward")
    with pytest.raises(DataError, match=r"no weights for lm_head.weight"):
        load_causal_lm(tmp_path / "reward")


def test_errors_name_missing_files(copy: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_causal_lm(copy / "nothing")
    (copy / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer.json does not exist; expected a model folder with its"):
        load_tokenizer(copy)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"model.safetensors does not exist"):
        load_causal_lm(copy)
    (copy / "config.json").unlink()
    with pytest.raises(DataError, match=r"config.json does not exist"):
        load_causal_lm(copy)


def test_broken_files(copy: Path) -> None:
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(DataError, match="the model can't be read"):
        load_causal_lm(copy)
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="the tokenizer can't be read"):
        load_tokenizer(copy)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_errors_name_broken_json_files(copy: Path, name: str) -> None:
    (copy / name).write_text('{\n"a": ' + "9" * 5000 + "}")
    with pytest.raises(DataError, match=rf"{name}: .*line 2: a whole number of 5,000 digits"):
        load_tokenizer(copy)
    with pytest.raises(DataError, match=rf"{name}: .*line 2: a whole number of 5,000 digits"):
        load_causal_lm(copy)


def test_tokenizer_hash(tokenizer: Any, folder: Path) -> None:
    from llamita.tokenizer.bpe import train_bpe

    loaded = load_tokenizer(folder)
    assert tokenizer_hash(loaded) == tokenizer_hash(tokenizer)
    loaded(["a", "b c"], padding=True, truncation=True, max_length=4)  # changes the backend's state
    assert tokenizer_hash(loaded) == tokenizer_hash(tokenizer)
    assert tokenizer_hash(train_bpe(["another text"], 320)) != tokenizer_hash(tokenizer)


def test_plain_transformers_reads_it(folder: Path) -> None:
    """In a process that can't import llamita: chat template, generate, decode."""
    code = f"""
import sys
sys.modules["llamita"] = None
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder = {str(folder / "model")!r}
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
messages = [{{"role": "system", "content": "be brief"}}, {{"role": "user", "content": "what is red ?"}}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
torch.manual_seed(0)
answer = model.generate(**inputs, max_new_tokens=5, do_sample=True)
print(tokenizer.decode(inputs["input_ids"][0]))
print(answer.shape[1] - inputs["input_ids"].shape[1] <= 5)
batch = tokenizer(["hi", "what is red ?"], padding=True, return_tensors="pt")
print(batch["input_ids"][0, 0].item(), model(**batch).logits.shape[0])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "<s> [INST] <<SYS>>\nbe brief\n<</SYS>>\n\nwhat is red ? [/INST]\nTrue\n0 2\n"
