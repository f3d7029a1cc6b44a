"""Answers from servers equal those of the other engines, or come from the same distribution."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llamita.errors import ConfigError, LlamitaError
from llamita.model.checkpoint import load_causal_lm
from llamita.sampling.engines import local_sampler
from llamita.sampling.logprobs import answer_logprobs
from llamita.sampling.vllm import sampler as sampler_module
from llamita.sampling.vllm import servers as servers_module
from llamita.sampling.vllm.checks import check_tokenizer
from llamita.sampling.vllm.sampler import VllmSampler

from ...helpers.fake_vllm import FakeVllm, fake_vllm
from ...helpers.served import open_sampler
from ...helpers.tiny import ragged_prompts, save_tiny_model

PROMPTS = ragged_prompts(24)


def test_greedy_answers_and_logprobs_equal_the_builtin_ones(sampler: VllmSampler, folder: Path) -> None:
    builtin = local_sampler(load_causal_lm(folder))
    found = sampler.sample(PROMPTS, 12, 2, temperature=0)
    expected = builtin.sample(PROMPTS, 12, 2, temperature=0)
    assert found.answer_ids == expected.answer_ids
    assert (found.prompts, found.finished) == (expected.prompts, expected.finished)
    assert len(set(found.finished)) == 2, "some answers end early, some are truncated"
    for mine, theirs in zip(found.logprobs, expected.logprobs, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_progress_bar_ends_at_its_total(
    temperature: float, sampler: VllmSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A greedy request samples one answer for all."""
    bars: list[list[float]] = []

    @contextmanager
    def progress(_label: str | None, total: float, _unit: str) -> Iterator[Callable[[float], None]]:
        bars.append([total, 0.0])

        def advance(amount: float) -> None:
            bars[-1][1] += amount

        yield advance

    monkeypatch.setattr(sampler_module, "progress", progress)
    sampler.sample(PROMPTS, 4, 3, temperature=temperature)
    ((total, done),) = bars
    assert total == done > 0


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_model(sampler: VllmSampler, folder: Path, temperature: float) -> None:
    samples = sampler.sample(PROMPTS, 12, temperature=temperature, seed=3)
    expected = answer_logprobs(load_causal_lm(folder), PROMPTS, samples.answer_ids, temperature=temperature)
    for mine, theirs in zip(samples.logprobs, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)


def test_an_answer_depends_on_seed_prompt_and_sample_alone(sampler: VllmSampler) -> None:
    whole = sampler.sample(PROMPTS, 12, 3, seed=5)
    part = sampler.sample(PROMPTS[9:], 12, 2, seed=5, keys=range(9, 24))
    assert part.answer_ids == [whole.answer_ids[3 * prompt + k] for prompt in range(9, 24) for k in range(2)]
    assert sampler.sample(PROMPTS, 12, 3, seed=6).answer_ids != whole.answer_ids
    same_prompt = sampler.sample([PROMPTS[0]] * 8, 12, 4, seed=5).answer_ids
    assert len(set(map(tuple, same_prompt))) > 24, "every key and every sample has draws of its own"


def test_dialogues_equal_those_of_the_builtin_sampler(sampler: VllmSampler, folder: Path) -> None:
    turns = [[prompt[:6], prompt[6:9] or [5], [7, 8]] for prompt in PROMPTS[4:10]]
    expected = local_sampler(load_causal_lm(folder)).sample_dialogues(turns, 5, 60, temperature=0)
    assert sampler.sample_dialogues(turns, 5, 60, temperature=0) == expected
    assert sampler.sample_dialogues(turns, 5, 6, temperature=0) == [[]] * 6
    one, other = (sampler.sample_dialogues(turns, 5, 60, seed=seed) for seed in "ab")
    assert one != other


