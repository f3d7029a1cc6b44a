"""`trl.RewardTrainer` with the paper's losses: ranking loss with margins, auxiliary safety loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import LlamaForSequenceClassification
from trl import RewardConfig, RewardTrainer

from ..batches import batches
from ..distributed.group import all_reduce_sum
from ..model.padding import pad_right
from ..training.monitoring import LOSS_ONLY, MonitorOptions
from ..training.ordered_trainer import OrderedTrainer
from .loss import centring_loss, ranking_loss, safety_loss
from .pairs import TRAINED, Pairs

TOKENS_PER_PASS = (16_384, 1_024)  # tokens per forward pass (on GPUs, on CPUs) at the answers' mean length


class PairCollator:
    """Collates pairs into a micro-batch of several forward passes, each over answers of similar length.

    `passes`: ids `[answers, longest]`, each with at most `answers_per_pass` answers. The number of passes
    depends only on the number of pairs, because under ZeRO-3 all ranks need the same number.
    `places` `[2 * pairs]`: indices of the chosen, then of the rejected answers among those of the passes.
    `margins` `[pairs]` and `safe` `[2 * pairs]` (NaN for unknown) are fp32.
    """

    def __init__(self, pad_token_id: int, answers_per_pass: int) -> None:
        self._pad, self._answers = pad_token_id, answers_per_pass

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        ids = [row[name] for name in ("chosen_ids", "rejected_ids") for row in rows]
        safe = [row[name] for name in ("chosen_safe", "rejected_safe") for row in rows]
        by_length = sorted(range(len(ids)), key=lambda answer: len(ids[answer]))
        return {
            "passes": [
                pad_right([ids[answer] for answer in answers], self._pad)[0]
                for answers in batches(by_length, self._answers)
            ],
            "places": torch.tensor(by_length).argsort(),
            "margins": torch.tensor([row["margin"] for row in rows], dtype=torch.float32),
            "safe": torch.tensor(safe, dtype=torch.float32),
        }


class PairTrainer(OrderedTrainer, RewardTrainer):
    """Trains on pairs; `safety_weight` is the weight of the auxiliary loss (0: not computed)."""

    loss_is_scaled_for_ga = True  # `compute_loss` scales it by shares of the global batch
    columns = list(TRAINED)

    def __init__(self, *, safety_weight: float, **options: Any) -> None:
        super().__init__(**options)
        self._safety_weight = safety_weight

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], torch.Tensor]:
        """Micro-batches of one step; its numbers of pairs and labelled answers, all ranks, `[2]` int64."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        counts = [[len(batch["margins"]), count_labelled(batch["safe"])] for batch in batches]
        return batches, all_reduce_sum(torch.tensor(counts).sum(dim=0))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        # No attention mask is needed: pads are on the right, so no real token of a causal model attends to
        # them, and the score is that of the last token that is not a pad, the EOS.
        outputs = [model(input_ids=ids, use_cache=False).logits.squeeze(-1) for ids in inputs["passes"]]
        scores = torch.cat(outputs).float()[inputs["places"]]
        chosen, rejected = scores.chunk(2)
        # a micro-batch is weighted by its share of the global batch; gradients are averaged over the ranks
        pairs, labels = num_items_in_batch.clamp(min=1).tolist()
        ranks = self.accelerator.num_processes
        loss = ranking_loss(chosen, rejected, inputs["margins"])
        if self.args.center_rewards_coefficient:
            loss = loss + self.args.center_rewards_coefficient * centring_loss(chosen, rejected)
        loss = loss * (len(chosen) / pairs * ranks)
        if self._safety_weight:
            share = count_labelled(inputs["safe"]) / labels * ranks
            loss = loss + self._safety_weight * share * safety_loss(scores, inputs["safe"])
        return (loss, scores) if return_outputs else loss


def count_labelled(safe: torch.Tensor) -> int:
    """Number of answers that are labelled safe or unsafe, not NaN."""
    return int((~safe.isnan()).sum())


def pair_trainer(
    model: LlamaForSequenceClassification,
    tokenizer: Any,
    pairs: Pairs,
    *,
    arguments: RewardConfig,
    safety_weight: float,
    description: str = "reward",
    monitor: MonitorOptions = LOSS_ONLY,
) -> PairTrainer:
    """A trainer on tokenized pairs.

    The pairs of a step are drawn at random; within a step pairs of similar length share a micro-batch.
    """
    return PairTrainer(
        model=model,
        args=arguments,
        train_dataset=pairs.rows,
        data_collator=PairCollator(tokenizer.pad_token_id, answers_per_pass(pairs.lengths, arguments.device)),
        processing_class=tokenizer,
        safety_weight=safety_weight,
        row_lengths=pairs.lengths.max(axis=0),
        description=description,
        monitor=monitor,
    )


def answers_per_pass(lengths: np.ndarray, device: torch.device) -> int:
    """Number of answers per forward pass; it depends on the mean length of all, so all ranks agree.

    `lengths`: as `Pairs.lengths`.
    """
    tokens = int(lengths.sum(dtype=np.int64))
    return max(1, TOKENS_PER_PASS[device.type == "cpu"] * lengths.size // tokens)
