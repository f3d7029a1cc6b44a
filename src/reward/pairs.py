"""Comparisons as token ids: training pairs, held-out pairs, and counts of skipped comparisons."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..chat_format.encoding import encode_answer, encode_prompt
from ..console import say
from ..data.held_out import opening, split_held_out
from ..data.intake import Intake
from ..data.rows import Comparison
from ..data.sources import read_comparisons
from ..errors import DataError
from .evasions import evasive_comparisons, sample_evasions
from .settings import RewardSettings


@dataclass(frozen=True)
class Pair:
    """A comparison with token ids of the prompt and each of its answers, EOS included.

    `prompt_truncated`: whether the oldest tokens of the prompt were removed, the same number in both.
    `evasion`: whether the pair was made from a reference answer and an evasion (`evasions`).
    """

    comparison: Comparison
    chosen_ids: list[int]
    rejected_ids: list[int]
    prompt_truncated: bool = False
    evasion: bool = False


def read_pairs(
    settings: RewardSettings,
    root: Path,
    tokenizer: Any,
    *,
    answers_root: Path | None = None,
    intake: Intake | None = None,
) -> tuple[list[Pair], list[Pair], dict[str, Any]]:
    """Training pairs (with the `mix` and the `evasions`), held-out pairs, and counts.

    Comparisons whose prompt is held out are not trained on. Source paths are relative to `root`, those of
    `evasions.answers` to `answers_root` if it is given.
    Counts: `train_pairs`, and how many of them are `mixed_pairs` and `evasion_pairs`; `truncated_prompts`
    (training and held-out pairs); those of `intake`, over all sources.
    Raises DataError if no training pair or no held-out pair is left.
    """
    intake = intake or Intake()
    comparisons = read_comparisons(settings.comparisons, root, intake)
    skipped: Counter[str] = Counter()
    encode = partial(
        encode_pairs,
        tokenizer,
        max_length=settings.max_length,
        truncate_prompts=settings.truncate_prompts,
        skipped=skipped,
    )
    train: Sequence[Comparison] = comparisons
    if settings.test:
        held_out = read_comparisons(settings.test, root, intake)
    else:
        train, held_out = split_held_out(comparisons, settings.held_out, settings.seed)
    held_out_openings = {opening(comparison) for comparison in held_out}
    evasions: list[Pair] = []
    held_out_evasions: list[Pair] = []
    if settings.evasions:
        made = evasive_comparisons(
            settings.evasions, root, answers_root or root, seed=settings.seed, intake=intake
        )
        encoded = encode(_skip_held_out(made, held_out_openings, skipped))
        evasive = [replace(pair, evasion=True) for pair in encoded]
        evasions, held_out_evasions = sample_evasions(settings.evasions, evasive, settings.seed)
        held_out_openings |= {opening(pair.comparison) for pair in held_out_evasions}
    ordinary = read_comparisons(settings.mix, root, intake)
    train, mix = (_skip_held_out(rows, held_out_openings, skipped) for rows in (train, ordinary))
    pairs, mixed_pairs, test = (encode(rows) for rows in (train, mix, held_out))
    if settings.mix:
        mixed_pairs = _sample_mix(settings, mixed_pairs, len(pairs))
    for reason, count in (+skipped).items():
        say(f"{count:,} comparisons skipped: {reason}")
    held_out_share = f"{len(held_out):,} of {len(comparisons):,} held out" if settings.held_out else None
    _check_any_left(pairs, test, skipped, held_out=held_out_share)
    pairs += [*mixed_pairs, *evasions]
    test += held_out_evasions
    if truncated := sum(pair.prompt_truncated for pair in [*pairs, *test]):
        say(f"{truncated:,} prompts truncated: the pair is longer than {settings.max_length} tokens")
    counts = {
        "train_pairs": len(pairs),
        "mixed_pairs": len(mixed_pairs),
        "evasion_pairs": len(evasions),
        "truncated_prompts": truncated,
    }
    intake.skipped.update(skipped)
    return pairs, test, counts | intake.metrics()


def _check_any_left(
    pairs: Sequence[Pair], test: Sequence[Pair], skipped: Counter[str], *, held_out: str | None
) -> None:
    """Raises DataError, with the reasons, if no training pair or no held-out pair is left."""
    reasons = [f"{count:,} skipped: {reason}" for reason, count in (+skipped).items()]
    reasons += [held_out] if held_out else []
    for name, rows in (("training", pairs), ("held-out", test)):
        if not rows:
            raise DataError(
                f"no {name} pair is left ({', '.join(reasons) or 'the sources are empty'}); "
                "expected at least one"
            )


def _skip_held_out(
    comparisons: Sequence[Comparison], held_out_openings: set[str], skipped: Counter[str]
) -> list[Comparison]:
    kept = [comparison for comparison in comparisons if opening(comparison) not in held_out_openings]
    skipped["its prompt is held out"] += len(comparisons) - len(kept)
    return kept


def _sample_mix(settings: RewardSettings, ordinary: Sequence[Pair], count: int) -> list[Pair]:
    """Draws ordinary pairs so that they are `mix_share` of the training pairs, besides `count` others.

    Their answers are labelled safe, unless they are labelled already.
    """
    size = round(count * settings.mix_share / (1 - settings.mix_share))
    if size > len(ordinary):
        say(f"mix: only {len(ordinary):,} comparisons; a share of {settings.mix_share} needs {size:,}")
    rng = random.Random(f"{settings.seed}/mix")
    drawn = rng.sample(ordinary, min(size, len(ordinary)))
    return [replace(pair, comparison=_safe_unless_labelled(pair.comparison)) for pair in drawn]


def _safe_unless_labelled(comparison: Comparison) -> Comparison:
    return replace(
        comparison,
        chosen_safe=comparison.chosen_safe is not False,
        rejected_safe=comparison.rejected_safe is not False,
    )


def encode_pairs(
    tokenizer: Any,
    comparisons: Sequence[Comparison],
    max_length: int,
    *,
    truncate_prompts: bool,
    skipped: Counter[str],
) -> list[Pair]:
    """Pairs in the chat format; pairs longer than `max_length` tokens are skipped and counted in `skipped`.

    With `truncate_prompts` the prompts of longer pairs are truncated from the left instead; a pair is skipped
    only if an answer leaves no room for the prompt.
    """
    pairs = []
    for comparison in comparisons:
        prompt = encode_prompt(tokenizer, comparison.prompt)
        chosen, rejected = (
            encode_answer(tokenizer, answer) for answer in (comparison.chosen, comparison.rejected)
        )
        room = max_length - max(len(chosen), len(rejected))
        too_long = len(prompt) > room
        if too_long and (room < 1 or not truncate_prompts):
            skipped[f"longer than {max_length} tokens"] += 1
        else:
            kept = prompt[-room:]
            pairs.append(Pair(comparison, kept + chosen, kept + rejected, too_long))
    return pairs


def safety_label(safe: bool | None) -> float:
    """1 for safe, 0 for unsafe, NaN for unknown."""
    return math.nan if safe is None else float(safe)