def test_the_distribution_is_that_of_the_builtin_sampler(sampler: VllmSampler, folder: Path) -> None:
    """Chi-square test of the first token against the model's probabilities, 4,000 draws."""
    prompt, count = PROMPTS[3], 4000
    found = Counter(ids[0] for ids in sampler.sample([prompt] * 40, 1, count // 40, seed=1).answer_ids)
    exact = answer_logprobs(load_causal_lm(folder), [prompt] * 29, [[token] for token in range(29)])
    expected = [count * torch.tensor(row).exp().item() for row in exact]
    frequent = [token for token in range(29) if expected[token] >= 5]
    statistic = sum((found[token] - expected[token]) ** 2 / expected[token] for token in frequent)
    # the 99.9% quantile by Wilson and Hilferty
    degrees = len(frequent) - 1
    assert statistic < degrees * (1 - 2 / (9 * degrees) + 3.09 * (2 / (9 * degrees)) ** 0.5) ** 3
    assert found[0] == 0, "the pad is never sampled"


def test_both_servers_get_requests(sampler: VllmSampler, servers: list[FakeVllm]) -> None:
    sampler.sample(PROMPTS, 12)
    assert all(sum(route == "/v1/completions" for route, _ in server.requests) > 3 for server in servers)


def test_requests_override_the_generation_config_of_the_folder(
    sampler: VllmSampler, servers: list[FakeVllm]
) -> None:
    sampler.sample(PROMPTS[:1], 12, 3, temperature=0.5, top_p=0.9)
    bodies = [body for server in servers for route, body in server.requests if body.get("n") == 3]
    (body,) = bodies
    assert (body["temperature"], body["top_p"], body["top_k"], body["min_p"]) == (0.5, 0.9, 0, 0.0)
    assert (body["repetition_penalty"], body["stop_token_ids"], body["max_tokens"]) == (1.0, sampler.eos, 12)
    assert body["logit_bias"] == {"0": -100.0}


def test_sync_passes_the_weights_and_answers_carry_their_version(
    sampler: VllmSampler, servers: list[FakeVllm], folder: Path, tmp_path: Path
) -> None:
    model = load_causal_lm(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    assert sampler.sample(PROMPTS, 12, temperature=0).version == 0
    sampler.sync(model, 4)
    found = sampler.sample(PROMPTS, 12, temperature=0)
    assert found.version == 4
    assert found.answer_ids == local_sampler(model).sample(PROMPTS, 12, temperature=0).answer_ids
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["version-4"]
    before = len(servers[0].requests)
    sampler.sync(model, 4)
    assert len(servers[0].requests) == before, "the same version is not passed again"
    sampler.sync(model, 5)
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["version-5"]
    sampler.close()
    assert not (tmp_path / "weights").exists()


def test_another_folder(sampler: VllmSampler, folder: Path, tmp_path: Path, tokenizer: object) -> None:
    other = save_tiny_model(tmp_path / "other", tokenizer, seed=7)
    sampler.load(other)
    found = sampler.sample(PROMPTS, 12, temperature=0)
    builtin = local_sampler(load_causal_lm(other))
    assert found.answer_ids == builtin.sample(PROMPTS, 12, temperature=0).answer_ids
    assert found.version == 1
    sampler.load(folder)
    assert sampler.sample(PROMPTS, 12, temperature=0).answer_ids != found.answer_ids


def test_runs_share_no_folder_for_weights(
    servers: list[FakeVllm], folder: Path, tmp_path: Path, tokenizer: object
) -> None:
    """Also with the same setting `weights`; what a killed run has left there is removed."""
    shared, models = tmp_path / "shared", [load_causal_lm(folder), load_causal_lm(folder)]
    with torch.no_grad():
        for weight in models[1].parameters():
            weight.add_(0.1)
    samplers = [
        open_sampler([server.url], folder, tmp_path / name, weights=str(shared))
        for server, name in zip(servers, "ab", strict=True)
    ]
    for sampler, model in zip(samplers, models, strict=True):
        sampler.sync(model, 1)
    assert len(list(shared.glob("*/version-1"))) == 2
    # the first run is killed, and resumes at an earlier version
    with open_sampler([servers[0].url], folder, tmp_path / "a", weights=str(shared)):
        assert len(list(shared.glob("*/version-1"))) == 1
        assert samplers[1].sample(PROMPTS, 4, temperature=0).version == 1
    samplers[1].close()
    assert list(shared.iterdir()) == []


def test_special_tokens_of_another_folder(
    sampler: VllmSampler, servers: list[FakeVllm], folder: Path, tmp_path: Path
) -> None:
    """They may differ although the weights have the same shapes."""
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    path = other / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [2, 7]}))
    assert sampler.eos == [2]
    sampler.load(other)
    assert sampler.eos == [2, 7]
    found = sampler.sample(PROMPTS, 12, 4, seed=1)
    assert {ids[-1] for ids, finished in zip(found.answer_ids, found.finished, strict=True) if finished} == {
        2,
        7,
    }


def test_a_running_server_is_not_asked_to_load_another_shape(
    sampler: VllmSampler, servers: list[FakeVllm], tmp_path: Path, tokenizer: object
) -> None:
    """A reload that fails would end it."""
    wide = save_tiny_model(tmp_path / "wide", tokenizer, intermediate_size=64)
    before = len(servers[0].requests)
    with pytest.raises(
        ConfigError, match=r"sampler.urls: .*wide: intermediate_size is 64, not \d+; set sampler.start"
    ):
        sampler.load(wide)
    assert len(servers[0].requests) == before
    sampler.sample(PROMPTS, 4)
    with pytest.raises(ConfigError, match=r"serves .* and cannot load .*wide: intermediate_size is 64, not"):
        open_sampler([servers[0].url], wide, tmp_path)
    assert not any(path == "/collective_rpc" for path, _ in servers[0].requests[before:])


