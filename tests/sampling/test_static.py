"""The step of constant shape equals the plain one, on a GPU also when CUDA replays it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llamita.sampling import dialogues, llama, static
from llamita.sampling.cache import Room
from llamita.sampling.decoder import Decoder
from llamita.sampling.dialogues import DialogueSampler
from llamita.sampling.static import StaticDecoder, new_decoder
from llamita.sampling.weights import copy_weights

from ..helpers.questions import QUESTIONS
from ..helpers.tiny import ragged_prompts, tiny_model

on_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_gpu)])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "SLOTS", 16)


@devices
@pytest.mark.parametrize("equal_lengths", [False, True])
@pytest.mark.parametrize("new_tokens", [50, 3])
def test_every_logit_is_that_of_the_plain_step(device: str, equal_lengths: bool, new_tokens: int) -> None:
    """Over several blocks of slots, the last one incomplete, and after rows are dropped within a block."""
    weights = copy_weights(tiny_model().to(device))
    prompts = [[1, 5, 9, 7], [1, 8, 8, 3]] if equal_lengths else ragged_prompts(5)
    copies = [0, 0, 1] if equal_lengths else [0, 0, 1, 2, 3, 4, 4]
    new = torch.randint(3, 29, (len(copies), new_tokens), generator=torch.Generator().manual_seed(0))
    new = new.to(device)
    room = Room(len(copies), len(prompts), max(map(len, prompts)), new_tokens)
    plain, fixed = Decoder(weights, room), StaticDecoder(weights, room)
    assert torch.equal(*(decoder.add(prompts, copies) for decoder in (plain, fixed)))
    for step in range(new_tokens):
        if step in (9, 10, 30):
            kept = torch.arange(len(new), device=device)[1:]
            plain.keep(kept)
            fixed.keep(kept)
            new = new[kept]
        if len(new) == 0:
            return
        expected, found = (decoder.step(new[:, step]) for decoder in (plain, fixed))
        torch.testing.assert_close(found, expected, atol=5e-6, rtol=0)


@devices
@pytest.mark.parametrize("temperature", [1.0, 0])
def test_samplers_give_the_same_answers(
    device: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(vocab_size=40, max_position_embeddings=512).to(device)
    chosen = DialogueSampler(model)
    how: dict[str, Any] = {"temperature": temperature, "seed": "s"}
    expected = chosen.sample(ragged_prompts(17), 40, 3, **how)
    turns = chosen.sample_dialogues(QUESTIONS, 20, 512, **how)
    for module in (llama, dialogues):
        monkeypatch.setattr(module, "new_decoder", StaticDecoder)
    found = chosen.sample(ragged_prompts(17), 40, 3, **how)
    assert found.answer_ids == expected.answer_ids
    assert found.finished == expected.finished
    for mine, theirs in zip(found.logprobs, expected.logprobs, strict=True):
        assert mine == pytest.approx(theirs, abs=5e-6)
    assert chosen.sample_dialogues(QUESTIONS, 20, 512, **how) == turns
    assert list(chosen.stream([1, 5], 30, **how)) == chosen.sample([[1, 5]], 30, **how).answer_ids[0]


def test_a_block_of_steps_has_the_same_shapes_and_addresses() -> None:
    """What a graph needs to be replayed: its step reads and writes the same memory each time."""
    decoder = StaticDecoder(copy_weights(tiny_model()), Room(3, 3, 12, 40))
    decoder.add(ragged_prompts(3), [0, 1, 2])
    cache, tokens = decoder._cache, torch.tensor([5, 6, 7])
    states = []
    for _ in range(40):
        decoder.step(tokens)
        tensors = (cache.keys, cache.values, cache.mask, decoder._positions, decoder._slot)
        states.append((decoder._attended, *((part.data_ptr(), part.shape) for part in tensors)))
    assert len(set(states)) == len({state[0] for state in states}) == 3
    assert {state[0] for state in states} == {16, 32, 40}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_graph_is_captured_once_per_block(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = []
    real = static._Graph.__init__

    def counted(self: Any, *values: Any) -> None:
        captured.append(1)
        real(self, *values)

    monkeypatch.setattr(static._Graph, "__init__", counted)
    decoder = StaticDecoder(copy_weights(tiny_model().cuda()), Room(3, 1, 4, 48))
    decoder.add([[1, 5, 9, 7]], [0, 0, 0])
    for _ in range(48):
        decoder.step(torch.tensor([5, 6, 7], device="cuda"))
    assert len(captured) == 3


def test_without_a_gpu_samplers_use_the_plain_step(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = copy_weights(tiny_model())
    monkeypatch.setattr(static, "CUDA_GRAPHS", True)
    assert type(new_decoder(weights, Room(1, 1, 1, 1))) is Decoder
