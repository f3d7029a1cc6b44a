"""How strongly the turns of a dialogue attend to the instruction of the first (section 3.3, figure 10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..console import track
from ..measures import RETENTION_TURNS
from ..statistics import measure

BINS = 48  # a side of the map


@dataclass(frozen=True)
class RecordedDialogue:
    """A dialogue that a model has held, as token ids.

    Attributes:
        instruction: where the instruction stands, `[start, end)`.
        answers: where each answer stands.
    """

    ids: list[int]
    instruction: tuple[int, int]
    answers: list[tuple[int, int]]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RecordedDialogue:
        """What `dataclasses.asdict` made, behind JSON."""
        start, end = row["instruction"]
        return cls(row["ids"], (start, end), [(start, end) for start, end in row["answers"]])


def measure_attention(model: Any, dialogues: Sequence[RecordedDialogue]) -> dict[str, Any]:
    """Attention of one model to the instructions, of dialogues that it need not have held itself.

    Returns:
        `by_turn`: `{"1": …, "1_se": …, …}`, mean over the dialogues of the mean over an answer's tokens of
        the strongest attention that any head pays to any token of the instruction; `dialogues`: how many have
        that turn; `map`: the first dialogue's `strongest_attention`, at most `BINS` x `BINS`, queries first;
        `instruction`: where along its side the instruction is, from 0 to 1.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the others keep no attention weights
    try:
        by_turn: dict[str, list[float]] = {}
        first = None
        for held in track(dialogues, "attention", unit="dialogues"):
            weights = strongest_attention(model, held.ids)
            first = weights if first is None else first
            for turn, (start, end) in enumerate(held.answers, 1):
                to_instruction = weights[start:end, slice(*held.instruction)]
                if turn in RETENTION_TURNS and to_instruction.numel():
                    by_turn.setdefault(str(turn), []).append(float(to_instruction.amax(1).mean()))
    finally:
        model.set_attn_implementation(before)
    assert first is not None
    size = len(first)
    return {
        "by_turn": {
            key: value for turn, found in by_turn.items() for key, value in measure(turn, found).items()
        },
        "dialogues": {turn: len(found) for turn, found in by_turn.items()},
        "map": [[round(value, 4) for value in row] for row in binned(first, BINS).tolist()],
        "instruction": [place / size for place in dialogues[0].instruction],
    }


@torch.no_grad()
def strongest_attention(model: Any, ids: Sequence[int]) -> Tensor:
    """`[tokens, tokens]` fp32: the attention of each token to each, the largest of all layers and heads."""
    row = torch.tensor([ids], device=model.device)
    layers = model.base_model(input_ids=row, use_cache=False, output_attentions=True).attentions
    strongest = layers[0][0].amax(0)
    for layer in layers[1:]:
        strongest = torch.maximum(strongest, layer[0].amax(0))
    return strongest.float().cpu()


def binned(table: Tensor, bins: int) -> Tensor:
    """A square table with neighbours put together, at most `bins` a side: the largest value of each block."""
    return F.adaptive_max_pool2d(table[None], min(bins, len(table)))[0]
