"""Attention of a dialogue's answers to the instruction in its first turn (section 3.3, figure 10)."""

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

BINS = 48  # maximum number of rows and columns of the attention map


@dataclass(frozen=True)
class RecordedDialogue:
    """Token ids of a dialogue with a model.

    Attributes:
        instruction: span of the instruction in `ids`, `[start, end)`.
        answers: span of each answer in `ids`.
    """

    ids: list[int]
    instruction: tuple[int, int]
    answers: list[tuple[int, int]]

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RecordedDialogue:
        """Restores a dialogue from `dataclasses.asdict` after JSON."""
        start, end = row["instruction"]
        return cls(row["ids"], (start, end), [(start, end) for start, end in row["answers"]])


def measure_attention(model: Any, dialogues: Sequence[RecordedDialogue]) -> dict[str, Any]:
    """Measures one model's attention to the instructions of dialogues, which may come from another model.

    Returns:
        `by_turn`: `{"1": …, "1_se": …, …}`, the maximum attention weight over all heads and instruction
        tokens, as a mean over an answer's tokens and then over dialogues. `dialogues`: number of dialogues
        that have the turn. `map`: `strongest_attention` of the first dialogue, at most `BINS` x `BINS`,
        queries first. `instruction`: span of the instruction as fractions of the map's side.
    """
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the only one that returns attention weights
    try:
        by_turn: dict[str, list[float]] = {}
        first = None
        for dialogue in track(dialogues, "attention", unit="dialogues"):
            weights = strongest_attention(model, dialogue.ids)
            first = weights if first is None else first
            for turn, (start, end) in enumerate(dialogue.answers, 1):
                to_instruction = weights[start:end, slice(*dialogue.instruction)]
                if turn in RETENTION_TURNS and to_instruction.numel():
                    by_turn.setdefault(str(turn), []).append(float(to_instruction.amax(1).mean()))
    finally:
        model.set_attn_implementation(implementation)
    assert first is not None
    size = len(first)
    return {
        "by_turn": {
            key: value for turn, values in by_turn.items() for key, value in measure(turn, values).items()
        },
        "dialogues": {turn: len(values) for turn, values in by_turn.items()},
        "map": [[round(value, 4) for value in row] for row in binned(first, BINS).tolist()],
        "instruction": [place / size for place in dialogues[0].instruction],
    }


@torch.no_grad()
def strongest_attention(model: Any, ids: Sequence[int]) -> Tensor:
    """Returns fp32 `[queries, keys]`: the maximum attention weight over all layers and heads.

    Only one layer's weights exist at a time: those of all layers of a 7B model at 4,096 tokens are 69 GB.
    """
    strongest: Tensor | None = None

    def keep_maximum(_module: Any, _arguments: Any, output: Any) -> Any:
        nonlocal strongest
        if not _has_weights(output, len(ids)):
            return output
        found = output[1][0].amax(0)
        strongest = found if strongest is None else torch.maximum(strongest, found)
        return (output[0], None, *output[2:])

    # Before the hooks of transformers, which would keep the weights of every layer.
    hooks = [module.register_forward_hook(keep_maximum, prepend=True) for module in model.modules()]
    try:
        row = torch.tensor([ids], device=model.device)
        model.base_model(input_ids=row, use_cache=False, output_attentions=True)
    finally:
        for hook in hooks:
            hook.remove()
    assert strongest is not None
    return strongest.float().cpu()


def _has_weights(output: Any, length: int) -> bool:
    """Whether a module's output has attention weights, `[1, heads, length, length]`, as second part."""
    weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
    return isinstance(weights, Tensor) and weights.ndim == 4 and weights.shape[2:] == (length, length)


def binned(table: Tensor, bins: int) -> Tensor:
    """Max-pools a square table to at most `bins` rows and columns."""
    return F.adaptive_max_pool2d(table[None], min(bins, len(table)))[0]
