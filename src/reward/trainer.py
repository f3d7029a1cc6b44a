"""`trl.RewardTrainer` with our losses: margins by rating, centring, and the auxiliary safety loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import torch
from transformers import LlamaForSequenceClassification
from trl import RewardConfig, RewardTrainer

from ..model.scoring import pad_right
from ..training.distributed import all_reduce_sum
from ..training.loop import OrderedTrainer
from .loss import centring_loss, margin, ranking_loss, safety_loss
from .pairs import Pair, safety_label


class PairCollator:
    """Pairs to a batch: `input_ids` `[2 * pairs, longest]`, first the chosen answers, then the rejected ones.

    `margins` is `[pairs]`, `safe` `[2 * pairs]` (NaN where unknown), both fp32.
    """

    def __init__(self, pad_token_id: int) -> None:
        self._pad = pad_token_id

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        ids, _ = pad_right([row[name] for name in ("chosen_ids", "rejected_ids") for row in rows], self._pad)
        safe = [row[name] for name in ("chosen_safe", "rejected_safe") for row in rows]
        margins = torch.tensor([row["margin"] for row in rows], dtype=torch.float32)
        return {"input_ids": ids, "margins": margins, "safe": torch.tensor(safe, dtype=torch.float32)}


class PairTrainer(OrderedTrainer, RewardTrainer):
    """Trains on pairs; `safety_weight` is the weight of the auxiliary loss (0 leaves it out)."""

    safety_weight = 0.0
    loss_is_scaled_for_ga = True  # by the shares below

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = ["chosen_ids", "rejected_ids", "margin", "chosen_safe", "rejected_safe"]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], torch.Tensor]:
        """The micro-batches of one step, and its pairs and labelled answers over all ranks: `[2]`, int64."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        counts = [[len(batch["margins"]), known_labels(batch["safe"])] for batch in batches]
        return batches, all_reduce_sum(torch.tensor(counts).sum(dim=0))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        # No attention mask: pads stand on the right, where a causal model's real tokens never look, and the
        # score is read at the last id that is no pad, the EOS.
        outputs = model(input_ids=inputs["input_ids"], use_cache=False)
        scores = outputs.logits.squeeze(-1).float()
        chosen, rejected = scores.chunk(2)
        # each micro-batch counts by its share of the global batch; gradients are averaged over the ranks
        pairs, labels = num_items_in_batch.clamp(min=1).tolist()
        ranks = self.accelerator.num_processes
        loss = ranking_loss(chosen, rejected, inputs["margins"])
        if self.args.center_rewards_coefficient:
            loss = loss + self.args.center_rewards_coefficient * centring_loss(chosen, rejected)
        loss = loss * (len(chosen) / pairs * ranks)
        if self.safety_weight:
            share = known_labels(inputs["safe"]) / labels * ranks
            loss = loss + self.safety_weight * share * safety_loss(scores, inputs["safe"])
        return (loss, outputs) if return_outputs else loss


def known_labels(safe: torch.Tensor) -> int:
    """How many answers are labelled safe or unsafe, the others being NaN."""
    return int((~safe.isnan()).sum())


def pair_trainer(
    model: LlamaForSequenceClassification,
    tokenizer: Any,
    pairs: Sequence[Pair],
    arguments: RewardConfig,
    margins: str,
    safety_weight: float,
) -> PairTrainer:
    """A trainer over encoded pairs with the margins of a row of table 27; like lengths share a batch."""
    rows = datasets.Dataset.from_dict(
        {
            "chosen_ids": [pair.chosen_ids for pair in pairs],
            "rejected_ids": [pair.rejected_ids for pair in pairs],
            "margin": [margin(pair.comparison.rating, margins) for pair in pairs],
            "chosen_safe": [safety_label(pair.comparison.chosen_safe) for pair in pairs],
            "rejected_safe": [safety_label(pair.comparison.rejected_safe) for pair in pairs],
        }
    )
    trainer = PairTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=PairCollator(tokenizer.pad_token_id),
        processing_class=tokenizer,
    )
    trainer.safety_weight = safety_weight
    trainer.row_lengths = [max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs]
    return trainer
