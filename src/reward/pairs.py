"""Comparisons as token ids: training pairs, held-out pairs, and counts of skipped comparisons.

The main process reads and tokenizes them once, into memory-mapped files that every rank opens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from ..chat_format.encoding import encode_answers, encode_prompts, format_hash
from ..console import say, track
from ..data.intake import Intake
from ..data.row_files import IDS, Columns, IdLists, RowFolder, SealedRows, column, row_batches
from ..data.rows import Comparison
from ..data.sources import stream_comparisons
from ..data.stored_rows import LazySequence, StoredRows, store_rows
from ..distributed import group
from .evasions import evasive_comparisons
from .loss import margin
from .selection import select_pairs
from .settings import RewardSettings

TRAINED = {  # columns of training
    "chosen_ids": IDS,
    "rejected_ids": IDS,
    "margin": pa.float32(),
    "chosen_safe": pa.float32(),
    "rejected_safe": pa.float32(),
}
TOKENIZED = pa.schema(TRAINED | {"prompt_truncated": pa.bool_()})  # without ids: the pair is too long
SELECTED = pa.schema({"row": pa.int64(), "held_out": pa.bool_(), "evasion": pa.bool_()})
# the settings that pairs depend on; which bad rows are skipped is in the identity of `store_rows`
ROW_SETTINGS = {"seed", "comparisons", "test", "held_out", "mix", "mix_share", "evasions", "margin"} | {
    "max_length",
    "truncate_prompts",
}


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


class Pairs(LazySequence[Pair]):
    """Pairs in memory-mapped files; a pair is decoded when it is used.

    Args:
        comparisons: stored comparisons.
        tokenized: their rows with the columns of `TOKENIZED`.
        indices: of the comparisons that are pairs, int64 `[pairs]`.
        evasion: whether each pair has an evasion, bool `[pairs]`.

    Attributes:
        rows: the pairs with the columns of `TRAINED`, for a trainer.
        lengths: number of tokens of the prompt with the chosen answer and with the rejected one, int32
            `[2, pairs]`; no pair is read for them.
        evasion: see the arguments.
    """

    def __init__(
        self,
        comparisons: Sequence[Comparison],
        tokenized: datasets.Dataset,
        indices: np.ndarray,
        *,
        evasion: np.ndarray,
    ) -> None:
        self._comparisons, self._tokenized, self._indices = comparisons, tokenized, indices
        self.evasion = evasion
        self._ids = [IdLists(column(tokenized, name)) for name in ("chosen_ids", "rejected_ids")]
        self._truncated = column(tokenized, "prompt_truncated").to_numpy()
        self.lengths = np.stack([ids.lengths[indices] for ids in self._ids])
        self.rows = tokenized.select_columns(list(TRAINED)).select(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def element(self, index: int) -> Pair:
        row = int(self._indices[index])
        chosen, rejected = self.ids(0, index), self.ids(1, index)
        truncated, evasion = bool(self._truncated[row]), bool(self.evasion[index])
        return Pair(self._comparisons[row], chosen, rejected, truncated, evasion)

    def ids(self, answer: int, index: int) -> list[int]:
        """Token ids of a pair's prompt with the chosen (`answer` 0) or the rejected answer (1)."""
        ids: list[int] = self._ids[answer][int(self._indices[index])].tolist()
        return ids

    def part(self, chosen: np.ndarray) -> Pairs:
        """The pairs where `chosen` (bool `[pairs]`) is true, mapped like these."""
        indices = self._indices[chosen]
        return Pairs(self._comparisons, self._tokenized, indices, evasion=self.evasion[chosen])


def read_pairs(
    settings: RewardSettings,
    root: Path,
    tokenizer: Any,
    *,
    folder: Path,
    answers_root: Path | None = None,
    intake: Intake | None = None,
) -> tuple[Pairs, Pairs, dict[str, Any]]:
    """Training pairs (with the `mix` and the `evasions`), held-out pairs, and counts.

    Every rank calls it; the main process writes the pairs into files below `folder`, or finds those of an
    interrupted stage there. Comparisons whose prompt is held out are not trained on. Source paths are
    relative to `root`, those of `evasions.answers` to `answers_root` if it is given.
    Counts: `train_pairs`, and how many of them are `mixed_pairs` and `evasion_pairs`; `truncated_prompts`
    (training and held-out pairs); those of `intake`, over all sources.
    Raises DataError if no training pair or no held-out pair is left.
    """
    intake = intake or Intake()
    identity = {
        "settings": settings.model_dump(mode="json", include=ROW_SETTINGS),
        "format": format_hash(tokenizer),
    }
    comparisons, groups = _read(
        settings, root, answers_root or root, folder=folder, identity=identity, intake=intake
    )
    tokenized = RowFolder(folder / "tokenized", TOKENIZED, comparisons.identity)
    selected = RowFolder(folder / "selected", SELECTED, comparisons.identity)

    def make() -> tuple[SealedRows, SealedRows]:
        rows = tokenized.sealed() or tokenized.write(
            lambda done: _tokenize(settings, tokenizer, comparisons, done=done)
        )
        choice = selected.sealed() or _select(
            settings, comparisons, groups, tokenized=rows.open(), files=selected
        )
        return rows, choice

    made, choice = group.once("tokenizing", make)
    intake.skipped.update(choice.facts["skipped"])
    rows, chosen = made.open(), choice.open()
    indices, held_out, evasion = (column(chosen, name).to_numpy() for name in SELECTED.names)
    train, test = (
        Pairs(comparisons, rows, indices[part], evasion=evasion[part]) for part in (~held_out, held_out)
    )
    return train, test, choice.facts["counts"] | intake.metrics()


