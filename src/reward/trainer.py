"""`trl.RewardTrainer` with our losses: margins by rating, centring, and the auxiliary safety loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import torch
from transformers import LlamaForSequenceClassification
from trl import RewardConfig, RewardTrainer

from ..batches import batches
from ..distributed.group import all_reduce_sum
from ..model.padding import pad_right
from ..training.monitoring import LOSS_ONLY, MonitorOptions
from ..training.ordered_trainer import OrderedTrainer
from .loss import centring_loss, margin, ranking_loss, safety_loss
from .pairs import Pair, safety_label

TOKENS_OF_A_PASS = (16_384, 1_024)  # tokens of a forward pass (on GPUs, on CPUs) if answers have mean length


class PairCollator:
    """Pairs to a micro-batch that is read in several forward passes, each over answers of similar length.

    `passes`: ids, `[answers, longest]` each, with at most `answers_of_a_pass` answers. How many there are
    depends on the number of pairs alone: under ZeRO-3 all ranks need equally many.
    `places` `[2 * pairs]`: where among the passes' answers the chosen ones are, then the rejected ones.
    `margins` is `[pairs]`, `safe` `[2 * pairs]` (NaN where unknown), both fp32.
    """

    def __init__(self, pad_token_id: int, answers_of_a_pass: int) -> None:
        self._pad, self._answers = pad_token_id, answers_of_a_pass

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        ids = [row[name] for name in ("chosen_ids", "rejected_ids") for row in rows]
        safe = [row[name] for name in ("chosen_safe", "rejected_safe") for row in rows]
        by_length = sorted(range(len(ids)), key=lambda answer: len(ids[answer]))
        return {
            "passes": [
                pad_right([ids[answer] for answer in one], self._pad)[0]
                for one in batches(by_length, self._answers)
            ],
            "places": torch.tensor(by_length).argsort(),
            "margins": torch.tensor([row["margin"] for row in rows], dtype=torch.float32),
            "safe": torch.tensor(safe, dtype=torch.float32),
        }


class PairTrainer(OrderedTrainer, RewardTrainer):
    """Trains on pairs; `safety_weight` is the weight of the auxiliary loss (0 leaves it out)."""

    loss_is_scaled_for_ga = True  # by the shares below
    columns = ["chosen_ids", "rejected_ids", "margin", "chosen_safe", "rejected_safe"]

    def __init__(self, *, safety_weight: float, **options: Any) -> None:
        super().__init__(**options)
        self._safety_weight = safety_weight

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], torch.Tensor]:
        """The micro-batches of one step, and its pairs and labelled answers over all ranks: `[2]`, int64."""
        batches, _ = super().get_batch_samples(*args, **kwargs)
        counts = [[len(batch["margins"]), known_labels(batch["safe"])] for batch in batches]
        return batches, all_reduce_sum(torch.tensor(counts).sum(dim=0))

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        # No attention mask: pads stand on the right, where a causal model's real tokens never look, and the
        # score is read at the last id that is no pad, the EOS.
        outputs = [model(input_ids=ids, use_cache=False).logits.squeeze(-1) for ids in inputs["passes"]]
        scores = torch.cat(outputs).float()[inputs["places"]]
        chosen, rejected = scores.chunk(2)
        # each micro-batch counts by its share of the global batch; gradients are averaged over the ranks
        pairs, labels = num_items_in_batch.clamp(min=1).tolist()
        ranks = self.accelerator.num_processes
        loss = ranking_loss(chosen, rejected, inputs["margins"])
        if self.args.center_rewards_coefficient:
            loss = loss + self.args.center_rewards_coefficient * centring_loss(chosen, rejected)
        loss = loss * (len(chosen) / pairs * ranks)
        if self._safety_weight:
            share = known_labels(inputs["safe"]) / labels * ranks
            loss = loss + self._safety_weight * share * safety_loss(scores, inputs["safe"])
        return (loss, scores) if return_outputs else loss


def known_labels(safe: torch.Tensor) -> int:
    """How many answers are labelled safe or unsafe, the others being NaN."""
    return int((~safe.isnan()).sum())


def pair_trainer(
    model: LlamaForSequenceClassification,
    tokenizer: Any,
    pairs: Sequence[Pair],
    *,
    arguments: RewardConfig,
    margins: str,
    safety_weight: float,
    description: str = "reward",
    monitor: MonitorOptions = LOSS_ONLY,
) -> PairTrainer:
    """A trainer over encoded pairs with the margins of a row of table 27.

    The pairs of a step are drawn at random; within it, those of like length share a micro-batch.
    """
    rows = datasets.Dataset.from_dict(
        {
            "chosen_ids": [pair.chosen_ids for pair in pairs],
            "rejected_ids": [pair.rejected_ids for pair in pairs],
            "margin": [margin(pair.comparison.rating, margins) for pair in pairs],
            "chosen_safe": [safety_label(pair.comparison.chosen_safe) for pair in pairs],
            "rejected_safe": [safety_label(pair.comparison.rejected_safe) for pair in pairs],
        }
    )
    return PairTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=PairCollator(tokenizer.pad_token_id, answers_of_a_pass(pairs, arguments.device)),
        processing_class=tokenizer,
        safety_weight=safety_weight,
        row_lengths=[max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs],
        description=description,
        monitor=monitor,
    )


def answers_of_a_pass(pairs: Sequence[Pair], device: torch.device) -> int:
    """Answers of a forward pass, by the mean length of all, so that all ranks have the same number."""
    tokens = sum(len(pair.chosen_ids) + len(pair.rejected_ids) for pair in pairs)
    return max(1, TOKENS_OF_A_PASS[device.type == "cpu"] * 2 * len(pairs) // tokens)
