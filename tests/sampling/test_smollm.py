"""The sampler on a real model with grouped-query attention and tied embeddings, beside `generate`."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from llamita.chat_format.encoding import encode_prompt
from llamita.model.checkpoint import load_causal_lm, load_tokenizer
from llamita.sampling.llama import LlamaSampler
from llamita.sampling.logprobs import answer_logprobs

from ..helpers.repository import SMOLLM

WORDS = "how to bake bread for two friends who like the sea and old songs".split()

pytestmark = pytest.mark.smollm


@pytest.fixture(scope="module")
def model() -> Any:
    return load_causal_lm(SMOLLM).eval()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    draw, tokenizer = random.Random(0), load_tokenizer(SMOLLM)
    questions = [f"Tell me {' '.join(draw.choices(WORDS, k=draw.randint(1, 40)))}." for _ in range(64)]
    return [encode_prompt(tokenizer, [{"role": "user", "content": question}]) for question in questions]


def test_greedy_equals_generate_token_for_token(model: Any, prompts: list[list[int]]) -> None:
    found = LlamaSampler(model).sample(prompts, max_new_tokens=24, temperature=0)
    pad = model.generation_config.pad_token_id
    for start in range(0, 64, 16):
        batch = prompts[start : start + 16]
        longest = max(map(len, batch))
        ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in batch])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch])
        told = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=24, do_sample=False)
        for row, answer in zip(told[:, longest:].tolist(), found.answer_ids[start : start + 16], strict=True):
            assert row[: len(answer)] == answer
            assert set(row[len(answer) :]) <= {pad}, "only pads after the EOS"


def test_logprobs_are_those_of_the_forward_pass(model: Any, prompts: list[list[int]]) -> None:
    found = LlamaSampler(model).sample(prompts, max_new_tokens=24, seed=1)
    expected = answer_logprobs(model, prompts, found.answer_ids)
    for mine, theirs in zip(found.logprobs, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