def _read(
    settings: RewardSettings,
    root: Path,
    answers_root: Path,
    *,
    folder: Path,
    identity: Mapping[str, Any],
    intake: Intake,
) -> tuple[StoredRows[Comparison], dict[str, range]]:
    """Stores all comparisons that may become pairs, in groups named after the settings."""

    def evasive(intake: Intake) -> list[Comparison]:
        if not settings.evasions:
            return []
        return evasive_comparisons(settings.evasions, root, answers_root, seed=settings.seed, intake=intake)

    sources = [(part, root) for part in (settings.comparisons, settings.test, settings.mix)]
    if settings.evasions:
        sources += [(settings.evasions.dialogues, root), (settings.evasions.answers, answers_root)]
    return store_rows(
        folder / "comparisons",
        Comparison,
        {
            "comparisons": lambda intake: stream_comparisons(settings.comparisons, root, intake),
            "test": lambda intake: stream_comparisons(settings.test, root, intake),
            "evasions": evasive,
            "mix": lambda intake: map(_safe_unless_labelled, stream_comparisons(settings.mix, root, intake)),
        },
        identity=identity,
        sources=sources,
        intake=intake,
        seed=settings.seed,
    )


def _safe_unless_labelled(comparison: Comparison) -> Comparison:
    return replace(
        comparison,
        chosen_safe=comparison.chosen_safe is not False,
        rejected_safe=comparison.rejected_safe is not False,
    )


def _select(
    settings: RewardSettings,
    comparisons: StoredRows[Comparison],
    groups: Mapping[str, range],
    *,
    tokenized: datasets.Dataset,
    files: RowFolder,
) -> SealedRows:
    """Writes which comparisons are pairs, and the counts."""
    fractions = column(comparisons.rows, "fraction").to_numpy()
    fits = IdLists(column(tokenized, "chosen_ids")).lengths > 0
    selection = select_pairs(settings, groups, fractions, fits=fits)
    rows = np.concatenate([selection.train, selection.test])
    held_out = np.arange(len(rows)) >= len(selection.train)
    evasion = (rows >= groups["evasions"].start) & (rows < groups["evasions"].stop)
    truncated = int(column(tokenized, "prompt_truncated").to_numpy()[rows].sum())
    if truncated:
        say(f"{truncated:,} prompts truncated: the pair is longer than {settings.max_length} tokens")
    counts = {
        "train_pairs": len(selection.train),
        "mixed_pairs": selection.mixed,
        "evasion_pairs": selection.evasions,
        "truncated_prompts": truncated,
    }
    columns = dict(zip(SELECTED.names, (rows, held_out, evasion), strict=True))
    facts = {"counts": counts, "skipped": selection.skipped}
    return files.write(lambda _: [columns], lambda: facts, resume=False)


def _tokenize(
    settings: RewardSettings, tokenizer: Any, comparisons: Sequence[Comparison], *, done: int
) -> Iterator[Columns]:
    """The columns of `TOKENIZED` for the comparisons after the first `done`."""
    progress = track(
        row_batches(comparisons, done),
        "tokenizing",
        total=len(comparisons),
        unit="pairs",
        amount=len,
        done=done,
    )
    for batch in progress:
        pairs = encode_pairs(
            tokenizer, batch, settings.max_length, truncate_prompts=settings.truncate_prompts
        )
        yield tokenized_columns(pairs, settings.margin)


def tokenized_columns(pairs: Sequence[Pair], margins: str) -> Columns:
    """The columns of `TOKENIZED`; `margins` names a row of table 27."""
    return {
        "chosen_ids": [pair.chosen_ids for pair in pairs],
        "rejected_ids": [pair.rejected_ids for pair in pairs],
        "margin": [margin(pair.comparison.rating, margins) for pair in pairs],
        "chosen_safe": [safety_label(pair.comparison.chosen_safe) for pair in pairs],
        "rejected_safe": [safety_label(pair.comparison.rejected_safe) for pair in pairs],
        "prompt_truncated": [pair.prompt_truncated for pair in pairs],
    }


def encode_pairs(
    tokenizer: Any, comparisons: Sequence[Comparison], max_length: int, *, truncate_prompts: bool
) -> list[Pair]:
    """Pairs in the chat format; those longer than `max_length` tokens have no ids.

    With `truncate_prompts` the prompts of longer pairs are truncated from the left instead; a pair is without
    ids only if an answer leaves no room for the prompt.
    """
    prompts = encode_prompts(tokenizer, [comparison.prompt for comparison in comparisons])
    answers = encode_answers(
        tokenizer, [text for comparison in comparisons for text in (comparison.chosen, comparison.rejected)]
    )
    pairs = []
    for comparison, prompt, chosen, rejected in zip(
        comparisons, prompts, answers[::2], answers[1::2], strict=True
    ):
        room = max_length - max(len(chosen), len(rejected))
        too_long = len(prompt) > room
        if too_long and (room < 1 or not truncate_prompts):
            pairs.append(Pair(comparison, [], []))
        else:
            kept = prompt[-room:]
            pairs.append(Pair(comparison, kept + chosen, kept + rejected, too_long))
    return pairs


def safety_label(safe: bool | None) -> float:
    """1 for safe, 0 for unsafe, NaN for unknown."""
    return math.nan if safe is None else float(safe)
