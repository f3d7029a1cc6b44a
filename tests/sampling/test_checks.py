"""Which rows are finished is checked every few steps; between two checks nothing waits for the device."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llamita.sampling import llama as sampler_module
from llamita.sampling.decoder import Decoder
from llamita.sampling.dialogues import DialogueSampler

from ..helpers.questions import QUESTIONS
from ..helpers.tiny import ragged_prompts, tiny_model

# Digests of the answers of 27 November 2026, before batches by cache tokens and checks every few steps.
ANSWERS = {
    "1.0 1.0": "0e3fdcc034499c22",
    "0.7 0.9": "de8d8650b7109488",
    "0 1.0": "49a087ec09d942cf",
    "dialogues 1.0 512": "346397d9766b0446",
    "dialogues 0 512": "a8c2a8ea5998cf99",
    "dialogues 1.0 40": "2f6bb9718f2b7bc8",
}
# Operations whose result the host reads, whose shape depends on values, or that copy from the host.
WAITING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.lift_fresh")


def digest(answers: Any) -> str:
    return hashlib.sha256(json.dumps(answers).encode()).hexdigest()[:16]


@pytest.fixture(params=[1, 3, 8, 100])
def interval(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setitem(sampler_module._STEPS_PER_CHECK, "cpu", request.param)
    return int(request.param)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (0, 1.0)])
def test_answers_are_those_of_before(interval: int, temperature: float, top_p: float) -> None:
    sampler, prompts = DialogueSampler(tiny_model()), ragged_prompts(17)
    found = sampler.sample(prompts, 16, 4, temperature=temperature, top_p=top_p, seed=5)
    assert digest([found.answer_ids, found.finished]) == ANSWERS[f"{temperature} {top_p}"]
    lengths = [len(answer) for answer in found.answer_ids]
    assert lengths == [len(row) for row in found.logprobs]
    assert len(set(lengths)) > 3


@pytest.mark.parametrize(("temperature", "context"), [(1.0, 512), (0, 512), (1.0, 40)])
def test_dialogues_are_those_of_before(interval: int, temperature: float, context: int) -> None:
    sampler = DialogueSampler(tiny_model(vocab_size=40, max_position_embeddings=512))
    found = sampler.sample_dialogues(QUESTIONS * 5, 6, context, temperature=temperature, seed="s")
    assert digest(found) == ANSWERS[f"dialogues {temperature} {context}"]


class Waits(TorchDispatchMode):
    """Records the operations for which the host would wait for a GPU, by the steps that have begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.begun, self.operations = 0, Counter[int]()
        step = Decoder.step

        def counted(decoder: Decoder, tokens: torch.Tensor) -> torch.Tensor:
            self.begun += 1
            return step(decoder, tokens)

        monkeypatch.setattr(Decoder, "step", counted)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = str(function), kwargs or {}
        by_mask = name.startswith(("aten.index.", "aten.index_put")) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        moved = name.startswith("aten._to_copy") and kwargs.get("device") is not None
        if by_mask or moved or name.startswith(WAITING):
            self.operations[self.begun] += 1
        return function(*args, **kwargs)


@pytest.mark.parametrize("dialogues", [False, True])
def test_between_two_checks_nothing_waits(dialogues: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sampler_module._STEPS_PER_CHECK, "cpu", 8)
    sampler = DialogueSampler(tiny_model(vocab_size=40, max_position_embeddings=512))
    with Waits(monkeypatch) as waits:
        if dialogues:
            sampler.sample_dialogues(QUESTIONS, 20, 512, seed="s")
        else:
            sampler.sample(ragged_prompts(9), 64, 2, seed=5)
    assert waits.begun > 30
    checks = {step - 1 for step in range(8, waits.begun, 8)}
    assert checks <= waits.operations.keys(), "otherwise this test sees nothing"
    assert waits.operations.keys() <= checks | {0, waits.begun}, "the prefill and the end may wait"
    # one for the check; where the cache changes, the places of rows and prompts are copied to the device
    assert max(waits.operations[step] for step in checks) <= 7
