"""Sampling through `generate` gives the answers and log-probabilities of the fast sampler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Qwen2Config, Qwen2ForCausalLM

from llamita.sampling.dialogues import DialogueSampler
from llamita.sampling.engines import local_sampler
from llamita.sampling.generate import GenerateSampler
from llamita.sampling.logprobs import answer_logprobs

from ..helpers.architectures import tiny_architecture
from ..helpers.questions import QUESTIONS
from ..helpers.tiny import EOS, ragged_prompts, tiny_model

SHAPE = {"vocab_size": 29, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS, "initializer_range": 0.2}


@pytest.mark.parametrize(("cache_tokens", "temperature"), [(60, 1.0), (10**4, 0.7), (10**4, 0)])
def test_both_samplers_give_the_same_answers(cache_tokens: int, temperature: float) -> None:
    model, prompts = tiny_model(), ragged_prompts(17)
    arguments = {"max_new_tokens": 12, "num_generations": 3, "temperature": temperature, "seed": 5}
    fast = DialogueSampler(model).sample(prompts, **arguments)
    slow = GenerateSampler(model, cache_tokens).sample(prompts, **arguments)
    assert slow.answer_ids == fast.answer_ids
    assert (slow.prompts, slow.finished) == (fast.prompts, fast.finished)
    for mine, theirs in zip(slow.logprobs, fast.logprobs, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    keys = list(range(9, 17))
    part = GenerateSampler(model).sample(prompts[9:], 12, 3, temperature=temperature, seed=5, keys=keys)
    assert part.answer_ids == fast.answer_ids[27:]


@pytest.mark.parametrize("context", [512, 40])
def test_both_samplers_give_the_same_dialogues(context: int) -> None:
    model = tiny_model(vocab_size=40, max_position_embeddings=512)
    fast = DialogueSampler(model).sample_dialogues(QUESTIONS, 6, context, seed="s")
    assert GenerateSampler(model).sample_dialogues(QUESTIONS, 6, context, seed="s") == fast


def test_a_stream_equals_sample_and_can_be_closed_early() -> None:
    sampler, prompt = GenerateSampler(tiny_model()), ragged_prompts(1)[0]
    assert list(sampler.stream(prompt, 12, seed=3)) == sampler.sample([prompt], 12, seed=3).answer_ids[0]
    stream = sampler.stream(prompt, 12, seed=3)
    next(stream)
    stream.close()


def test_an_error_ends_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty answer would look like one of the model."""
    sampler = GenerateSampler(tiny_model())

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(sampler, "_generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(sampler.stream([1, 5], 4))


def test_the_models_generation_config_is_ignored() -> None:
    model, prompts = tiny_model(), ragged_prompts(5)
    expected = GenerateSampler(model).sample(prompts, 12, temperature=0)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.min_new_tokens = 12
    found = GenerateSampler(model).sample(prompts, 12, temperature=0)
    assert found == expected
    assert model.generation_config.repetition_penalty == 5.0


@pytest.mark.parametrize("sampler", [DialogueSampler, GenerateSampler])
def test_half_precision(sampler: type[DialogueSampler | GenerateSampler]) -> None:
    model, prompts = tiny_model(), ragged_prompts(9)
    exact, half = (
        sampler(model, dtype=dtype).sample(prompts, 8, seed=1) for dtype in ("float32", "bfloat16")
    )
    first, rounded = ([row[0] for row in found.logprobs] for found in (exact, half))
    assert first != rounded
    assert rounded == pytest.approx(first, abs=0.05)
    assert model.dtype == torch.float32


@pytest.mark.parametrize("architecture", ["qwen2", "gpt_neox"])
def test_other_architectures(architecture: str) -> None:
    torch.manual_seed(0)
    if architecture == "qwen2":
        settings = Qwen2Config(**SHAPE, **IDS, num_attention_heads=4, num_key_value_heads=2)
        model = Qwen2ForCausalLM(settings).eval()
    else:
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, **IDS, num_attention_heads=4)).eval()
    sampler, prompts = local_sampler(model), ragged_prompts(9)
    assert isinstance(sampler, GenerateSampler)
    found = sampler.sample(prompts, 10, num_generations=2, seed=1)
    row_prompts = [prompts[index] for index in found.prompts]
    for mine, theirs in zip(
        found.logprobs, answer_logprobs(model, row_prompts, found.answer_ids), strict=True
    ):
        assert mine == pytest.approx(theirs, abs=1e-4)
    assert isinstance(local_sampler(tiny_model()), DialogueSampler)


@pytest.mark.parametrize("architecture", ["phi3", "minimax", "lfm2", "mistral"])
def test_an_answer_does_not_depend_on_other_prompts_of_its_batch(architecture: str) -> None:
    """RoPE depends on the longest prompt of a batch (phi3); linear attention processes the pads (minimax)."""
    sampler = GenerateSampler(tiny_architecture(architecture))
    prompts = [[3 + (7 * place + length) % 50 for place in range(length)] for length in (4, 9, 20)]
    together = sampler.sample(prompts, 8, num_generations=2, seed=1)
    for index, prompt in enumerate(prompts):
        alone = sampler.sample([prompt], 8, num_generations=2, seed=1, keys=[index])
        mine = slice(2 * index, 2 * index + 2)
        assert together.answer_ids[mine] == alone.answer_ids
        for beside, single in zip(together.logprobs[mine], alone.logprobs, strict=True):
            assert beside == pytest.approx(single, abs=1e-4)
