"""Logistic regression on n-grams of answers; cross-validation selects the strength of its L2 penalty."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from ..console import track
from ..data.rows import LabelledAnswer
from ..model.refusal_classifier import RefusalClassifier, ngrams_of

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths λ of the L2 penalty that are tried: the loss is the sum over answers plus λ / 2 · |weights|²."""
FOLDS = 5
FEWEST = 2  # training answers that an n-gram must occur in


class CrossValidation(NamedTuple):
    """Result of the cross-validation.

    Attributes:
        penalty: the strength λ with the lowest mean loss on answers that a fit did not see.
        losses: that loss by λ, in nats per answer.
        logits: `[answers]`, each by the fit with the selected λ that did not see the answer.
    """

    penalty: float
    losses: dict[float, float]
    logits: list[float]


def train_classifier(answers: Sequence[LabelledAnswer], penalty: float) -> RefusalClassifier:
    """Fits a classifier to all answers, in float64 to convergence; the result depends on nothing else."""
    ngrams = [ngrams_of(row.answer) for row in answers]
    counts = Counter(name for found in ngrams for name in found)
    names = sorted(name for name, count in counts.items() if count >= FEWEST)
    index = {name: number for number, name in enumerate(names)}
    rows = [sorted(index[name] for name in found & index.keys()) for found in ngrams]
    labels = torch.tensor([row.refusal for row in answers], dtype=torch.float64)
    weights, bias = _fit(rows, labels, len(names), penalty=penalty)
    return RefusalClassifier(dict(zip(names, weights.tolist(), strict=True)), bias.item())


def cross_validate(answers: Sequence[LabelledAnswer], seed: int) -> CrossValidation:
    """Tries all penalties; equal answers are in one fold. n-grams are counted without the fold's answers."""
    folds = _folds(answers, seed)
    logits = {penalty: [0.0] * len(answers) for penalty in PENALTIES}
    tasks = [(penalty, fold) for penalty in PENALTIES for fold in range(FOLDS)]
    for penalty, fold in track(tasks, "cross-validation", unit="fits"):
        seen = [row for row, other in zip(answers, folds, strict=True) if other != fold]
        classifier = train_classifier(seen, penalty)
        for number, (row, other) in enumerate(zip(answers, folds, strict=True)):
            if other == fold:
                logits[penalty][number] = classifier.logit(row.answer)
    labels = torch.tensor([row.refusal for row in answers], dtype=torch.float64)
    losses = {
        penalty: binary_cross_entropy_with_logits(torch.tensor(values, dtype=torch.float64), labels).item()
        for penalty, values in logits.items()
    }
    best = min(PENALTIES, key=lambda penalty: (losses[penalty], -penalty))
    return CrossValidation(best, losses, logits[best])


def _folds(answers: Sequence[LabelledAnswer], seed: int) -> list[int]:
    """Number of each answer's fold; the folds have equal shares of refusals, as far as possible."""
    refusals = {row.answer for row in answers if row.refusal}
    texts = sorted({row.answer for row in answers})
    random.Random(f"{seed}/refusal_classifier/folds").shuffle(texts)
    texts.sort(key=refusals.__contains__)  # stable: both parts stay shuffled
    fold_of = {text: number % FOLDS for number, text in enumerate(texts)}
    return [fold_of[row.answer] for row in answers]


def _fit(
    rows: Sequence[Sequence[int]], labels: Tensor, size: int, *, penalty: float
) -> tuple[Tensor, Tensor]:
    """Minimises the penalised loss, which is convex: weights `[size]` and bias `[1]`, float64.

    `rows`: for each answer the numbers of the n-grams in it. The bias is not penalised.
    """
    found = torch.tensor([number for row in rows for number in row])
    row_of = torch.tensor([index for index, row in enumerate(rows) for _ in row])
    weights = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, bias],
        max_iter=10_000,
        tolerance_grad=1e-7,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        # with the gradient: autograd's sums over repeated indices may depend on the order of threads
        with torch.no_grad():
            logits = bias + torch.zeros_like(labels).index_add(0, row_of, weights[found])
            errors = logits.sigmoid() - labels
            bias.grad = errors.sum(0, keepdim=True)
            weights.grad = torch.zeros_like(weights).index_add(0, found, errors[row_of]) + penalty * weights
            data_loss = binary_cross_entropy_with_logits(logits, labels, reduction="sum")
            return data_loss + penalty / 2 * weights.square().sum()

    optimizer.step(loss)
    return weights.detach(), bias.detach()
