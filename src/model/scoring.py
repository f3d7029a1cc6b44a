"""Scores of a reward model: one number a row, read where the answer ends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LlamaForSequenceClassification

from ..batches import batches_by_length, tokens_at_once
from ..console import track
from ..errors import LlamitaError
from .padding import pad_right
from .precision import computing_in


@torch.no_grad()
def terminal_scores(
    model: LlamaForSequenceClassification,
    rows: Sequence[Sequence[int]],
    batch_size: int = 128,
    *,
    dtype: str = "float32",
    label: str | None = None,
    name: object = "reward model",
) -> Tensor:
    """Scores before the sigmoid of rows that end with EOS: `[rows]` fp32 on the CPU, in the given order.

    Each is read at the row's own last index; nothing is inferred from pads. Rows of like
    length share a batch.

    Args:
        batch_size: rows read at once, at most.
        dtype: precision of all but the head (see `computing_in`).
        label: of a progress bar; None shows none.
        name: of the model in errors.

    Raises:
        LlamitaError: a score is NaN or infinite.
    """
    dealt = batches_by_length([len(row) for row in rows], batch_size, tokens_at_once(model.device))
    scores = torch.empty(len(rows))
    for batch in track(dealt, label, len(rows), unit="answers", amount=len):
        ids, last = pad_right([rows[row] for row in batch])
        # attention is causal and the pads stand on the right: no mask is needed to keep them out
        with computing_in(dtype, model.device):
            hidden = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
        ends = hidden[torch.arange(len(batch)), last.to(hidden.device)].to(model.score.weight.dtype)
        scores[batch] = model.score(ends).squeeze(-1).float().cpu()
    if broken := int((~scores.isfinite()).sum()):
        raise LlamitaError(
            f"{name}: {broken} of {len(rows)} scores are NaN or infinite; its weights are broken"
        )
    return scores
