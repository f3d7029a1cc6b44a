"""Rows that are decoded together take at most `cache_tokens` slots of the cache; batches change no answer."""

from __future__ import annotations

from typing import Any

import pytest

from llamita.sampling.cache import Cache, Room
from llamita.sampling.dialogues import DialogueSampler
from llamita.sampling.generate import GenerateSampler

from ..helpers.architectures import tiny_architecture
from ..helpers.questions import QUESTIONS
from ..helpers.tiny import ragged_prompts, tiny_model


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> list[Room]:
    """The room of each cache that is used."""
    found: list[Room] = []
    real = Cache.__init__

    def noted(self: Cache, weights: Any, room: Room) -> None:
        found.append(room)
        real(self, weights, room)

    monkeypatch.setattr(Cache, "__init__", noted)
    return found


def tokens(room: Room) -> int:
    return room.rows * room.new_tokens + room.prompts * room.longest


def test_answers_that_are_decoded_together_fit_in_the_cache(rooms: list[Room]) -> None:
    prompts, model = ragged_prompts(17), tiny_model()
    whole = DialogueSampler(model).sample(prompts, 16, 3, seed=1)
    assert rooms == [Room(51, 51, 11, 15)]
    rooms.clear()
    assert DialogueSampler(model, 90).sample(prompts, 16, 3, seed=1).answer_ids == whole.answer_ids
    assert rooms == [Room(3, 3, 11, 15)]
    rooms.clear()
    assert DialogueSampler(model, 10).sample(prompts, 16, 3, seed=1).answer_ids == whole.answer_ids
    assert rooms == [Room(1, 1, 11, 15)], "a longer row is decoded alone"


def test_answers_to_one_prompt_share_its_place_in_the_cache(rooms: list[Room]) -> None:
    prompts, model = ragged_prompts(9), tiny_model()
    whole = DialogueSampler(model).sample(prompts, 16, 12, seed=1)
    assert rooms == [Room(108, 27, 11, 15)]
    rooms.clear()
    assert DialogueSampler(model, 400).sample(prompts, 16, 12, seed=1).answer_ids == whole.answer_ids
    assert rooms == [Room(21, 5, 11, 15)]
    assert tokens(rooms[0]) <= 400 < 21 * (11 + 16)


def test_much_shorter_prompts_have_a_cache_with_more_rows(rooms: list[Room]) -> None:
    prompts, model = [[1, *range(3, 28), 4, 4, 4, 4], *ragged_prompts(20)], tiny_model()
    whole = DialogueSampler(model).sample(prompts, 4, seed=1)
    rooms.clear()
    assert DialogueSampler(model, 60).sample(prompts, 4, seed=1).answer_ids == whole.answer_ids
    assert [room.rows for room in rooms] == [1, 4, 4]
    assert all(tokens(room) <= 60 for room in rooms)


def test_dialogues_that_are_decoded_together_fit_in_the_cache(rooms: list[Room]) -> None:
    model = tiny_model(vocab_size=40, max_position_embeddings=512)
    questions = QUESTIONS * 5
    whole = DialogueSampler(model).sample_dialogues(questions, 5, 512, seed="s")
    assert [room.rows for room in rooms] == [15]
    assert rooms[0].longest + rooms[0].new_tokens == 38
    rooms.clear()
    assert DialogueSampler(model, 100).sample_dialogues(questions, 5, 512, seed="s") == whole
    assert all(tokens(room) <= 100 for room in rooms)
    assert {room.rows for room in rooms} == {2, 5}


@pytest.mark.parametrize("architecture", ["mistral", "minimax"])
def test_answers_of_generate_fit_in_the_cache(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = GenerateSampler(tiny_architecture(architecture))
    prompts = [[3 + (7 * place + length) % 50 for place in range(length)] for length in (4, 9, 20, 4)]
    whole = sampler.sample(prompts, 8, seed=1)
    sizes: list[tuple[int, int]] = []
    generate = sampler._model.generate

    def noted(input_ids: Any, max_new_tokens: int, **options: Any) -> Any:
        rows, longest = input_ids.shape
        sizes.append((rows, longest + max_new_tokens))
        return generate(input_ids=input_ids, max_new_tokens=max_new_tokens, **options)

    monkeypatch.setattr(sampler._model, "generate", noted)
    for cache_tokens, expected in (
        (24, [(2, 12), (1, 17), (1, 28)]),
        (20, [(1, 12)] * 2 + [(1, 17), (1, 28)]),
    ):
        sizes.clear()
        sampler.cache_tokens = cache_tokens
        assert sampler.sample(prompts, 8, seed=1).answer_ids == whole.answer_ids
        assert sizes == expected
