"""Scores of a reward model: one number per row, read at the answer's last token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LlamaForSequenceClassification

from ..batches import batches_by_length, tokens_at_once
from ..console import track
from ..errors import LlamitaError
from ..processes import phase
from .padding import pad_right
from .precision import computing_in


@phase("scoring")
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
    """Returns scores before the sigmoid of rows that end with EOS: `[rows]` fp32 on the CPU, in their order.

    A score is read at the row's last index; pads have no influence. Rows of similar length share a batch.

    Args:
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
        ids, last = pad_right([rows[row] for row in batch])
        # attention is causal and the padding is on the right, so no mask is needed
        with computing_in(dtype, model.device):
            hidden = model.base_model(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
        ends = hidden[torch.arange(len(batch)), last.to(hidden.device)].to(model.score.weight.dtype)
        scores[batch] = model.score(ends).squeeze(-1).float().cpu()
    if broken := int((~scores.isfinite()).sum()):
        raise LlamitaError(
            f"{name}: {broken} of {len(rows)} scores are NaN or infinite; its weights are broken, check that "
            "its training did not diverge"
        )
    return scores
