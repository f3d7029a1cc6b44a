"""Sampler, cache and waiting models against the tensors of the real sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from llamita.batches import tokens_at_once
from llamita.memory import sampling as accounting
from llamita.memory.sampling import Batch, cache, sampler, sampling
from llamita.memory.shape import Shape
from llamita.rlhf.rejection.settings import RejectionSettings
from llamita.sampling import llama
from llamita.sampling.cache import Room
from llamita.sampling.decoder import Decoder
from llamita.sampling.weights import copy_weights

from ..helpers.paper_shapes import PAPER
from ..helpers.tiny import tiny_model

LONGEST, NEW = 9, 5


def tensors(thing: Any) -> Iterator[torch.Tensor]:
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, torch.Tensor):
                yield part
            elif dataclasses.is_dataclass(part):
                yield from tensors(part)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
def test_sampler_and_cache_are_those_of_the_decoder(dtype: torch.dtype, tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    shape = Shape.from_config(model.config.to_dict())
    weights = copy_weights(model, dtype)
    frequencies = weights.rotary_frequencies.nbytes
    held = sum({part.untyped_storage().data_ptr(): part.nbytes for part in tensors(weights)}.values())
    assert held - frequencies == sampler(shape, dtype.itemsize)

    decoder = Decoder(weights, Room(5, 2, LONGEST, NEW))
    decoder.add([[1] * LONGEST, [1, 4]], [0, 0, 0, 1, 1])
    batch, keys = Batch(5, LONGEST, NEW, 2), decoder._cache.keys
    before = keys, decoder._cache.values, decoder._cache.prompt_keys, decoder._cache.prompt_values
    assert sum(part.nbytes for part in before) == cache(shape, dtype.itemsize, batch)
    moved = keys[0, :4].nbytes  # a copy of one layer's keys of the rows that remain
    assert sum(part.nbytes for part in before) + moved == sampling(shape, dtype.itemsize, batch)["cache"]
    decoder.keep(torch.arange(4))
    assert decoder._cache.keys is keys


def test_sizes_are_those_of_the_code() -> None:
    assert pytest.approx(1 - llama.FINISHED_SHARE) == accounting.REMAINING
    assert llama.PROMPT_ROOM == accounting.PROMPT_ROOM
    assert tokens_at_once(torch.device("cuda")) == accounting.passes.SCORED_AT_ONCE


@pytest.mark.parametrize("per_prompt", [1, 2, 10])
@pytest.mark.parametrize("tokens", [1, 5000, 10**6])
def test_a_batch_has_the_room_that_the_sampler_makes(per_prompt: int, tokens: int) -> None:
    settings = RejectionSettings.model_construct(
        max_new_tokens=100, max_prompt_length=300, sampling_cache_tokens=tokens
    )
    batch = Batch.of(settings, {}, 30, per_prompt)
    room = llama.room_of([300] * 30 * per_prompt, 30, 100, tokens)
    assert (batch.rows, batch.prompts) == (room.rows, room.prompts)


def test_a_cache_of_the_paper() -> None:
    """Llama 2 70B shares keys among 8 query heads: 320 KiB a token in bf16; 7B takes 512 KiB."""
    for name, size in (("7B", 512), ("70B", 320)):
        assert cache(Shape.from_config(PAPER[name]), 2, Batch(1, 1, 0, 1)) == size * 1024
