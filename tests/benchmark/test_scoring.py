from __future__ import annotations

import random

import pytest
import torch

from llamita.benchmark.scoring import Continuation, score_continuations
from llamita.sampling.beginnings import clusters

from ..helpers.architectures import tiny_architecture
from ..helpers.tiny import tiny_model


def draw_rows(seed: int = 1) -> list[Continuation]:
    """Rows with long common beginnings, equal inputs, and continuations of one to four tokens."""
    draw = random.Random(seed)
    beginnings = [[1, *(draw.randrange(3, 29) for _ in range(70))] for _ in range(2)] + [[1]]
    rows = []
    for _ in range(16):
        context = [*draw.choice(beginnings), *(draw.randrange(3, 29) for _ in range(draw.randrange(1, 9)))]
        length = draw.randrange(1, 5)
        for count in (length, length, length, 1, 1):
            ids = (*context, *(draw.randrange(3, 29) for _ in range(count)))
            rows.append(Continuation(ids, count))
    return rows


@pytest.mark.parametrize("cached", [40, 10**6], ids=["small_batches", "large_batches"])
@pytest.mark.parametrize("least", [64, 10**6], ids=["shared", "not_shared"])
def test_scores_are_those_of_the_whole_table_of_logits(
    cached: int, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "__defaults__", (least,))
    monkeypatch.setattr("llamita.benchmark.scoring.LOGITS", 100)
    model, rows = tiny_model(), draw_rows()
    found = score_continuations(model, rows, cached_tokens=cached, label=None)
    for (ids, count), (logprob, greedy) in zip(rows, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:-1]])).logits[0, -count:]
        tokens = torch.tensor(ids[-count:])
        expected = logits.log_softmax(-1).gather(-1, tokens[:, None]).sum()
        assert logprob == pytest.approx(float(expected), abs=1e-4)
        assert greedy == bool((logits.argmax(-1) == tokens).all())


@pytest.mark.parametrize(
    "name", ["mistral", "gemma2", "deepseek_v3", "opt", "llama4_text", "lfm2", "qwen3_next"]
)
def test_scores_of_other_architectures(name: str) -> None:
    model, rows = tiny_architecture(name), draw_rows()[:20]
    found = score_continuations(model, rows, cached_tokens=10**6, label=None)
    for (ids, count), (logprob, _) in zip(rows, found, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([ids[:-1]])).logits[0, -count:]
        expected = logits.float().log_softmax(-1).gather(-1, torch.tensor(ids[-count:])[:, None]).sum()
        assert logprob == pytest.approx(float(expected), abs=1e-3)


def test_tokens_are_processed_once_per_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_model(), []
    beginnings = [[1, *([token] * 70)] for token in (3, 4)]
    rows = [
        Continuation((*beginning, 5 + first, second, 9), 1)
        for beginning in beginnings
        for first in range(5)
        for second in range(5, 9)
    ]
    forward = model.model.forward

    def counted(input_ids: torch.Tensor, **options: object) -> object:
        seen.append(input_ids.numel())
        return forward(input_ids=input_ids, **options)

    monkeypatch.setattr(model.model, "forward", counted)
    score_continuations(model, rows, cached_tokens=10**6, label=None)
    assert sum(seen) == 2 * 71 + 40 * 2


def test_clusters_have_every_row_once_and_share_what_they_say() -> None:
    rows = [row.ids for row in draw_rows()]
    found = clusters(rows, [len(ids) - 1 for ids in rows])
    assert sorted(row for cluster in found for row in cluster.rows) == list(range(len(rows)))
    assert len([cluster for cluster in found if cluster.shared]) == 2
    for cluster in found:
        beginnings = {rows[row][: cluster.shared] for row in cluster.rows}
        assert len(beginnings) == 1
        assert all(len(rows[row]) > cluster.shared for row in cluster.rows)
    assert clusters([], []) == []
