"""Sampler, cache and waiting models against the tensors of the real sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from llamita.batches import tokens_at_once
from llamita.memory import sampling as accounting
from llamita.memory.account import account
from llamita.memory.sampling import Batch, cache, rejection, sampler, sampling, scoring
from llamita.memory.shape import Shape
from llamita.rlhf.rejection.settings import RejectionSettings
from llamita.sampling import sampler as sampling_sampler
from llamita.sampling.decoder import Decoder
from llamita.sampling.weights import copy_weights

from ..helpers.paper_shapes import PAPER
from ..helpers.repository import zero_file
from ..helpers.tiny import tiny_model

LONGEST, NEW, GB = 9, 5, 10**9


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

    decoder = Decoder(weights)
    decoder.prefill([[1] * LONGEST, [1, 4]], torch.tensor([0, 0, 0, 1, 1]), NEW)
    batch = Batch(5, LONGEST, NEW)
    before = decoder._keys, decoder._values
    assert sum(part.nbytes for part in before) == cache(shape, dtype.itemsize, batch)
    moved = decoder._keys[0, :4].nbytes  # a copy of one layer's keys of the rows that remain
    assert sum(part.nbytes for part in before) + moved == sampling(shape, dtype.itemsize, batch)["cache"]
    decoder.keep(torch.arange(4))
    for part, whole in zip((decoder._keys, decoder._values), before, strict=True):
        assert part.data_ptr() == whole.data_ptr()


def test_sizes_are_those_of_the_code() -> None:
    assert pytest.approx(1 - sampling_sampler.FINISHED_SHARE) == accounting.REMAINING
    assert tokens_at_once(torch.device("cuda")) == accounting.passes.SCORED_AT_ONCE


def test_a_cache_of_the_paper() -> None:
    """Llama 2 70B shares keys among 8 query heads: 320 KiB a token in bf16; 7B takes 512 KiB."""
    for name, size in (("7B", 512), ("70B", 320)):
        assert cache(Shape.from_config(PAPER[name]), 2, Batch(1, 1, 0)) == size * 1024


def settings(**values: Any) -> RejectionSettings:
    chosen: dict[str, Any] = {"prompts_per_round": 64, "num_generations": 10, "max_new_tokens": 1024}
    return RejectionSettings.model_construct(**chosen | {"dtype": "bfloat16", "trainer": {}} | values)


def test_rejection_samples_scores_and_trains() -> None:
    config = PAPER["7B"] | {"max_position_embeddings": 4096}
    chosen = settings(deepspeed=zero_file(2), sampling_cache_tokens=10**6)
    found = rejection(chosen, config, 8)
    assert list(found) == ["sampling", "scoring", "training"]
    shape = Shape.from_config(config)
    assert found["sampling"].gpu == sampling(shape, 2, Batch(80, 3072, 1024))  # 8 prompts, 10 answers each
    assert found["training"] == account(chosen, config, 8)
    less = rejection(settings(sampling_cache_tokens=16 * 2048, max_prompt_length=1024), config, 8)
    assert less["sampling"].gpu == sampling(shape, 2, Batch(16, 1024, 1024))


def test_reward_models_wait_in_fp32_for_their_turn() -> None:
    shape = Shape.from_config(PAPER["7B"], scores=True)
    two, three = (scoring(shape, models, 4096, bf16=True) for models in (2, 3))
    assert two["weights"] == two["idle"] == 4 * shape.parameters
    assert three["idle"] == 2 * two["idle"]
    assert (
        rejection(settings(), PAPER["7B"] | {"max_position_embeddings": 4096}, 8, judge=True)["scoring"].gpu
        == three
    )
