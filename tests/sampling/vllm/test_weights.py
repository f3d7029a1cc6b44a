"""The weights that servers get: whole, merged with adapters, by the names of transformers."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from llamita.model import sharded
from llamita.model.checkpoint import load_causal_lm, load_tokenizer
from llamita.model.frozen import load_partitioned, run_partitioned
from llamita.model.saving import save_model
from llamita.sampling.vllm import weights
from llamita.sampling.vllm.nccl import weight_source
from llamita.sampling.vllm.weights import (
    differ,
    difference,
    servable,
    weights_of,
    whole_weights,
    write_snapshot,
)

from ...helpers.tiny import save_tiny_model, tiny_model
from ...helpers.two_ranks import on_two_deepspeed_ranks

LAYERS = ["q_proj", "o_proj", "gate_proj", "embed_tokens"]


def adapted(model: LlamaForCausalLM, seed: int = 0) -> tuple[Any, dict[str, torch.Tensor]]:
    """The model with a random adapter in place, and the weights of the merged model."""
    torch.manual_seed(seed)
    expected = copy.deepcopy(model)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=LAYERS, init_lora_weights=False)
    with_adapter = get_peft_model(model, config)
    twin = get_peft_model(expected, config)
    twin.load_state_dict(with_adapter.state_dict())
    return with_adapter.base_model.model, twin.merge_and_unload().state_dict()


def check(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0)


def test_plain_weights() -> None:
    model = tiny_model(attention_bias=True)
    check(dict(whole_weights(model, torch.float32)), model.state_dict())
    tied = tiny_model(tie_word_embeddings=True)
    assert "lm_head.weight" not in dict(whole_weights(tied, torch.float32))
    assert {tensor.dtype for _, tensor in whole_weights(model, torch.bfloat16)} == {torch.bfloat16}


def test_adapters_are_merged() -> None:
    model = tiny_model(attention_bias=True)
    plain = copy.deepcopy(model.state_dict())
    model, expected = adapted(model)
    check(dict(whole_weights(model, torch.float32)), expected)
    changed = [name for name, tensor in expected.items() if not torch.equal(tensor, plain[name])]
    assert len(changed) == 1 + 3 * 2, "the adapters of two layers and of the embeddings"


def test_partitioned_weights_are_gathered(tmp_path: Path, tokenizer: Any) -> None:
    source = save_tiny_model(tmp_path / "source", tokenizer)
    expected = load_causal_lm(source).state_dict()

    def write() -> bool:
        config = load_causal_lm(source).config
        model = load_partitioned(lambda: sharded.build(LlamaForCausalLM, config), bf16=False)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                with sharded.whole(parameter, changed=True) as mine:
                    if mine:
                        parameter.copy_(expected[name])
        run_partitioned(model, bf16=False)
        failure = write_snapshot(model, source, tmp_path / "written", dtype=torch.float32)
        return failure is None and all(map(sharded.is_partitioned, model.parameters()))

    assert on_two_deepspeed_ranks(write, tmp_path) == [True, True]
    check(load_causal_lm(tmp_path / "written").state_dict(), expected)


def test_a_snapshot_is_a_model_folder(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save_tiny_model(tmp_path / "source", tokenizer)
    model = load_causal_lm(source)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    monkeypatch.setattr(weights, "FILE_SIZE", 8_000)
    (source / "original").mkdir()
    (source / "original" / "consolidated.00.pth").touch()
    assert write_snapshot(model, source, tmp_path / "new", dtype=torch.float32) is None
    assert len(list((tmp_path / "new").glob("*.safetensors"))) > 3
    assert not list((tmp_path / "new").rglob("*.pth")), "no other copies of the weights"
    check(load_causal_lm(tmp_path / "new").state_dict(), model.state_dict())
    assert load_tokenizer(tmp_path / "new").get_vocab() == load_tokenizer(source).get_vocab()


def test_a_snapshot_that_cannot_be_written(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All weights are gathered nevertheless: other ranks wait for it."""
    source = save_tiny_model(tmp_path / "source", tokenizer)
    model, gathered = load_causal_lm(source), []

    def counted(*arguments: Any) -> Any:
        for name, tensor in whole_weights(*arguments):
            gathered.append(name)
            yield name, tensor

    monkeypatch.setattr(weights, "whole_weights", counted)
    (tmp_path / "file").touch()
    failure = write_snapshot(model, source, tmp_path / "file" / "new", dtype=torch.float32)
    assert isinstance(failure, OSError)
    assert len(gathered) == len(list(model.parameters()))


def test_an_index_that_cannot_be_written(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that rank 0 raised at once would leave the other ranks waiting."""
    source = save_tiny_model(tmp_path / "source", tokenizer)

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(weights, "write_json", full)
    failure = write_snapshot(load_causal_lm(source), source, tmp_path / "new", dtype=torch.float32)
    assert str(failure) == "disk full"


def test_folders_that_differ(tmp_path: Path, tokenizer: Any) -> None:
    source = save_tiny_model(tmp_path / "source", tokenizer)
    model = load_causal_lm(source)
    save_model(model, load_tokenizer(source), tmp_path / "same")
    assert not differ(tmp_path / "same", source, torch.float32)
    with torch.no_grad():
        model.lm_head.weight.add_(1e-6)
    save_model(model, load_tokenizer(source), tmp_path / "other")
    assert differ(tmp_path / "other", source, torch.float32)
    assert not differ(tmp_path / "other", source, torch.bfloat16), "too small a change for bf16"
    assert difference(tmp_path / "other", source) is None
    assert difference(save_tiny_model(tmp_path / "wide", tokenizer, intermediate_size=64), source)


def test_folders_that_a_server_can_load(tmp_path: Path, tokenizer: Any) -> None:
    """A stage's folder is served from its `model/`; one with an adapter alone is merged first."""
    model = save_tiny_model(tmp_path / "stage" / "model", tokenizer)
    assert servable(tmp_path / "stage", tmp_path / "copy", "float32") == model
    assert servable(model, tmp_path / "copy", "float32") == model
    assert not (tmp_path / "copy").exists()


class ParamMeta(NamedTuple):
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


def test_the_source_for_nccl_against_a_fake_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """What vLLM requires: metadata and iteration agree element for element."""
    names = ["vllm", "vllm.distributed", "vllm.distributed.weight_transfer"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    base = SimpleNamespace(ParamMeta=ParamMeta, WeightSource=object)
    monkeypatch.setitem(sys.modules, f"{names[-1]}.base", base)
    model, expected = adapted(tiny_model())
    source = weight_source(model, torch.bfloat16)
    for _ in range(2):  # once per iteration of PPO
        sent = list(source)
        assert [(meta.name, meta.dtype, meta.shape) for meta in source.metadata()] == [
            (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sent
        ]
    assert {name for name, _ in sent} == expected.keys()
    assert [weight.name for weight in weights_of(model)] == [name for name, _ in sent]
