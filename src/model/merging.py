"""Merges LoRA adapters into their base model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .lora import CONFIG, adapter_head, adapts_tied_embeddings, add_adapter, load_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def merged(model: Any) -> PreTrainedModel:
    """Merges the adapter into the weights and returns the plain model; `model` is unusable afterwards.

    Tied embeddings with an adapter are untied: the output layer keeps the base model's weights.
    """
    base = model.get_base_model()
    if adapts_tied_embeddings(base):
        head = base.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        base.config.tie_word_embeddings = False
    with warnings.catch_warnings():  # peft warns of tied weights, which are untied above
        warnings.simplefilter("ignore")
        whole: PreTrainedModel = model.merge_and_unload()
    return whole


def merged_with(model: PreTrainedModel, adapter: Path, *, head: bool) -> PreTrainedModel:
    """Merges a saved adapter into a model, which is unusable afterwards, and returns the result.

    Args:
        model: the adapter's base model; for a reward model, with a head of any values.
        head: whether to take the adapter's head, too.
    """
    settings = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    names = ("r", "lora_alpha", "use_rslora", "target_modules")
    adapted = add_adapter(model, "default", {name: settings[name] for name in names})
    load_adapter(adapted, adapter)
    whole = merged(adapted).requires_grad_(True)  # peft had frozen the base model
    if head:
        with torch.no_grad():
            whole.score.weight.copy_(adapter_head(adapter))
    return whole
