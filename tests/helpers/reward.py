"""Settings of reward models, and pairs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from llamita.reward import pairs as module
from llamita.reward.pairs import TOKENIZED, Pair, Pairs, tokenized_columns
from llamita.reward.settings import RewardSettings


def settings(base: dict[str, Any], **changes: Any) -> RewardSettings:
    """Returns HELPFULNESS or SAFETY of `material` with changes."""
    return RewardSettings.model_validate_json(json.dumps(base | changes))


def read_pairs(
    settings: RewardSettings, root: Path, tokenizer: Any, **options: Any
) -> tuple[list[Pair], list[Pair], dict[str, Any]]:
    """Returns what `read_pairs` makes in a temporary folder, in lists."""
    with tempfile.TemporaryDirectory() as folder:
        train, test, counts = module.read_pairs(settings, root, tokenizer, folder=Path(folder), **options)
        return list(train), list(test), counts


def as_pairs(pairs: Sequence[Pair], margins: str = "small") -> Pairs:
    """Returns pairs that are held in memory."""
    columns = tokenized_columns(pairs, margins)
    rows = datasets.Dataset.from_dict(dict(columns), features=datasets.Features.from_arrow_schema(TOKENIZED))
    evasion = np.array([pair.evasion for pair in pairs])
    return Pairs([pair.comparison for pair in pairs], rows, np.arange(len(pairs)), evasion=evasion)
