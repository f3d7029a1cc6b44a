"""A round of RLHF is a folder of steps that are made once (see `training/steps.py`):

v1/prompts.jsonl -> samples.jsonl -> scores.jsonl -> selection.jsonl -> rejection/ -> ppo/
"""

from __future__ import annotations

from ..jsonl import Row


def is_of(row: Row, number: int, step: str) -> bool:
    """Whether a row of the stage's `metrics.jsonl` was logged in this step of round `number`.

    A row of PPO has an `iteration`, one of rejection sampling has not.
    """
    return bool(row["round"] == number and step == ("ppo" if "iteration" in row else "rejection"))
