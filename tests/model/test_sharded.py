"""Building, loading and saving models under ZeRO-3: what a rank holds, and that the result is the same."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

from llamita.distributed import group
from llamita.errors import DataError
from llamita.model import saving, sharded
from llamita.model.checkpoint import load_causal_lm, load_tokenizer, new_reward_model
from llamita.model.initial_weights import new_causal_lm
from llamita.processes import ACTIVITY
from llamita.training.arguments import training_arguments

from ..helpers.held_elements import HeldElements
from ..helpers.llama3 import llama3_tokenizer
from ..helpers.repository import zero_file
from ..helpers.tiny import save_tiny_model, tiny_model
from ..helpers.two_ranks import on_two_deepspeed_ranks

Weights = dict[str, torch.Tensor]


def under_zero_3(work: Callable[[], Any], folder: Path) -> list[Any]:
    """What `work` returns on two ranks while training arguments with ZeRO-3 exist."""

    def on_a_rank() -> Any:
        arguments = training_arguments(TrainingArguments, {}, folder, seed=0, deepspeed=zero_file(3))
        assert sharded.is_active()
        assert arguments.world_size == 2
        return work()

    return on_two_deepspeed_ranks(on_a_rank, folder)


def gathered(model: Any) -> Weights:
    """The whole weights of a partitioned model, by name."""
    weights = {}
    for name, parameter in model.named_parameters():
        assert sharded.is_partitioned(parameter)
        with sharded.whole(parameter):
            weights[name] = parameter.detach().clone()
    return weights


def own_elements(model: Any) -> int:
    return sum(parameter.ds_tensor.numel() for parameter in model.parameters())


def held_while(build: Callable[[], Any]) -> tuple[dict[str, int], Weights]:
    with HeldElements() as held:
        model = build()
        gc.collect()  # a cycle of DeepSpeed's may keep a gathered weight until then
        kept = held.now
    sizes = [torch.Size(sharded.shape_of(weight)).numel() for weight in model.parameters()]
    counts = {"all": sum(sizes), "largest": max(sizes), "own": own_elements(model)}
    return counts | {"kept": kept, "most": held.most}, gathered(model)


def assert_same(found: Weights, expected: Any) -> None:
    expected = dict(expected.named_parameters())
    assert found.keys() == expected.keys()
    for name in found:
        assert torch.equal(found[name], expected[name]), name


def test_no_rank_holds_a_whole_model(tmp_path: Path, tokenizer: Any) -> None:
    """Neither of new weights nor of loaded ones, at any time: its half, and a few whole parameters."""
    config = tiny_model(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=12).config
    expected = new_causal_lm(config, seed=3)
    path = save_tiny_model(tmp_path / "model", tokenizer, hidden_size=64, num_hidden_layers=12)
    loaded = load_causal_lm(path)
    reward_model = new_reward_model(path, seed=5)

    def work() -> list[tuple[dict[str, int], Weights]]:
        builds = (
            lambda: new_causal_lm(config, seed=3),
            lambda: load_causal_lm(path),
            lambda: new_reward_model(path, seed=5),
        )
        found = [held_while(build) for build in builds]
        model = load_causal_lm(path)
        with HeldElements() as held, pytest.MonkeyPatch.context() as patch:
            patch.setattr(saving, "FILE_SIZE", 100_000)
            saving.save_partitioned(model, tokenizer, tmp_path / "saved")
        assert held.most < 4 * found[1][0]["largest"]  # of one file, and of one parameter
        return found

    for answers in under_zero_3(work, tmp_path):
        for (counts, weights), whole in zip(answers, (expected, loaded, reward_model), strict=True):
            assert_same(weights, whole)
            assert counts["all"] == sum(weight.numel() for weight in whole.parameters())
            few = 3 * counts["largest"]
            assert 2 * few < counts["all"], "the model is so large that a whole copy is noticed"
            assert counts["own"] == pytest.approx(counts["all"] / 2, abs=len(weights))
            assert counts["kept"] == pytest.approx(counts["own"], rel=0.05)
            assert counts["most"] < counts["own"] + few, counts
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 5
    assert_same(dict(load_causal_lm(tmp_path / "saved").named_parameters()), loaded)


def test_ranks_advance_together_parameter_by_parameter(tmp_path: Path, tokenizer: Any) -> None:
    """A rank that waits while rank 0 reads or writes for hours is not hung, and enqueues nothing ahead."""
    path = save_tiny_model(tmp_path / "model", tokenizer)
    config = load_causal_lm(path).config

    def work() -> tuple[int, list[tuple[int, int]]]:
        model = new_causal_lm(config, seed=0)
        stored = sharded.stored_tensors([path / "model.safetensors"])
        found, stream = [], Mock()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "is_initialized", lambda: True)
            patch.setattr(torch.cuda, "current_stream", lambda: stream)
            for turn in (
                lambda: new_causal_lm(config, seed=0),
                lambda: sharded.fill(model, stored),
                lambda: saving.save_partitioned(model, tokenizer, tmp_path / "saved"),
            ):
                before = ACTIVITY.progress, stream.synchronize.call_count
                turn()
                found.append((ACTIVITY.progress - before[0], stream.synchronize.call_count - before[1]))
        return len(list(model.parameters())), found

    for parameters, found in under_zero_3(work, tmp_path):
        assert found == [(parameters, parameters)] * 3


def test_a_file_that_rank_0_cannot_write_leaves_no_rank_behind(tmp_path: Path, tokenizer: Any) -> None:
    path = save_tiny_model(tmp_path / "model", tokenizer)

    def work() -> str:
        model = load_causal_lm(path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(saving, "FILE_SIZE", 100_000)
            patch.setattr("safetensors.torch.save_file", Mock(side_effect=OSError("the disk is full")))
            try:
                saving.write_weights(dict(model.named_parameters()), tmp_path / "saved")
                error = ""
            except OSError as found:
                error = str(found)
        return error + str(group.gather_rows([1]))  # fails if the ranks are at different collectives

    assert under_zero_3(work, tmp_path) == ["the disk is full[1, 1]", "[1, 1]"]


def test_initial_weights() -> None:
    """Named draws: N(0, initializer_range) for matrices, 1 for norms, 0 for the pad, all by the seed."""
    config = tiny_model(vocab_size=400, hidden_size=64, initializer_range=0.1).config
    one, same, other = (dict(new_causal_lm(config, seed).named_parameters()) for seed in (1, 1, 2))
    for name, weight in one.items():
        assert torch.equal(weight, same[name])
        if weight.ndim == 1:
            assert (weight == 1).all()
            continue
        assert not torch.equal(weight, other[name])
        rows = weight[1:] if name == "model.embed_tokens.weight" else weight
        assert float(rows.detach().std()) == pytest.approx(0.1, rel=0.05)
        assert abs(float(rows.detach().mean())) < 0.01
    assert (one["model.embed_tokens.weight"][0] == 0).all()
    layers = [one[f"model.layers.{number}.mlp.up_proj.weight"] for number in (0, 1)]
    assert not torch.equal(*layers)


@pytest.mark.parametrize("tied", [False, True])
def test_a_pad_row_and_tied_weights(tmp_path: Path, tied: bool) -> None:
    path = save_tiny_model(tmp_path / "bare", llama3_tokenizer(reserved=False), tie_word_embeddings=tied)
    expected = load_causal_lm(path)

    def work() -> tuple[Weights, Any]:
        model = load_causal_lm(path)
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
        saving.save_partitioned(model, load_tokenizer(path), tmp_path / "saved")
        return gathered(model), model.config.to_dict()

    for weights, config in under_zero_3(work, tmp_path):
        assert_same(weights, expected)
        assert config == expected.config.to_dict()
    again = load_causal_lm(tmp_path / "saved")
    assert_same(dict(again.named_parameters()), expected)
    assert again.config.to_dict() == load_causal_lm(tmp_path / "saved").config.to_dict()


def change(folder: Path, name: str, **values: Any) -> None:
    (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | values))


def test_an_output_layer_that_differs_though_the_config_ties_it(tmp_path: Path, tokenizer: Any) -> None:
    path = save_tiny_model(tmp_path / "model", tokenizer, tie_word_embeddings=False)
    change(path, "config.json", tie_word_embeddings=True)
    change(path, "generation_config.json", eos_token_id=[305, 2], _from_model_config=False)
    expected = load_causal_lm(path)

    def work() -> tuple[Weights, bool, Any]:
        model = load_causal_lm(path)
        return gathered(model), model.config.tie_word_embeddings, model.generation_config.eos_token_id

    for weights, ties, eos in under_zero_3(work, tmp_path):
        assert_same(weights, expected)
        assert not ties
        assert eos == [2, 305]


def test_broken_folders_give_the_same_errors(tmp_path: Path, tokenizer: Any) -> None:
    folders = []
    for name in ("missing", "unexpected", "shape", "vocabulary", "tokens"):
        path = save_tiny_model(tmp_path / name, tokenizer, tie_word_embeddings=False)
        tensors = load_file(path / "model.safetensors")
        if name == "missing":
            del tensors["model.norm.weight"]
        elif name == "unexpected":
            tensors["model.layers.0.self_attn.q_proj.bias"] = torch.ones(32)
        elif name == "shape":
            change(path, "config.json", intermediate_size=64)
        elif name == "vocabulary":
            change(path, "config.json", vocab_size=300)
        else:
            larger = load_tokenizer(path)
            larger.add_tokens(["<one>", "<two>"])
            larger.save_pretrained(path)
        tensors |= {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}  # is ignored
        save_file(tensors, path / "model.safetensors", {"format": "pt"})
        folders.append(path)

    def messages() -> list[str]:
        found = []
        for path in folders:
            for load in (load_causal_lm, lambda folder: new_reward_model(folder, seed=0)):
                with pytest.raises(DataError) as caught:
                    load(path)
                found.append(str(caught.value))
        return found

    expected = messages()
    assert len(set(expected)) == 8, "two name the class"
    for found in under_zero_3(messages, tmp_path):
        assert found == expected
