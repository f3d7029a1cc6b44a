"""The losses of the reward models (section 3.2.2), on scores before the sigmoid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.rows import RATINGS

# Table 27: margin by which the score of the chosen answer has to be higher, by rating, best rating first
MARGINS: dict[str, tuple[float, float, float, float]] = {
    "none": (0.0, 0.0, 0.0, 0.0),
    "small": (1.0, 2 / 3, 1 / 3, 0.0),
    "large": (3.0, 2.0, 1.0, 0.0),
}


def margin(rating: str | None, table: str) -> float:
    """m(r) of equation 2: the margin of a rating in a row of table 27; 0 for a pair without rating."""
    return MARGINS[table][RATINGS.index(rating)] if rating in RATINGS else 0.0


def ranking_loss(chosen: Tensor, rejected: Tensor, margins: Tensor) -> Tensor:
    """Equation 2: mean over pairs of -log sigmoid(r(x, y_c) - r(x, y_r) - m(r)).

    All arguments `[pairs]` float; returns a scalar.
    """
    return -F.logsigmoid(chosen - rejected - margins).mean()


def centring_loss(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Mean over pairs of (r(x, y_c) + r(x, y_r))^2, which centres scores at 0 (Eisenstein et al. 2023).

    The ranking loss does not determine the offset of the scores of a prompt. All arguments `[pairs]` float;
    returns a scalar.
    """
    return (chosen + rejected).square().mean()


def safety_loss(scores: Tensor, safe: Tensor) -> Tensor:
    """The auxiliary safety classification loss: binary cross-entropy of "this answer is safe".

    The paper gives no formula. Here it is computed on the same scalar as the ranking loss, so a score above 0
    (0.5 after the sigmoid) predicts "safe".

    Args:
        scores: `[answers]` float, before the sigmoid.
        safe: `[answers]` float: 1 safe, 0 unsafe, NaN unknown.

    Returns:
        The mean over the answers that are not unknown, a scalar; 0 if there are none.
    """
    known = ~torch.isnan(safe)
    losses = F.binary_cross_entropy_with_logits(scores, safe.nan_to_num(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)
