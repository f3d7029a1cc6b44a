"""Which of the stored comparisons are training pairs, held out, mixed in or skipped."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..console import say
from ..data.held_out import held_out_mask
from ..errors import DataError
from .evasions import sample_evasions
from .settings import RewardSettings

HELD_OUT, TOO_LONG = "its prompt is held out", "longer than {} tokens"


@dataclass
class Selection:
    """Indices of stored comparisons, int64: pairs to train on and held-out pairs, each in their order.

    `mixed` and `evasions` are the numbers of training pairs from `mix` and of those with an evasion.
    """

    train: np.ndarray
    test: np.ndarray
    mixed: int
    evasions: int
    skipped: Counter[str] = field(default_factory=Counter)


def select_pairs(
    settings: RewardSettings, groups: Mapping[str, range], fractions: np.ndarray, *, fits: np.ndarray
) -> Selection:
    """Selects from comparisons, numbered as they are stored.

    Args:
        groups: the comparisons of `comparisons`, `test`, `evasions` and `mix`.
        fractions: `hash_fraction` of each one's opening, float64 `[comparisons]`; equal ones are one prompt.
        fits: whether each pair fits into `max_length` tokens, bool `[comparisons]`.

    Raises DataError if no training pair or no held-out pair is left.
    """
    skipped: Counter[str] = Counter()

    def drop_held_out(rows: np.ndarray) -> np.ndarray:
        kept = rows[~np.isin(fractions[rows], held_out_prompts)]
        skipped[HELD_OUT] += len(rows) - len(kept)
        return kept

    def drop_too_long(rows: np.ndarray) -> np.ndarray:
        kept = rows[fits[rows]]
        skipped[TOO_LONG.format(settings.max_length)] += len(rows) - len(kept)
        return kept

    comparisons, test, evasive, mix = (
        np.arange(group.start, group.stop)
        for group in (groups[name] for name in ("comparisons", "test", "evasions", "mix"))
    )
    total = len(comparisons)
    if not settings.test:
        held_out = held_out_mask(fractions[comparisons], settings.held_out)
        comparisons, test = comparisons[~held_out], comparisons[held_out]
    held_out_share = f"{len(test):,} of {total:,} held out" if settings.held_out else None
    held_out_prompts = fractions[test]
    evasions: list[int] = []
    held_out_evasions: list[int] = []
    if settings.evasions:
        usable = drop_too_long(drop_held_out(evasive)).tolist()
        evasions, held_out_evasions = sample_evasions(settings.evasions, usable, settings.seed)
        held_out_prompts = np.concatenate([held_out_prompts, fractions[held_out_evasions]])
    train, mixed = (drop_held_out(rows) for rows in (comparisons, mix))
    train, mixed, test = (drop_too_long(rows) for rows in (train, mixed, test))
    drawn = _sample_mix(settings, mixed.tolist(), len(train)) if settings.mix else []
    for reason, count in (+skipped).items():
        say(f"{count:,} comparisons skipped: {reason}")
    _check_any_left(train, test, skipped, held_out=held_out_share)
    return Selection(
        train=np.concatenate([train, np.array([*drawn, *evasions], dtype=np.int64)]),
        test=np.concatenate([test, np.array(held_out_evasions, dtype=np.int64)]),
        mixed=len(drawn),
        evasions=len(evasions),
        skipped=+skipped,
    )


def _check_any_left(
    pairs: np.ndarray, test: np.ndarray, skipped: Counter[str], *, held_out: str | None
) -> None:
    """Raises DataError, with the reasons, if no training pair or no held-out pair is left."""
    reasons = [f"{count:,} skipped: {reason}" for reason, count in (+skipped).items()]
    reasons += [held_out] if held_out else []
    for name, rows in (("training", pairs), ("held-out", test)):
        if not len(rows):
            raise DataError(
                f"no {name} pair is left ({', '.join(reasons) or 'the sources are empty'}); "
                "expected at least one"
            )


def _sample_mix(settings: RewardSettings, ordinary: list[int], count: int) -> list[int]:
    """Draws ordinary pairs so that they are `mix_share` of the training pairs, besides `count` others."""
    size = round(count * settings.mix_share / (1 - settings.mix_share))
    if size > len(ordinary):
        say(f"mix: only {len(ordinary):,} comparisons; a share of {settings.mix_share} needs {size:,}")
    rng = random.Random(f"{settings.seed}/mix")
    return rng.sample(ordinary, min(size, len(ordinary)))
