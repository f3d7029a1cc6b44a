"""Speed of pretraining, compared with a bare loop (the upper limit) and with plain `transformers.Trainer`.

    python benchmarks/pretrain.py [ROUNDS]

Random documents of varying lengths, three model sizes. Every method trains the same model with fused AdamW.
In each round every method runs once, in a process of its own; the table shows medians. Only tokens of
documents are counted, not pads.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from interleaved import compare, report_result
from transformers import LlamaForCausalLM, Trainer, TrainingArguments

from llamita.model.sizes import ModelSize
from llamita.training.arguments import training_arguments
from llamita.training.attention import attending_within_segments
from llamita.training.loop import run_trainer
from llamita.training.ordered_trainer import OrderedTrainer
from llamita.training.tracking import Tracker

SIZES = {"1M": (128, 4, 4), "6M": (256, 7, 8), "25M": (512, 8, 8)}  # width, layers, heads
STEPS = {"1M": 60, "6M": 20, "25M": 6}
VOCABULARY, CONTEXT, ROWS = 2048, 512, 4
WARM = 3  # warm-up steps, not timed

Row = dict[str, torch.Tensor]


def new_model(size: str) -> LlamaForCausalLM:
    width, layers, heads = SIZES[size]
    torch.manual_seed(0)
    shape = ModelSize(
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
    )
    return LlamaForCausalLM(shape.llama_config(VOCABULARY))


def documents(tokens: int) -> list[list[int]]:
    """Random documents; lengths are log-normal with median 70 tokens, at most CONTEXT."""
    draw, drawn, total = random.Random("documents"), [], 0
    while total < tokens:
        length = min(CONTEXT, max(2, round(draw.lognormvariate(4.25, 0.9))))
        drawn.append([1, *(draw.randrange(3, VOCABULARY) for _ in range(length - 1))])
        total += length
    return drawn


def packed(rows: int) -> list[Row]:
    stream = [id for document in documents(rows * CONTEXT) for id in document]
    rows_of_tokens = []
    for start in range(0, rows * CONTEXT, CONTEXT):
        ids = torch.tensor(stream[start : start + CONTEXT])
        places = torch.arange(CONTEXT)
        begins = torch.where(ids == 1, places, 0).cummax(0).values
        rows_of_tokens.append(
            {"input_ids": ids, "labels": ids.masked_fill(ids == 1, -100), "position_ids": places - begins}
        )
    return rows_of_tokens


def padded(batch: list[list[int]]) -> Row:
    longest = max(map(len, batch))
    ids = torch.tensor([document + [0] * (longest - len(document)) for document in batch])
    mask = (ids != 0).long()
    return {"input_ids": ids, "labels": ids.masked_fill(mask == 0, -100), "attention_mask": mask}


class Clock:
    """Seconds since the end of the warm-up steps."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == WARM:
            self.started = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self.started


def bare(size: str, steps: int, clock: Clock, out: Path) -> int:
    model = new_model(size).train()
    model.config.use_cache = False
    rows = packed(steps * ROWS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=True)
    with attending_within_segments(model):
        for start in range(0, len(rows), ROWS):
            batch = {name: torch.stack([row[name] for row in rows[start : start + ROWS]]) for name in rows[0]}
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            clock.step()
    return ROWS * CONTEXT * (steps - WARM)


class Ticking(Trainer):
    """Calls `clock.step` after every step."""

    clock: Clock

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        self.clock.step()
        return loss


class TickingOurs(Ticking, OrderedTrainer):
    pass


def section(steps: int) -> dict[str, Any]:
    return {
        "max_steps": steps,
        "per_device_train_batch_size": ROWS,
        "learning_rate": 1e-4,
        "logging_steps": 10,
        "save_steps": 10**6,
    }


def ours(size: str, steps: int, clock: Clock, out: Path) -> int:
    model, arguments = new_model(size), training_arguments(TrainingArguments, section(steps), out, seed=0)
    trainer = TickingOurs(model=model, args=arguments, train_dataset=packed(steps * ROWS), description=size)
    trainer.clock = clock
    with Tracker(out, {}) as tracker, attending_within_segments(model):
        run_trainer(trainer, tracker, items_per_row=CONTEXT, unit="tokens")
    return ROWS * CONTEXT * (steps - WARM)


def plain_trainer(size: str, clock: Clock, out: Path, data: list[Any], **changes: Any) -> None:
    arguments = training_arguments(TrainingArguments, section(len(data) // ROWS) | changes, out, seed=0)
    collate = (lambda rows: rows[0]) if changes else None
    trainer = Ticking(model=new_model(size), args=arguments, train_dataset=data, data_collator=collate)
    trainer.model.config.use_cache = False
    trainer.clock = clock
    trainer.train()


def trainer_packed(size: str, steps: int, clock: Clock, out: Path) -> int:
    plain_trainer(size, clock, out, packed(steps * ROWS))
    return ROWS * CONTEXT * (steps - WARM)


def trainer_padded(size: str, steps: int, clock: Clock, out: Path) -> int:
    """Every batch has as many documents as have about the tokens of a step's packed rows."""
    texts = documents(steps * ROWS * CONTEXT)
    each = len(texts) // steps
    batches = [padded(texts[start : start + each]) for start in range(0, each * steps, each)]
    plain_trainer(size, clock, out, batches, per_device_train_batch_size=1, max_steps=steps)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    return round(tokens * (steps - WARM) / steps)


METHODS: dict[str, Callable[[str, int, Clock, Path], int]] = {
    "bare loop": bare,
    "ours": ours,
    "Trainer, same packed rows": trainer_packed,
    "Trainer, padded documents": trainer_padded,
}


def measure(method: str, size: str) -> None:
    """Prints tokens per second and peak memory as JSON; runs in a process of its own."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        tokens = METHODS[method](size, STEPS[size] + WARM, clock, Path(out))
    report_result(tokens / clock.seconds())


def main() -> None:
    if len(sys.argv) == 3:
        measure(*sys.argv[1:])
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    compare(__file__, METHODS, SIZES, [], rounds, "bare loop")


if __name__ == "__main__":
    main()
