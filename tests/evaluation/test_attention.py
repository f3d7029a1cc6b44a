"""Attention to the instruction: its span in the ids, the maximum weights, their bins."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from llamita.chat_format.encoding import encode_prompt, encode_questions
from llamita.evaluation.attention import RecordedDialogue, binned, measure_attention, strongest_attention
from llamita.evaluation.responder import Responder
from llamita.evaluation.retention import InstructedDialogue, measure_retention
from llamita.evaluation.stage import run
from llamita.sampling.dialogues import DialogueSampler

from ..helpers.architectures import tiny_architecture
from ..helpers.tiny import tiny_model
from ..helpers.tiny_evaluation import settings

IDS = [1, 5, 6, 7, 8, 9, 10, 11, 12, 13]


class StubScorer:
    """Accepts no answer and asks no direct questions."""

    def follows(self, row_id: str, answer: str) -> bool:
        return False

    def explicit_question(self, row_id: str) -> str | None:
        return None

    def explicit_answer_ok(self, row_id: str, answer: str) -> bool:
        raise AssertionError


def test_the_strongest_weight_of_all_layers_and_heads() -> None:
    model = tiny_model()
    found = strongest_attention_of(model)
    assert torch.equal(found, found.tril())
    assert found[0, 0] == 1
    model.set_attn_implementation("eager")
    every = torch.stack(model(torch.tensor([IDS]), output_attentions=True).attentions)[:, 0]
    assert every.shape[:2] == (model.config.num_hidden_layers, model.config.num_attention_heads)
    for layer, head in ((0, 0), (-1, -1)):
        assert bool((found >= every[layer, head]).all())
    assert torch.equal(found, every.flatten(0, 1).amax(0))


def test_the_weights_of_one_layer_exist_at_a_time() -> None:
    model = tiny_model(num_hidden_layers=3)
    shape = (1, model.config.num_attention_heads, len(IDS), len(IDS))
    alive: list[int] = []

    def count(*_: Any) -> None:
        gc.collect()
        alive.append(sum(type(one) is Tensor and one.shape == shape for one in gc.get_objects()))

    for layer in model.model.layers:
        layer.register_forward_pre_hook(count)
    strongest_attention_of(model)
    assert alive == [0, 0, 0]


@pytest.mark.parametrize("name", ["opt", "bloom", "gemma2", "gpt_oss", "deepseek_v3", "lfm2"])
def test_attention_of_other_architectures(name: str) -> None:
    model = tiny_architecture(name)
    found = strongest_attention_of(model)
    weights = model(torch.tensor([IDS]), output_attentions=True).attentions
    every = torch.cat([layer[0] for layer in weights if layer is not None])
    assert torch.equal(found, every.amax(0))


def strongest_attention_of(model: Any) -> torch.Tensor:
    model.set_attn_implementation("eager")
    return strongest_attention(model, IDS)


def test_by_turn_and_map() -> None:
    model = tiny_model()
    weights = strongest_attention_of(model)
    model.set_attn_implementation("sdpa")
    dialogue = RecordedDialogue(IDS, (1, 4), [(5, 7), (8, 10)])
    found = measure_attention(model, [dialogue, dialogue])
    assert model.config._attn_implementation == "sdpa", "restored"
    for turn, rows in (("1", weights[5:7]), ("2", weights[8:10])):
        expected = torch.stack([row[1:4].max() for row in rows]).mean()
        assert found["by_turn"][turn] == pytest.approx(float(expected), abs=1e-6)
        assert found["by_turn"][f"{turn}_se"] == pytest.approx(0)
    assert found["dialogues"] == {"1": 2, "2": 2}
    assert found["instruction"] == [0.1, 0.4]
    assert torch.tensor(found["map"]).shape == (10, 10), "one bin per token: shorter than the map"


def test_neighbours_share_a_bin_with_the_largest_value() -> None:
    table = torch.zeros(6, 6)
    table[1, 0], table[5, 4] = 0.5, 0.25
    assert binned(table, 3).tolist() == [[0.5, 0, 0], [0, 0, 0], [0, 0, 0.25]]


def test_a_recorded_dialogue_fits_in_the_context(tokenizer: Any) -> None:
    """A truncated last answer may end where the context does; positions of some models end there."""
    questions = ["what is red ?", "is it bolo ?"]
    turns = encode_questions(tokenizer, questions, "be kind")
    context = sum(map(len, turns)) + 5 + 1 + 5  # with an EOS after the first answer
    model = tiny_model(vocab_size=len(tokenizer), max_position_embeddings=context)
    model.config.eos_token_id = tokenizer.eos_token_id
    responder = Responder(DialogueSampler(model), tokenizer, context, max_new_tokens=5, seed=0)
    dialogue = InstructedDialogue("a", "be kind", questions)
    (recorded,) = measure_retention(responder, StubScorer(), [dialogue]).dialogues
    assert [end - start for start, end in recorded.answers] == [5, 5]
    assert len(recorded.ids) == recorded.answers[-1][1] == context


def test_spans_of_instruction_and_answers(tokenizer: Any) -> None:
    model = tiny_model(vocab_size=len(tokenizer), max_position_embeddings=512)
    model.config.eos_token_id = tokenizer.eos_token_id
    responder = Responder(DialogueSampler(model), tokenizer, 512, max_new_tokens=5, seed=0)
    dialogue = InstructedDialogue("a", "you are fine today", ["what is red ?", "is it bolo ?"])
    (recorded,) = measure_retention(responder, StubScorer(), [dialogue]).dialogues
    assert len(recorded.ids) == recorded.answers[-1][1]
    assert tokenizer.decode(recorded.ids[slice(*recorded.instruction)]).strip() == dialogue.instruction
    system = [{"role": "system", "content": dialogue.instruction}]
    prompt = encode_prompt(tokenizer, [*system, {"role": "user", "content": dialogue.questions[0]}])
    assert recorded.ids[: len(prompt)] == prompt
    assert recorded.answers[0][0] == len(prompt)
    (first, second), eos = recorded.answers, tokenizer.eos_token_id
    for start, end in (first, second):
        assert 1 <= end - start <= 5
        assert eos in recorded.ids[end - 1 : end + 1] or end == len(recorded.ids)
    assert second[0] > first[1]


@pytest.mark.parametrize("answered", [0, 2])
def test_attention_is_measured_on_dialogues_that_have_an_answer(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answered: int
) -> None:
    """A dialogue whose first prompt exceeds the context has none; neither may all of them."""
    whole = Responder.answer_dialogues

    def last_ones(self: Responder, questions: Any, name: str) -> Any:
        found = whole(self, questions, name)
        without = len(found) - answered
        return [[]] * without + found[without:]

    monkeypatch.setattr(Responder, "answer_dialogues", last_ones)
    retention = {"trained": "test/gatt.jsonl", "dialogues": 3, "turns": 4}
    few = {name: inputs[name] for name in ("data", "sft", "sft_without_gatt")}
    found = run(settings(retention=retention), few, tmp_path)
    for series in ("with", "without"):
        assert found["gatt_dialogues"][series]["reached"]["1"] == answered
        attention = found["gatt_attention"][series]
        assert attention["dialogues"] == ({"1": 2, "2": 2, "4": 2} if answered else {})
        assert (attention["map"] is None) == (answered == 0)
