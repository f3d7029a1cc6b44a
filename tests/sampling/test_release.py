"""A sampler that is released or refreshed keeps nothing of its copy of the weights."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from llamita.sampling import llama as sampler_module
from llamita.sampling.dialogues import DialogueSampler
from llamita.sampling.generate import GenerateSampler
from llamita.sampling.weights import LlamaWeights, copy_weights

from ..helpers.questions import QUESTIONS
from ..helpers.tiny import ragged_prompts, tiny_model


@pytest.fixture(autouse=True)
def without_collections() -> Iterator[None]:
    """Nothing may wait for the garbage collector: on a GPU the memory is needed at once."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def storages(thing: Any) -> Iterator[weakref.ref[Any]]:
    """Weak references to the storages of all tensors of a copy."""
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, torch.Tensor):
                yield weakref.ref(part)
            elif dataclasses.is_dataclass(part):
                yield from storages(part)


def alive(references: list[weakref.ref[Any]]) -> int:
    return sum(reference() is not None for reference in references)


def test_release_frees_the_copy_and_refresh_makes_another() -> None:
    model = tiny_model(vocab_size=40)
    sampler = DialogueSampler(model)
    held = list(storages(sampler._weights))
    before = sampler.sample(ragged_prompts(5), 12, seed=1)
    dialogues = sampler.sample_dialogues(QUESTIONS, 5, 128, seed=1)
    list(sampler.stream([1, 5], 8))
    assert alive(held) == len(held) > 10
    sampler.release()
    assert alive(held) == 0
    sampler.release()
    with pytest.raises(RuntimeError, match="released"):
        sampler.sample([[1, 5]], 8)
    sampler.sync(model)
    assert sampler.sample(ragged_prompts(5), 12, seed=1) == before
    assert sampler.sample_dialogues(QUESTIONS, 5, 128, seed=1) == dialogues


def test_refresh_frees_the_old_copy_before_it_makes_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    sampler = DialogueSampler(model)
    sampler.sample(ragged_prompts(5), 12)
    held, during = list(storages(sampler._weights)), []

    def copy(model: LlamaForCausalLM, dtype: torch.dtype | None) -> LlamaWeights:
        during.append(alive(held))
        return copy_weights(model, dtype)

    monkeypatch.setattr(sampler_module, "copy_weights", copy)
    sampler.sync(model)
    assert during == [0]


def test_the_sampler_of_generate_forgets_its_model() -> None:
    model = tiny_model()
    reference = weakref.ref(model)
    sampler = GenerateSampler(model)
    sampler.sample(ragged_prompts(3), 5)
    del model
    assert reference() is not None
    sampler.release()
    gc.collect()  # modules of transformers refer to each other in circles
    assert reference() is None
    other = tiny_model()
    sampler.sync(other)
    assert len(sampler.sample(ragged_prompts(3), 5)) == 3
