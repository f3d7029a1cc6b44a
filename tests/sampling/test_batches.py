"""Rows that are decoded together take at most `cache_tokens` slots of the cache; batches change no answer."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.sampling.decoder import Decoder
from llamita.sampling.dialogues import DialogueSampler
from llamita.sampling.generate import GenerateSampler

from ..helpers.architectures import tiny_architecture
from ..helpers.questions import QUESTIONS
from ..helpers.tiny import ragged_prompts, tiny_model


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, slots) of the cache of each batch that is decoded."""
    found: list[tuple[int, int]] = []
    prefill = Decoder.prefill

    def noted(self: Decoder, *values: Any) -> Any:
        logits = prefill(self, *values)
        found.append((self._keys.shape[1], self._keys.shape[3]))
        return logits

    monkeypatch.setattr(Decoder, "prefill", noted)
    return found


def test_answers_that_are_decoded_together_fit_in_the_cache(caches: list[tuple[int, int]]) -> None:
    prompts, model = ragged_prompts(17), tiny_model()
    whole = DialogueSampler(model).sample(prompts, 16, 3, seed=1)
    assert caches == [(51, 27)]
    caches.clear()
    assert DialogueSampler(model, 90).sample(prompts, 16, 3, seed=1).answer_ids == whole.answer_ids
    assert all(rows * slots <= 90 for rows, slots in caches)
    assert sum(rows for rows, _ in caches) == 51
    assert {rows for rows, _ in caches} == {2, 3, 4, 5}, "more rows with shorter prompts"
    caches.clear()
    assert DialogueSampler(model, 10).sample(prompts, 16, 3, seed=1).answer_ids == whole.answer_ids
    assert {rows for rows, _ in caches} == {1}, "a longer row is decoded alone"


def test_dialogues_that_are_decoded_together_fit_in_the_cache(caches: list[tuple[int, int]]) -> None:
    model = tiny_model(vocab_size=40, max_position_embeddings=512)
    questions = QUESTIONS * 5
    whole = DialogueSampler(model).sample_dialogues(questions, 5, 512, seed="s")
    assert caches == [(15, 38)]
    caches.clear()
    assert DialogueSampler(model, 100).sample_dialogues(questions, 5, 512, seed="s") == whole
    assert all(rows * slots <= 100 for rows, slots in caches)
    assert {rows for rows, _ in caches} == {2, 5}


@pytest.mark.parametrize("architecture", ["mistral", "minimax"])
def test_answers_of_generate_fit_in_the_cache(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = GenerateSampler(tiny_architecture(architecture))
    prompts = [[3 + (7 * place + length) % 50 for place in range(length)] for length in (4, 9, 20, 4)]
    whole = sampler.sample(prompts, 8, seed=1)
    sizes = []
    generate = sampler._model.generate

    def noted(input_ids: Any, max_new_tokens: int, **options: Any) -> Any:
        rows, longest = input_ids.shape
        sizes.append((rows, longest + max_new_tokens))
        return generate(input_ids=input_ids, max_new_tokens=max_new_tokens, **options)

    monkeypatch.setattr(sampler._model, "generate", noted)
    sampler.cache_tokens = 24
    assert sampler.sample(prompts, 8, seed=1).answer_ids == whole.answer_ids
    assert sizes == [(2, 12), (1, 17), (1, 28)]