def test_a_running_server_may_have_other_weights_than_it_was_started_with(
    folder: Path, tmp_path: Path, tokenizer: object
) -> None:
    """An earlier stage may have loaded them."""
    other = save_tiny_model(tmp_path / "other", tokenizer, seed=7)
    expected = local_sampler(load_causal_lm(folder)).sample(PROMPTS, 12, temperature=0).answer_ids
    with fake_vllm(folder) as server:
        with open_sampler([server.url], other, tmp_path) as sampler:
            assert sampler.sample(PROMPTS, 12, temperature=0).answer_ids != expected
        with open_sampler([server.url], folder, tmp_path) as sampler:
            assert sampler.sample(PROMPTS, 12, temperature=0).answer_ids == expected


def test_a_server_that_keeps_its_weights_is_noticed(
    sampler: VllmSampler, servers: list[FakeVllm], folder: Path
) -> None:
    model = load_causal_lm(folder)
    sampler.sync(model, 0)
    servers[1].faults.keep_weights = True
    sampler.sync(model, 1)  # equal weights: nothing to notice
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=1e-6)  # as one step of PPO
    with pytest.raises(LlamitaError, match=f"server {servers[1].url} still samples from the weights of .*-1"):
        sampler.sync(model, 2)


def test_a_server_without_the_routes_for_weights(folder: Path, tmp_path: Path, tokenizer: object) -> None:
    with fake_vllm(folder, developer=False) as server:
        with open_sampler([server.url], folder, tmp_path) as sampler:
            sampler.sample(PROMPTS, 4)  # it was started with the right folder
            with pytest.raises(ConfigError, match=r"/collective_rpc.*VLLM_SERVER_DEV_MODE=1"):
                sampler.sync(load_causal_lm(folder), 1)
        other = save_tiny_model(tmp_path / "other", tokenizer, seed=7)
        with pytest.raises(ConfigError, match="VLLM_SERVER_DEV_MODE=1"):
            open_sampler([server.url], other, tmp_path)


def test_a_server_that_reports_other_logprobs(folder: Path, tmp_path: Path) -> None:
    with (
        fake_vllm(folder, "--logprobs-mode", "raw_logprobs") as server,
        pytest.raises(ConfigError, match=r"before temperature and top-p.*--logprobs-mode=processed_logprobs"),
    ):
        open_sampler([server.url], folder, tmp_path)


def test_a_server_with_a_short_context(folder: Path, tmp_path: Path) -> None:
    with (
        fake_vllm(folder, "--max-model-len", "40") as server,
        open_sampler([server.url], folder, tmp_path) as sampler,
    ):
        longest = max(map(len, PROMPTS))
        sampler.sample(PROMPTS, 40 - longest)
        with pytest.raises(ConfigError, match=r"takes 40 tokens.*may have 41; .*--max-model-len"):
            sampler.sample(PROMPTS, 41 - longest)


def test_a_server_with_another_tokenizer(folder: Path, tmp_path: Path) -> None:
    from ...helpers.chatml import chatml_tokenizer

    other = save_tiny_model(tmp_path / "other", chatml_tokenizer())
    with (
        fake_vllm(other) as server,
        pytest.raises(ConfigError, match=r"another tokenizer than the stage's model: token \d+ of a test"),
    ):
        open_sampler([server.url], folder, tmp_path)


@pytest.mark.parametrize(("found", "there"), [([5, 6], "[]"), ([5, 6, 7, 8], "[8]")])
def test_a_tokenizer_that_ends_a_text_earlier_or_later(found: list[int], there: str) -> None:
    client = SimpleNamespace(tokenize=lambda *_: found)
    server = SimpleNamespace(url="u", model=SimpleNamespace(name="m"), client=client)
    expected = [5, 6, 7]

    def tokenizer(*_: object, **__: object) -> dict[str, list[int]]:
        return {"input_ids": expected}

    place = 3 if len(found) < len(expected) else 4
    with pytest.raises(ConfigError, match=re.escape(f"token {place} of a test text is {there} there")):
        check_tokenizer(server, tokenizer)  # type: ignore[arg-type]  # a fake


def test_a_server_that_does_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers_module, "RETURN_TIMEOUT", 0.2)
    with fake_vllm(folder) as server:
        url = server.url
    with pytest.raises(LlamitaError, match=f"server {url} was not ready in 0.2 s; look at its log"):
        open_sampler([url], folder, tmp_path)
