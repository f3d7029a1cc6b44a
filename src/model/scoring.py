"""Scores of a reward model: one number per row, read at the answer's last token."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..batches import batches_by_length, tokens_at_once
from ..console import track
from ..distributed.group import all_reduce_sum
from ..errors import LlamitaError
from ..processes import phase, rank, world_size
from .frozen import missing_passes
from .lora import plain
from .padding import pad_right
from .precision import computing_in

SHARED_BATCH = 128  # maximum number of rows per batch


@phase("scoring")
@torch.no_grad()
def terminal_scores(
    model: Any,
    rows: Sequence[Sequence[int]],
    batch_size: int = 128,
    *,
    dtype: str = "float32",
    label: str | None = None,
    name: object = "reward model",
) -> Tensor:
    """Returns scores before the sigmoid of rows that end with EOS: `[rows]` fp32 on the CPU, in their order.

    A score is read at the row's last index; pads have no influence. Rows of similar length share a batch.

    Args:
        model: a `LlamaForSequenceClassification`, or a model with its `base_model`, `score` and `device`. If
            it is `partitioned`, every rank must call this function, also without rows.
        batch_size: maximum number of rows per batch.
        dtype: precision of all layers except the head (see `computing_in`).
        label: label of a progress bar; None shows none.
        name: name of the model in errors.

    Raises:
        LlamitaError: a score is NaN or infinite.
    """
    batches = batches_by_length([len(row) for row in rows], batch_size, tokens_at_once(model.device))
    scores = torch.empty(len(rows))
    for batch in track(batches, label, len(rows), unit="answers", amount=len):
        scores[batch] = _scores(model, [rows[row] for row in batch], dtype)
    partitioned = getattr(model, "partitioned", False)
    if partitioned:
        for _ in range(missing_passes(len(batches))):
            _scores(model, [[0]], dtype)
    return _checked(scores, name, shared=partitioned)


def _scores(model: Any, rows: Sequence[Sequence[int]], dtype: str) -> Tensor:
    """Scores before the sigmoid of one batch: `[rows]` fp32 on the CPU."""
    ids, last = pad_right(rows)
    # attention is causal and the padding is on the right, so no mask is needed
    with computing_in(dtype, model.device):
        hidden = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    ends = hidden[torch.arange(len(rows)), last.to(hidden.device)].to(model.score.weight.dtype)
    scores: Tensor = model.score(ends).squeeze(-1).float().cpu()
    return scores


@torch.no_grad()
def shared_scores(
    model: Any, rows: Sequence[Sequence[int]], lengths: Sequence[int], *, label: str | None = None
) -> Tensor:
    """As `terminal_scores`, with a trainer's model; every rank computes a share and gets all scores.

    The model is called as in training, so also with partitioned weights and in the run's own precision. All
    ranks take the same number of forward passes, because with ZeRO-3 each needs the others.

    `lengths` of the rows, so that a row is read only where it is scored.
    """
    batches = batches_by_length(lengths, SHARED_BATCH, tokens_at_once(model.device))
    own = batches[rank() :: world_size()]
    missing = -(-len(batches) // world_size()) - len(own)
    scores = torch.zeros(len(rows))
    training = model.training
    model.eval()
    for number, batch in enumerate(chain(track(own, label, unit="batches"), batches[:1] * missing)):
        ids, _ = pad_right([rows[row] for row in batch], plain(model).config.pad_token_id)
        found = model(input_ids=ids.to(model.device), use_cache=False).logits.squeeze(-1).float().cpu()
        if number < len(own):
            scores[batch] = found
    model.train(training)
    return _checked(all_reduce_sum(scores), "reward model")


def _checked(scores: Tensor, name: object, *, shared: bool = False) -> Tensor:
    """Returns the scores. Raises LlamitaError if one is NaN or infinite.

    `shared`: on all ranks if it is so on one of them, because the others would wait for its next pass.
    """
    counts = torch.tensor([int((~scores.isfinite()).sum()), len(scores)])
    broken, count = (all_reduce_sum(counts) if shared else counts).tolist()
    if broken:
        raise LlamitaError(
            f"{name}: {broken} of {count} scores are NaN or infinite; its weights are broken, check "
            "that its training did not diverge"
        )
    return scores
