"""Rows of a micro-batch and number of micro-batches in a step (imports no torch)."""

from __future__ import annotations

from .settings import TrainedSettings

TOKENS_PER_MICRO_BATCH = 4096  # on each rank, if the section `trainer` sets no batch size


def split_step(settings: TrainedSettings, ranks: int) -> tuple[int, int]:
    """Rows of a rank's micro-batch, and micro-batches in a step; what `trainer` does not set is filled in.

    Rows: those with 4,096 tokens, reduced so that all ranks together don't exceed the paper's batch. Number
    of micro-batches: 1 if the rows are set, otherwise the one that comes nearest to the paper's batch.
    """
    section = settings.trainer_values
    rows, accumulation = (
        section.get(name) for name in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    if rows is not None:
        return rows, accumulation or 1
    most = max(1, min(TOKENS_PER_MICRO_BATCH // settings.row_tokens, settings.step_rows // ranks))
    return _nearest_split(settings.step_rows / ranks, most) if accumulation is None else (most, accumulation)


def step_rows_on(settings: TrainedSettings, ranks: int) -> int:
    """Rows of a step on so many ranks."""
    rows, accumulation = split_step(settings, ranks)
    return rows * accumulation * ranks


def _nearest_split(share: float, max_rows: int) -> tuple[int, int]:
    """Rows per micro-batch and accumulation steps whose product is nearest to `share`, the rows of one rank.

    A micro-batch has more than half of `max_rows`.
    """
    splits = [(rows, max(1, round(share / rows))) for rows in range(max_rows, max_rows // 2, -1)]
    return min(splits, key=lambda split: abs(split[0] * split[1] - share))
