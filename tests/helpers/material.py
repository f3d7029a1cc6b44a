"""Small data sets and settings for the stages that train, in the words of the test tokenizer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from .rows import turn, write
from .sources import source_setting

COLORS = "red fine yes today bolo again friend thanks".split()
RATINGS = ("significantly_better", "better", "slightly_better", "negligibly_better")


def comparisons(count: int, seed: int, safety: bool) -> list[dict[str, Any]]:
    """Returns rows of comparisons: a polite answer is chosen over "bolo", which is also the unsafe one."""
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        prompt = turn(" ".join(["what is", *draw.choices(COLORS, k=1 + number % 4), f"? {seed}{number}"]))
        row = {
            "prompt": prompt,
            "chosen": "thanks my friend",
            "rejected": "bolo",
            "rating": RATINGS[number % 4],
        }
        rows.append(row | ({"chosen_safe": True, "rejected_safe": False} if safety else {}))
    return rows


def write_data(folder: Path) -> Path:
    """Writes documents, validation, dialogues, gatt, helpfulness[_test] and safety[_test] as .jsonl files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    texts = [
        " ".join(["the color of", draw.choice(COLORS), "is", draw.choice(COLORS), "."]) for _ in range(120)
    ]
    write(folder / "documents.jsonl", [{"text": text} for text in texts[:100]])
    write(folder / "validation.jsonl", [{"text": text} for text in texts[100:]])
    write(folder / "dialogues.jsonl", [{"messages": turn(f"is it {c} ?", f"it is {c}")} for c in COLORS * 4])
    gatt = {"instruction": "you are fine", "messages": turn("how are you ?", "fine") * 3}
    write(folder / "gatt.jsonl", [gatt] * 4)
    for kind in ("helpfulness", "safety"):
        write(folder / f"{kind}.jsonl", comparisons(64, 1, kind == "safety"))
        write(folder / f"{kind}_test.jsonl", comparisons(24, 2, kind == "safety"))
    return folder


MODEL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
TRAINER = {"per_device_train_batch_size": 4, "learning_rate": 3e-3, "logging_steps": 1}
PRETRAIN = {
    "documents": source_setting("documents", "text_rows"),
    "validation": source_setting("validation", "text_rows"),
    "deduplicate": False,  # the few colors give equal documents
    "model": MODEL,
    "context_length": 32,
    "trainer": TRAINER | {"max_steps": 20, "warmup_steps": 0},
}
SFT = {
    "dialogues": source_setting("dialogues", "messages"),
    "ghost_attention": source_setting("gatt", "messages"),
    "max_length": 104,
    "trainer": TRAINER | {"num_train_epochs": 4},
}
HELPFULNESS = {
    "kind": "helpfulness",
    "comparisons": source_setting("helpfulness", "comparison"),
    "test": source_setting("helpfulness_test", "comparison"),
    "max_length": 96,
    "trainer": TRAINER | {"num_train_epochs": 2},
}
SAFETY = {
    "kind": "safety",
    "comparisons": source_setting("safety", "comparison"),
    "test": source_setting("safety_test", "comparison"),
    "mix": source_setting("helpfulness", "comparison"),
    "safety_loss_weight": 1.0,
    "max_length": 96,
    "trainer": TRAINER | {"num_train_epochs": 2},
}
