"""Speed of training reward models, compared with plain `trl.RewardTrainer`.

    python benchmarks/reward.py [ROUNDS [SET]]

Two sets of pairs of random tokens, with lengths drawn from the quartiles of real pairs: those of the
miniature world, for the model of configs/miniature, and those of hh-rlhf (harmlessness), for a model of six
million parameters. Every method trains on the same pairs with the same ranking loss and optimizer. The
methods alternate, one step each, in one process with one thread. Processor time is measured, so other
programs on the machine have little influence. The table shows medians over the rounds.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from machine import describe, table
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer

from llamita.data.rows import Comparison
from llamita.model.sizes import ModelSize
from llamita.reward.pairs import TOKENIZED, Pair, Pairs, tokenized_columns
from llamita.reward.trainer import pair_trainer
from llamita.training.arguments import training_arguments

WARM = 1  # warm-up rounds, not timed


@dataclass(frozen=True)
class Material:
    """Size of the model, and lengths of the pairs.

    `chosen`: minimum, quartiles and maximum of the lengths of chosen answers; `difference`: those of rejected
    length minus chosen length. Lengths of hh-rlhf count words and punctuation.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    vocabulary: int
    chosen: tuple[int, ...]
    difference: tuple[int, ...]
    micro_batch: int
    accumulation: int

    def pairs(self, steps: int) -> list[Pair]:
        draw = random.Random("pairs")
        pairs = []
        for _ in range(steps * self.micro_batch * self.accumulation):
            chosen = between(self.chosen, draw)
            rejected = max(self.chosen[0], chosen + between(self.difference, draw))
            pairs.append(Pair(Comparison([], "", ""), self._ids(chosen, draw), self._ids(rejected, draw)))
        return pairs

    def _ids(self, length: int, draw: random.Random) -> list[int]:
        return [1, *draw.choices(range(3, self.vocabulary), k=length - 2), 2]

    def model(self) -> LlamaForSequenceClassification:
        torch.manual_seed(0)
        shape = ModelSize(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
        )
        config = shape.llama_config(self.vocabulary)
        config.num_labels = 1
        return LlamaForSequenceClassification(config)

    def section(self) -> dict[str, Any]:
        return {
            "per_device_train_batch_size": self.micro_batch,
            "gradient_accumulation_steps": self.accumulation,
            "learning_rate": 1e-5,
            "max_length": None,
            "max_steps": 10**6,  # the learning rate stays constant
            "lr_scheduler_type": "constant",
        }


SIZES = {
    "miniature": Material(
        hidden_size=128,
        intermediate_size=256,
        layers=4,
        vocabulary=1240,
        chosen=(12, 24, 27, 31, 44),
        difference=(-16, -4, -2, 0, 14),
        micro_batch=32,
        accumulation=1,
    ),
    "hh-rlhf": Material(
        hidden_size=256,
        intermediate_size=688,
        layers=6,
        vocabulary=2048,
        chosen=(9, 61, 116, 194, 881),
        difference=(-224, -14, 3, 26, 471),
        micro_batch=16,
        accumulation=2,
    ),
}


def between(quartiles: tuple[int, ...], draw: random.Random) -> int:
    """Draws a length: uniform between the quartiles, thinning out beyond the outer ones."""
    part = draw.randrange(4)
    low, high = quartiles[part : part + 2]
    share = draw.random()
    if part == 0:
        share = 1 - (1 - share) ** 5  # thin tails on either side
    if part == 3:
        share = share**5
    return round(low + share * (high - low))


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, vocabulary)}
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, "<unk>")), **special)


def stored(pairs: list[Pair]) -> Pairs:
    """The pairs as our trainer takes them, without margins; here they are in memory."""
    features = datasets.Features.from_arrow_schema(TOKENIZED)
    rows = datasets.Dataset.from_dict(tokenized_columns(pairs, "none"), features=features)
    comparisons = [pair.comparison for pair in pairs]
    return Pairs(comparisons, rows, np.arange(len(pairs)), evasion=np.zeros(len(pairs), dtype=bool))


def ours(material: Material, pairs: list[Pair], out: Path) -> Any:
    arguments = training_arguments(RewardConfig, material.section(), out, seed=0)
    return pair_trainer(
        material.model(),
        tokenizer(material.vocabulary),
        stored(pairs),
        arguments=arguments,
        safety_weight=0.0,
    )


def trl(material: Material, pairs: list[Pair], out: Path, **changes: Any) -> Any:
    columns = {
        "chosen_ids": [pair.chosen_ids for pair in pairs],
        "rejected_ids": [pair.rejected_ids for pair in pairs],
        "length": [max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs],
    }
    return RewardTrainer(
        model=material.model(),
        args=training_arguments(RewardConfig, material.section() | changes, out, seed=0),
        train_dataset=datasets.Dataset.from_dict(columns),
        processing_class=tokenizer(material.vocabulary),
    )


def trl_by_default(material: Material, pairs: list[Pair], out: Path) -> Any:
    """TRL's defaults, which recompute activations; `Trainer.train` would enable this in the model."""
    trainer = trl(material, pairs, out, gradient_checkpointing=True)
    trainer.model.gradient_checkpointing_enable({"use_reentrant": False})
    return trainer


METHODS: dict[str, Callable[[Material, list[Pair], Path], Any]] = {
    "ours": ours,
    "TRL": trl_by_default,
    "TRL, no recomputation": trl,
    "TRL, no recomputation, grouped by length": partial(trl, train_sampling_strategy="group_by_length"),
}


class Stepper:
    """Runs a trainer's own training step, one step at a time."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        trainer.model.config.use_cache = False
        trainer.create_optimizer()
        self._rows = iter(trainer.get_train_dataloader())

    def step(self) -> float:
        """Runs one step, collation included; returns pairs per second."""
        trainer, begun = self._trainer, time.process_time()
        batches, items = trainer.get_batch_samples(
            self._rows, trainer.args.gradient_accumulation_steps, trainer.args.device
        )
        trainer.current_gradient_accumulation_steps = len(batches)
        for batch in batches:
            trainer.training_step(trainer.model, batch, items)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        return len(batches) * trainer.args.per_device_train_batch_size / (time.process_time() - begun)


def measure(material: Material, rounds: int) -> dict[str, list[float]]:
    """Returns the pairs per second of each method, one value per round."""
    pairs = material.pairs(WARM + rounds)
    with tempfile.TemporaryDirectory() as out:
        steppers = {method: Stepper(make(material, pairs, Path(out))) for method, make in METHODS.items()}
    rates: dict[str, list[float]] = {method: [] for method in METHODS}
    for number in range(WARM + rounds):
        for method, stepper in steppers.items():
            rate = stepper.step()
            if number >= WARM:
                rates[method].append(rate)
                print(f"{method}: {rate:.1f} pairs/s", file=sys.stderr, flush=True)
    return rates


def main() -> None:
    torch.set_num_threads(1)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    rows = []
    for size in sys.argv[2:] or SIZES:
        rates = measure(SIZES[size], rounds)
        for method, values in rates.items():
            share = statistics.median(rate / ours for rate, ours in zip(values, rates["ours"], strict=True))
            rows.append([f"{size}: {method}", f"{statistics.median(values):.1f}", f"{share:.3f}"])
    print(f"{describe(sys.argv)}rounds: {rounds}\n")
    print(table(["pairs: method", "pairs/s", "relative to ours"], rows))


if __name__ == "__main__":
    main()
