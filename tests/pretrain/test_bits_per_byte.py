"""Bits per byte equal a computation token by token."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from llamita.corpus.shards import TokenShards
from llamita.errors import DataError
from llamita.pretrain import bits_per_byte as module
from llamita.pretrain.bits_per_byte import bits_per_byte, counted_bytes, model_nats, unigram_nats

from ..helpers.streams import write_stream
from ..helpers.tiny import tiny_model

VOCABULARY = 29
BOS = 1


def documents_of(ids: list[int]) -> list[list[int]]:
    """Cut where documents begin."""
    begins = [place for place, token in enumerate(ids) if token == BOS]
    return [ids[a:b] for a, b in zip(begins, [*begins[1:], len(ids)], strict=True)]


def stream(folder: Path, tokens: int, seed: int = 0) -> tuple[list[int], TokenShards]:
    draw = random.Random(seed)
    ids = [BOS, *(draw.choice((3, 4, 4, 4, 5, 20, BOS)) for _ in range(tokens - 1))]
    return ids, write_stream(documents_of(ids), folder, VOCABULARY, 7)


def test_bits_per_byte() -> None:
    assert bits_per_byte(3 * math.log(2), 4) == pytest.approx(0.75)
    assert bits_per_byte(0.0, 4) == 0


def test_without_bos_the_first_token_of_a_document_has_no_bytes(tmp_path: Path, tokenizer: Any) -> None:
    """Nothing predicts it, so its nats are not counted either."""
    texts = ["is it red ?", "fine", "is it bolo today ?"]
    stream = write_stream([tokenizer.encode(text) for text in texts], tmp_path, len(tokenizer), 3)
    size = sum(map(len, texts))
    assert counted_bytes(size, [stream], tokenizer) == size
    without = copy.deepcopy(tokenizer)
    without.bos_token = None
    ids = [without(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert [without.decode(one[:1]) for one in ids] == ["is", "fine", "is"]
    streams = [
        write_stream(part, tmp_path / str(len(part)), len(tokenizer), 3) for part in (ids[:1], ids[1:])
    ]
    assert counted_bytes(size, streams, without) == size - len("is") - len("fine") - len("is")
    one = write_stream([ids[1]], tmp_path / "one", len(tokenizer), 3)
    with pytest.raises(DataError, match=r"one token each \(1 documents, 4 bytes\)"):
        counted_bytes(4, [one], without)


def test_unigram(tmp_path: Path) -> None:
    train, train_shards = stream(tmp_path / "train", 50)
    more, more_shards = stream(tmp_path / "more", 30, seed=2)
    held_out, _ = stream(tmp_path / "drawn", 20, seed=1)
    held_out[5:7] = [27, 28]  # never trained
    held_out_shards = write_stream(documents_of(held_out), tmp_path / "validation", VOCABULARY, 7)
    counts = Counter(train + more)
    total = len(train) + len(more) + VOCABULARY
    expected = sum(-math.log((counts[token] + 1) / total) for token in held_out if token != BOS)
    found = unigram_nats([train_shards, more_shards], [held_out_shards], VOCABULARY)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("tokens", [2, 9, 24, 25, 31])
def test_model_nats_token_by_token(tmp_path: Path, tokens: int, across: bool) -> None:
    """Windows of 8: each token is predicted from those since the last multiple of 8 before it, or fewer."""
    context = 8
    ids, shards = stream(tmp_path, tokens)
    model = tiny_model()
    expected = 0.0
    for at in range(1, tokens):
        start = (at - 1) // context * context
        if not across:
            start = max(start, *(place for place in range(at) if ids[place] == BOS), 0)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[start:at]])).logits[0, -1].double()
        expected -= float(logits.log_softmax(-1)[ids[at]]) if ids[at] != BOS else 0.0
    for batch in (1, 2, 16):
        found = model_nats(model, shards, context, isolate_documents=not across, batch=batch)
        assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shares", [2, 3, 5])
def test_shares_add_up_to_the_whole(tmp_path: Path, shares: int) -> None:
    _, shards = stream(tmp_path, 60)
    model = tiny_model()
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    parts, taken = [], []
    for share in range(shares):
        passes.clear()
        parts += [model_nats(model, shards, 8, isolate_documents=True, batch=2, share=share, shares=shares)]
        taken += [len(passes)]
    assert len(set(taken)) == 1  # with ZeRO-3 ranks wait for each other
    assert sum(parts) == pytest.approx(
        model_nats(model, shards, 8, isolate_documents=True, batch=2), rel=1e-6
    )


def test_evaluation_does_not_change_the_model(tmp_path: Path) -> None:
    model = tiny_model(attention_dropout=0.5).train()
    _, shards = stream(tmp_path, 30)
    first, second = (model_nats(model, shards, 8, isolate_documents=True, batch=2) for _ in range(2))
    assert first == second  # without dropout
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("shares", [1, 3])
def test_a_window_is_read_when_it_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shares: int
) -> None:
    """All windows as int64 would take 24 bytes a token on every rank."""
    _, shards = stream(tmp_path, 60)
    model = tiny_model()
    waiting: list[int] = []
    read = TokenShards.read

    def counted(self: TokenShards, start: int, stop: int) -> Any:
        waiting.append(start)
        assert len(waiting) <= 2, "more windows than one batch are held"
        return read(self, start, stop)

    monkeypatch.setattr(TokenShards, "read", counted)
    model.register_forward_hook(lambda *_: waiting.clear())
    model_nats(model, shards, 8, isolate_documents=True, batch=2, shares=shares)


def test_logits_are_copied_to_fp32_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, shards = stream(tmp_path, 60)
    model = tiny_model()
    expected = model_nats(model, shards, 8, isolate_documents=True, batch=4)
    monkeypatch.setattr(module, "EVALUATED_AT_ONCE", 5)
    seen: list[int] = []
    whole = F.cross_entropy

    def counted(logits: Any, *args: Any, **options: Any) -> Any:
        seen.append(len(logits))
        return whole(logits, *args, **options)

    monkeypatch.setattr(F, "cross_entropy", counted)
    assert model_nats(model, shards, 8, isolate_documents=True, batch=4) == pytest.approx(expected, rel=1e-6)
    assert max(seen) == 5
