"""Dialogues sampled in parallel equal dialogues sampled one by one without a cache."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llamita.sampling.dialogues import DialogueSampler
from llamita.sampling.draws import draw, uniforms
from llamita.sampling.logprobs import policy_logprobs

from ..helpers.questions import QUESTIONS

EOS = 2


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=EOS,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval()


@torch.no_grad()
def one_by_one(
    model: LlamaForCausalLM, row: int, questions: list[list[int]], limit: int, temperature: float, turns: int
) -> list[list[int]]:
    """The reference: a forward pass of the model over the whole history for every token."""
    history: list[int] = []
    answers: list[list[int]] = []
    for turn, question in enumerate(questions):
        history += question
        table = uniforms("s", [(row, turn)], limit)
        answer: list[int] = []
        while len(answer) < limit and EOS not in answer:
            logits = model(torch.tensor([history + answer]), use_cache=False).logits[:, -1]
            logprobs = policy_logprobs(logits, 0, temperature)
            token = draw(logprobs, table[:, len(answer)]) if temperature else logprobs.argmax(-1)
            answer.append(int(token))
        answers.append(answer)
        history += answer if EOS in answer else [*answer, EOS]
    return answers


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("limit", [1, 5, 30])
@pytest.mark.parametrize("cache_tokens", [100, 10**6])
def test_equals_the_model_one_dialogue_at_a_time(
    model: LlamaForCausalLM, temperature: float, limit: int, cache_tokens: int
) -> None:
    answers = DialogueSampler(model, cache_tokens).sample_dialogues(
        QUESTIONS, limit, 512, temperature=temperature, seed="s"
    )
    for row, questions in enumerate(QUESTIONS):
        assert answers[row] == one_by_one(model, row, questions, limit, temperature, 4)


def test_some_answers_are_finished_and_some_are_truncated(model: LlamaForCausalLM) -> None:
    answers = [
        answer
        for rows in DialogueSampler(model).sample_dialogues(QUESTIONS, 30, 512, seed="s")
        for answer in rows
    ]
    assert len({answer[-1] == EOS for answer in answers}) == 2
    assert all(0 not in answer for answer in answers)


def test_a_dialogue_ends_before_it_exceeds_the_context(model: LlamaForCausalLM) -> None:
    whole = DialogueSampler(model).sample_dialogues(QUESTIONS, 5, 512, seed="s")
    context = 30
    cut = DialogueSampler(model).sample_dialogues(QUESTIONS, 5, context, seed="s")
    for questions, full, found in zip(QUESTIONS, whole, cut, strict=True):
        length, turns = 0, 0
        for question, answer in zip(questions, full, strict=True):
            if length + len(question) + 5 > context:
                break
            length += len(question) + len(answer) + (answer[-1] != EOS)
            turns += 1
        assert found == full[:turns]
    assert any(len(found) < len(full) for found, full in zip(cut, whole, strict=True))


def test_no_dialogue_fits(model: LlamaForCausalLM) -> None:
    assert DialogueSampler(model).sample_dialogues(QUESTIONS, 5, 6, seed="s") == [[], [], []]
    assert DialogueSampler(model).sample_dialogues([], 5, 6, seed="s") == []


def test_an_answer_that_ends_at_the_limit(model: LlamaForCausalLM) -> None:
    """Such a dialogue is over while others continue."""
    free = DialogueSampler(model).sample_dialogues(QUESTIONS, 30, 512, seed="s")
    limit = next(len(answer) for answers in free for answer in answers[-1:] if answer[-1] == EOS)
    found = DialogueSampler(model).sample_dialogues(QUESTIONS, limit, 512, seed="s")
    assert [len(answers) for answers in found] == [4, 4, 2]
