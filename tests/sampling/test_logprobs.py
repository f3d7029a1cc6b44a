from __future__ import annotations

import math

import torch

from llamita.sampling.llama import LlamaSampler
from llamita.sampling.logprobs import answer_logprobs, excluded_pad_id, policy_logprobs

from ..helpers.tiny import ragged_prompts, tiny_model


def test_policy_logprobs_by_hand() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0]])
    denominator = math.log(math.exp(0.5) + math.exp(1.0))
    expected = [-math.inf, 0.5 - denominator, 1.0 - denominator]
    torch.testing.assert_close(policy_logprobs(logits, 0, temperature=2.0)[0], torch.tensor(expected))
    assert policy_logprobs(logits, None).argmax() == 0


def test_the_pad_is_left_alone_where_it_is_the_eos() -> None:
    assert excluded_pad_id(tiny_model().config) == 0
    assert excluded_pad_id(tiny_model(pad_token_id=2).config) is None
    assert excluded_pad_id(tiny_model(pad_token_id=None).config) is None


def test_the_trainers_forward_agrees_with_the_sampler() -> None:
    model, prompts = tiny_model(), ragged_prompts(11)
    samples = LlamaSampler(model).sample(prompts, 15, num_generations=2, temperature=1.3, seed=4)
    told = [prompts[index] for index in samples.prompts]
    found = answer_logprobs(model, told, samples.answer_ids, temperature=1.3, batch_size=5)
    for ours, theirs in zip(found, samples.logprobs, strict=True):
        torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), atol=1e-5, rtol=0)
