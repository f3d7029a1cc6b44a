"""Top-p against a plain implementation and that of transformers, in all samplers."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import TopPLogitsWarper

from llamita.sampling.decoding import Decoding, next_tokens, nucleus
from llamita.sampling.dialogues import DialogueSampler
from llamita.sampling.draws import draw, uniforms
from llamita.sampling.generate import GenerateSampler
from llamita.sampling.llama import LlamaSampler
from llamita.sampling.logprobs import policy_logprobs

from ..helpers.questions import QUESTIONS
from ..helpers.tiny import ragged_prompts, tiny_model


def plain_nucleus(probabilities: list[float], top_p: float) -> list[float]:
    """The reference: adds the likeliest tokens one by one until they have `top_p` together."""
    order = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    kept, total = [], 0.0
    for token in order:
        kept.append(token)
        total += probabilities[token]
        if total >= top_p:
            break
    return [one / total if token in kept else 0.0 for token, one in enumerate(probabilities)]


@pytest.mark.parametrize("vocabulary", [11, 500])  # below and above the number found without a sort
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_nucleus_equals_the_plain_one_and_that_of_transformers(vocabulary: int, top_p: float) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    spread = torch.tensor([[0.2], [1.0], [4.0], [20.0]])
    logits = spread * torch.randn(4, vocabulary, generator=generator)
    found = nucleus(torch.log_softmax(logits, -1), top_p)
    warped = torch.log_softmax(TopPLogitsWarper(top_p)(None, logits), -1)
    torch.testing.assert_close(found, warped, atol=1e-5, rtol=0)
    for row, expected in zip(found.exp().tolist(), torch.softmax(logits.double(), -1).tolist(), strict=True):
        assert row == pytest.approx(plain_nucleus(expected, top_p), abs=1e-6)
    assert int((found > -math.inf).sum(-1).min()) >= 1


def test_equally_likely_tokens_are_kept_together() -> None:
    logprobs = torch.log(torch.tensor([[0.1, 0.3, 0.3, 0.3], [0.25, 0.25, 0.25, 0.25]]))
    found = nucleus(logprobs, 0.4).exp()
    torch.testing.assert_close(found, torch.tensor([[0.0, 1 / 3, 1 / 3, 1 / 3], [0.25] * 4]))


def test_without_top_p_nothing_changes_bit_by_bit() -> None:
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    uniform = uniforms("s", [(row, 0) for row in range(50)], 1)[:, 0]
    tokens, logprobs = next_tokens(logits, uniform, 0, decoding=Decoding(0.7))
    expected = policy_logprobs(logits, 0, 0.7)
    assert torch.equal(tokens, draw(expected, uniform))
    assert torch.equal(logprobs, expected.gather(-1, tokens[:, None]).squeeze(-1))


def test_greedy_ignores_top_p() -> None:
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(0))
    uniform = torch.zeros(50, dtype=torch.float64)
    greedy, logprobs = next_tokens(logits, uniform, 0, decoding=Decoding(0.0))
    found, same = next_tokens(logits, uniform, 0, decoding=Decoding(0.0, 0.3))
    assert torch.equal(found, greedy)
    assert torch.equal(same, logprobs)


def test_tokens_are_drawn_from_the_nucleus_and_logprobs_are_its_own() -> None:
    model, prompt, count = tiny_model(spread=0.3), [1, 7, 9], 4000
    samples = LlamaSampler(model).sample([prompt], 1, count, temperature=0.8, top_p=0.6, seed=2)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt])).logits[:, -1] / 0.8
    logits[0, 0] = -math.inf
    expected = torch.log_softmax(TopPLogitsWarper(0.6)(None, logits), -1)[0]
    seen = torch.bincount(torch.tensor([answer[0] for answer in samples.answer_ids]), minlength=29) / count
    assert not seen[expected == -math.inf].any()
    torch.testing.assert_close(seen, expected.exp(), atol=4 * 0.5 / count**0.5, rtol=0)
    for answer, logprobs in zip(samples.answer_ids, samples.logprobs, strict=True):
        assert logprobs[0] == pytest.approx(float(expected[answer[0]]), abs=1e-5)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.7), (0.1, 0.9)])
def test_an_answer_does_not_depend_on_its_batch_or_the_sampler(temperature: float, top_p: float) -> None:
    model, prompts = tiny_model(), ragged_prompts(17)
    how = {"temperature": temperature, "top_p": top_p, "seed": 5}
    one = LlamaSampler(model).sample(prompts, 16, 3, **how)
    assert LlamaSampler(model, cache_tokens=70).sample(prompts, 16, 3, **how).answer_ids == one.answer_ids
    part = LlamaSampler(model).sample(prompts[9:], 16, 2, keys=range(9, 17), **how)
    assert part.answer_ids == [one.answer_ids[3 * row + k] for row in range(9, 17) for k in range(2)]
    slow = GenerateSampler(model, cache_tokens=180).sample(prompts, 16, 3, **how)
    assert slow.answer_ids == one.answer_ids
    for mine, theirs in zip(slow.logprobs, one.logprobs, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    whole = LlamaSampler(model).sample(prompts, 16, 3, temperature=temperature, seed=5)
    assert one.answer_ids != whole.answer_ids


@pytest.mark.parametrize("sampler", [DialogueSampler, GenerateSampler])
def test_streams_use_top_p(sampler: type[DialogueSampler | GenerateSampler]) -> None:
    model, prompt = tiny_model(), ragged_prompts(1)[0]
    found = [list(sampler(model).stream(prompt, 12, seed=seed, top_p=0.5)) for seed in range(8)]
    expected = [LlamaSampler(model).sample([prompt], 12, seed=seed, top_p=0.5) for seed in range(8)]
    assert found == [samples.answer_ids[0] for samples in expected]
    assert found != [list(sampler(model).stream(prompt, 12, seed=seed)) for seed in range(8)]


@pytest.mark.parametrize("cache_tokens", [100, 10**6])
def test_dialogues_use_top_p(cache_tokens: int) -> None:
    """The first turn of a dialogue is drawn as the prompt's answer; the other sampler gives the same ones."""
    model = tiny_model(vocab_size=40, max_position_embeddings=512)
    how = {"temperature": 1.0, "top_p": 0.6, "seed": "s"}
    found = DialogueSampler(model, cache_tokens).sample_dialogues(QUESTIONS, 6, 512, **how)
    first = LlamaSampler(model).sample([turns[0] for turns in QUESTIONS], 6, **how)
    assert [answers[0] for answers in found] == first.answer_ids
    assert GenerateSampler(model).sample_dialogues(QUESTIONS, 6, 512, **how) == found
    assert DialogueSampler(model).sample_dialogues(QUESTIONS, 6, 512, seed="s") != found
