from __future__ import annotations

import dataclasses

import pytest
import torch

from llamita.errors import ConfigError
from llamita.sampling.decoder import Decoder
from llamita.sampling.generate import GenerateSampler
from llamita.sampling.llama import STEPS_PER_STOP, LlamaSampler
from llamita.sampling.weights import copy_weights

from ..helpers.tiny import EOS, ragged_prompts, tiny_model


@pytest.mark.parametrize("at_once", [8, 10**6], ids=["in_parts", "at_once"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 4},
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
        {"attention_bias": True, "mlp_bias": True},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
    ],
    ids=["grouped", "full", "multi_query_tied", "biases", "linear_rotary"],
)
def test_every_logit_agrees_with_the_model(
    changes: dict[str, object], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(**changes)
    if model.config.attention_bias:
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter)
    prompts, new = ragged_prompts(5), torch.randint(3, 29, (7, 6))
    copies = torch.tensor([0, 0, 1, 2, 3, 4, 4])
    decoder = Decoder(copy_weights(model))
    monkeypatch.setattr("llamita.batches._TOKENS_AT_ONCE", (at_once, at_once))
    with monkeypatch.context() as hostile:  # uninitialised memory may contain anything
        hostile.setattr(torch, "empty", lambda size, **how: torch.full(size, float("nan"), **how))
        hostile.setattr(torch, "empty_like", lambda like: torch.full_like(like, float("nan")))
        found = [decoder.prefill(prompts, copies, 6)]
    found += [decoder.step(new[:, step]) for step in range(3)]
    kept = torch.tensor([1, 2, 5])
    decoder.keep(kept)
    found += [decoder.step(new[kept, step]) for step in range(3, 6)]
    for row, prompt in enumerate(copies.tolist()):
        whole = torch.tensor([prompts[prompt] + new[row].tolist()])
        with torch.no_grad():
            expected = model(input_ids=whole).logits[0, len(prompts[prompt]) - 1 :]
        for step, logits in enumerate(found):
            if step <= 3:
                torch.testing.assert_close(logits[row], expected[step], atol=1e-5, rtol=0)
            elif row in kept.tolist():
                torch.testing.assert_close(
                    logits[kept.tolist().index(row)], expected[step], atol=1e-5, rtol=0
                )


@pytest.mark.parametrize("cache_tokens", [60, 10**6])
def test_greedy_equals_generate_token_for_token(cache_tokens: int) -> None:
    model = tiny_model(seed=3)
    prompts = ragged_prompts(24)
    samples = LlamaSampler(model, cache_tokens).sample(prompts, max_new_tokens=12, temperature=0)
    for prompt, answer, finished in zip(prompts, samples.answer_ids, samples.finished, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
            suppress_tokens=[0],
        )
        assert answer == whole[0, len(prompt) :].tolist()
        assert finished == (answer[-1] == EOS)
    assert {len(answer) for answer in samples.answer_ids} > {12}, (
        "some answers must end early, some at the limit"
    )


def test_an_answer_does_not_depend_on_batch_size_or_other_prompts() -> None:
    model, prompts = tiny_model(), ragged_prompts(17)
    one = LlamaSampler(model, cache_tokens=2000).sample(prompts, 16, num_generations=4, seed=5)
    other = LlamaSampler(model, cache_tokens=70).sample(prompts, 16, num_generations=4, seed=5)
    assert one.answer_ids == other.answer_ids
    assert one.finished == other.finished
    assert one.prompts == [index for index in range(17) for _ in range(4)]
    part = LlamaSampler(model).sample(prompts[9:], 16, num_generations=2, seed=5, keys=range(9, 17))
    assert part.answer_ids == [
        answer for index in range(9, 17) for answer in one.answer_ids[4 * index : 4 * index + 2]
    ]
    assert LlamaSampler(model).sample(prompts, 16, num_generations=4, seed=6).answer_ids != one.answer_ids
    assert len({tuple(answer) for answer in one.answer_ids[:4]}) > 1


def test_logprobs_are_those_of_the_model_without_the_pad() -> None:
    model, prompts = tiny_model(), ragged_prompts(9)
    samples = LlamaSampler(model).sample(prompts, 12, num_generations=2, temperature=0.7, seed=1)
    for index, answer, found in zip(samples.prompts, samples.answer_ids, samples.logprobs, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompts[index] + answer])).logits[
                0, len(prompts[index]) - 1 : -1
            ]
        logits[:, 0] = float("-inf")
        expected = torch.log_softmax(logits / 0.7, -1).gather(-1, torch.tensor(answer)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(found), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_the_first_token_follows_the_models_distribution(temperature: float) -> None:
    model = tiny_model(spread=0.3)
    count = 4000
    samples = LlamaSampler(model).sample(
        [[1, 7, 9]], 1, num_generations=count, temperature=temperature, seed=2
    )
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[1, 7, 9]])).logits[0, -1] / temperature
    logits[0] = float("-inf")
    expected = torch.softmax(logits, -1) * count
    seen = torch.bincount(torch.tensor([answer[0] for answer in samples.answer_ids]), minlength=29)
    assert seen[0] == 0, "the pad is never sampled"
    common = expected > 5
    chi_square = ((seen - expected) ** 2 / expected)[common].sum().item()
    degrees = int(common.sum()) - 1
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5
    assert int(seen[~common].sum()) <= expected[~common].sum() * 2 + 10


