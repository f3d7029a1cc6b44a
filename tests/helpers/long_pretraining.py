"""A pretraining run that is long enough to be killed while it trains."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from .material import COLORS, PRETRAIN, write_data
from .rows import write

OFTEN = {"save_steps": 3, "logging_steps": 2}


def write_inputs(root: Path, tokenizer: Any) -> None:
    """Writes the folders `tokenizer` and `data` below `root`, with 4,000 documents."""
    tokenizer.save_pretrained(str(root / "tokenizer"))
    write_data(root / "data")
    draw = random.Random(0)
    texts = [{"text": " ".join(draw.choices(COLORS, k=draw.randint(3, 40)))} for _ in range(4000)]
    write(root / "data" / "documents.jsonl", texts)


def pretraining(root: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, Path]]:
    """Returns settings and inputs: 300 short steps, a checkpoint every 3 steps, data below `root`."""
    trainer = PRETRAIN["trainer"] | OFTEN | {"max_steps": 300, "per_device_train_batch_size": 2}
    chosen = PRETRAIN | {"trainer": trainer, "shard_tokens": 5000} | changes
    return chosen, {"tokenizer": root / "tokenizer", "data": root / "data"}
