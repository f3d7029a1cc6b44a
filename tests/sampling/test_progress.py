"""Sampling and scoring show progress answer by answer if they have a label, and none without."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from llamita import console
from llamita.model.scoring import terminal_scores
from llamita.sampling.dialogues import DialogueSampler
from llamita.sampling.generate import GenerateSampler
from llamita.sampling.logprobs import answer_logprobs

from ..helpers.questions import QUESTIONS
from ..helpers.tiny import ragged_prompts, tiny_model


def sample(sampler: Any, label: str | None) -> int:
    samples = sampler.sample(ragged_prompts(6), 12, 2, label=label)
    assert len(set(samples.finished)) == 2, "some answers end at the limit"
    return 12


def sample_dialogues(sampler: Any, label: str | None) -> int:
    return sum(map(len, sampler.sample_dialogues(QUESTIONS, 6, 128, label=label)))


def score(label: str | None) -> int:
    config = tiny_model().config
    config.num_labels = 1
    terminal_scores(LlamaForSequenceClassification(config), ragged_prompts(10), 4, label=label)
    return 10


def logprobs(label: str | None) -> int:
    prompts = ragged_prompts(10)
    answer_logprobs(tiny_model(), prompts, prompts, batch_size=4, label=label)
    return 10


WORK: dict[str, Callable[[str | None], int]] = {
    "sample": lambda label: sample(DialogueSampler(tiny_model(), 100), label),
    "sample by generate": lambda label: sample(GenerateSampler(tiny_model(), 100), label),
    "dialogues": lambda label: sample_dialogues(DialogueSampler(tiny_model(vocab_size=40), 100), label),
    "score": score,
    "logprobs": logprobs,
}


@pytest.mark.parametrize("name", WORK)
def test_every_answer_is_counted_once(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.0)
    total = WORK[name]("v1")
    done = [
        int(found) for found in re.findall(rf"^v1: (\d+)/{total} answers, ", printed(capsys), re.MULTILINE)
    ]
    assert len(set(done)) > 2
    assert done == sorted(done)
    assert done[-1] == total
    torch.manual_seed(0)
    WORK[name](None)
    assert printed(capsys) == ""


def test_dialogues_by_generate_turn_by_turn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "PLAIN_INTERVAL", 0.0)
    sample_dialogues(GenerateSampler(tiny_model(vocab_size=40), 25), "v1")
    lines = printed(capsys).splitlines()
    assert [line.split(" answers")[0] for line in lines] == [
        *("v1, turn 1: 2/3", "v1, turn 1: 3/3", "v1, turn 2: 1/3", "v1, turn 2: 2/3", "v1, turn 2: 3/3"),
        *("v1, turn 3: 1/2", "v1, turn 3: 2/2", "v1, turn 4: 1/2", "v1, turn 4: 2/2"),
    ]


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out