def test_stream_yields_the_answer_of_sample() -> None:
    model = tiny_model()
    for prompt, seed in zip(ragged_prompts(6), range(6), strict=True):
        sampler = LlamaSampler(model)
        assert (
            list(sampler.stream(prompt, 10, seed=seed))
            == sampler.sample([prompt], 10, seed=seed).answer_ids[0]
        )


def test_only_refresh_copies_changed_weights() -> None:
    model = tiny_model()
    sampler = LlamaSampler(model)
    before = sampler.sample([[1, 5]], 8, temperature=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.3)
    assert sampler.sample([[1, 5]], 8, temperature=0) == before
    sampler.sync(model)
    assert dataclasses.asdict(sampler.sample([[1, 5]], 8, temperature=0)) == dataclasses.asdict(
        LlamaSampler(model).sample([[1, 5]], 8, temperature=0)
    )
    assert sampler.sample([[1, 5]], 8, temperature=0) != before


def test_a_rotary_type_that_depends_on_the_length_is_an_error() -> None:
    model = tiny_model(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    with pytest.raises(ConfigError, match="dynamic"):
        LlamaSampler(model)


@pytest.mark.parametrize("at_once", [8, 10**6], ids=["in_parts", "at_once"])
@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 4, "attention_bias": True}])
def test_a_common_beginning_is_processed_once(
    changes: dict[str, object], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(**changes)
    decoder = Decoder(copy_weights(model))
    beginning = [1] + [3 + number % 26 for number in range(79)]
    ragged = ragged_prompts(10)
    prompts = [[*beginning, *prompt[1:], 5] for prompt in ragged[:5]]
    prompts[2] = beginning  # nothing follows it, so it must not be shared to its end
    other = [1, 9, 9, *beginning[3:]]
    prompts += [[*other, *prompt[1:], 6] for prompt in ragged[5:8]] + ragged[8:]
    prompts = [prompts[place] for place in (5, 0, 8, 2, 6, 1, 3, 9, 4, 7)]  # mixed
    copies, seen = torch.tensor([0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]), []
    original = Decoder._prefill_part

    def counted(self: Decoder, part: list[list[int]], *rest: object) -> torch.Tensor:
        seen.append(sum(map(len, part)))
        return original(self, part, *rest)

    monkeypatch.setattr(Decoder, "_prefill_part", counted)
    monkeypatch.setattr("llamita.batches._TOKENS_AT_ONCE", (at_once, at_once))
    with monkeypatch.context() as hostile:  # uninitialised memory may contain anything
        hostile.setattr(torch, "empty", lambda size, **how: torch.full(size, float("nan"), **how))
        hostile.setattr(torch, "empty_like", lambda like: torch.full_like(like, float("nan")))
        first = decoder.prefill(prompts, copies, 2)
    second = decoder.step(torch.full((11,), 7))
    long = [len(prompt) for prompt in prompts if len(prompt) > 20]
    shared = sum(map(len, prompts)) - sum(long) + 79 + 80 + sum(long) - 5 * 79 - 3 * 80
    assert sum(seen) == shared
    for row, prompt in enumerate(copies.tolist()):
        with torch.no_grad():
            expected = model(input_ids=torch.tensor([[*prompts[prompt], 7]])).logits[0, -2:]
        torch.testing.assert_close(torch.stack((first[row], second[row])), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampler", [LlamaSampler, GenerateSampler])
def test_a_stop_ends_an_answer_early_and_no_other(sampler: type[LlamaSampler | GenerateSampler]) -> None:
    model, prompts = tiny_model(), ragged_prompts(9)
    whole = sampler(model).sample(prompts, 40, seed=1)
    found = sampler(model).sample(prompts, 40, seed=1, stop=lambda ids: 7 in ids or 11 in ids)
    stopped = 0
    for row, ids in enumerate(whole.answer_ids):
        end = next((place for place, token in enumerate(ids) if token in (7, 11)), len(ids))
        checked = (end + STEPS_PER_STOP) // STEPS_PER_STOP * STEPS_PER_STOP
        assert found.answer_ids[row] == ids[:checked]
        assert found.finished[row] == (whole.finished[row] and checked >= len(ids))
        stopped += checked < len(ids)
    assert 2 < stopped < 9
