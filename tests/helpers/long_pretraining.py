"""A pretraining that is long enough to be killed on its way."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from .material import COLORS, PRETRAIN, write_data
from .rows import write

OFTEN = {"save_steps": 3, "logging_steps": 2}


def write_inputs(root: Path, tokenizer: Any) -> None:
    """`tokenizer` and `data` below `root`, the data with 4,000 documents."""
    tokenizer.save_pretrained(str(root / "tokenizer"))
    write_data(root / "data")
    draw = random.Random(0)
    texts = [{"text": " ".join(draw.choices(COLORS, k=draw.randint(3, 40)))} for _ in range(4000)]
    write(root / "data" / "documents.jsonl", texts)


def pretraining(root: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, Path]]:
    """Settings and inputs: many short steps, checkpoints at every third, on the data below `root`."""
    trainer = PRETRAIN["trainer"] | OFTEN | {"max_steps": 300, "per_device_train_batch_size": 2}
    chosen = PRETRAIN | {"trainer": trainer, "shard_tokens": 5000} | changes
    return chosen, {"tokenizer": root / "tokenizer", "data": root / "data"}
