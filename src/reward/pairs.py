"""Comparisons as token ids: which are trained, which held out, which refused."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..chat_format.encoding import encode_answer, encode_prompt
from ..console import say
from ..data.held_out import opening, split_held_out
from ..data.intake import Intake
from ..data.rows import Comparison
from ..data.sources import read_comparisons
from ..errors import DataError
from .settings import RewardSettings


@dataclass(frozen=True)
class Pair:
    """A comparison with the ids of prompt and answer, EOS included, for each of its answers.

    `prompt_cut`: whether the prompt has lost its oldest tokens, in both alike.
    """

    comparison: Comparison
    chosen_ids: list[int]
    rejected_ids: list[int]
    prompt_cut: bool = False


def read_pairs(
    settings: RewardSettings, root: Path, tokenizer: Any, *, intake: Intake | None = None
) -> tuple[list[Pair], list[Pair], dict[str, Any]]:
    """Training pairs (with the `mix`), held-out pairs, and counts.

    No prompt stands on both sides: comparisons whose prompt is held out are not trained.
    Counts: `train_pairs` and, of these, `mixed_pairs`; `truncate_prompts` (of pairs on either side); those of
    `intake`, of all sources.
    Raises DataError where no pair is left to train or to hold out.
    """
    intake = intake or Intake()
    comparisons = read_comparisons(settings.comparisons, root, intake)
    refused: Counter[str] = Counter()
    train: Sequence[Comparison] = comparisons
    if settings.test:
        held_out = read_comparisons(settings.test, root, intake)
    else:
        train, held_out = split_held_out(comparisons, settings.held_out, settings.seed)
    openings = {opening(one) for one in held_out}
    ordinary = read_comparisons(settings.mix, root, intake)
    train, mix = (_without(openings, rows, refused) for rows in (train, ordinary))
    pairs, mixed_pairs, test = (
        encode_pairs(
            tokenizer, rows, settings.max_length, truncate_prompts=settings.truncate_prompts, skipped=refused
        )
        for rows in (train, mix, held_out)
    )
    if settings.mix:
        mixed_pairs = _mix(settings, mixed_pairs, len(pairs))
    for reason, count in (+refused).items():
        say(f"{count:,} comparisons left out: {reason}")
    pairs += mixed_pairs
    if cut := sum(pair.prompt_cut for pair in [*pairs, *test]):
        say(f"{cut:,} prompts cut: the pair is longer than {settings.max_length} tokens")
    for name, rows in (("to train", pairs), ("held out", test)):
        if not rows:
            raise DataError(f"no comparison {name} is left; expected at least one")
    counts = {"train_pairs": len(pairs), "mixed_pairs": len(mixed_pairs), "truncate_prompts": cut}
    intake.skipped.update(refused)
    return pairs, test, counts | intake.metrics()


def _without(
    openings: set[str], comparisons: Sequence[Comparison], refused: Counter[str]
) -> list[Comparison]:
    kept = [one for one in comparisons if opening(one) not in openings]
    refused["its prompt is held out"] += len(comparisons) - len(kept)
    return kept


def _mix(settings: RewardSettings, ordinary: Sequence[Pair], count: int) -> list[Pair]:
    """Ordinary comparisons, answers safe unless labelled, to be `mix_share` of all beside `count` others."""
    wanted = round(count * settings.mix_share / (1 - settings.mix_share))
    if wanted > len(ordinary):
        say(f"mix: {len(ordinary):,} comparisons, {wanted:,} would be a share of {settings.mix_share}")
    rng = random.Random(f"{settings.seed}/mix")
    chosen = rng.sample(ordinary, min(wanted, len(ordinary)))
    return [replace(pair, comparison=_safe_unless_labelled(pair.comparison)) for pair in chosen]


def _safe_unless_labelled(one: Comparison) -> Comparison:
    return replace(
        one, chosen_safe=one.chosen_safe is not False, rejected_safe=one.rejected_safe is not False
    )


def encode_pairs(
    tokenizer: Any,
    comparisons: Sequence[Comparison],
    max_length: int,
    *,
    truncate_prompts: bool,
    skipped: Counter[str],
) -> list[Pair]:
    """Pairs in the chat format; those with more than `max_length` tokens are counted in `skipped`.

    With `truncate_prompts` only those whose answer alone is too long; others lose the start of the prompt.
    """
    pairs = []
    for one in comparisons:
        prompt = encode_prompt(tokenizer, one.prompt)
        chosen, rejected = (encode_answer(tokenizer, answer) for answer in (one.chosen, one.rejected))
        room = max_length - max(len(chosen), len(rejected))
        too_long = len(prompt) > room
        if too_long and (room < 1 or not truncate_prompts):
            skipped[f"longer than {max_length} tokens"] += 1
        else:
            kept = prompt[-room:]
            pairs.append(Pair(one, kept + chosen, kept + rejected, too_long))
    return pairs


def safety_label(safe: bool | None) -> float:
    return math.nan if safe is None else float(safe)
