"""Activation checkpointing of models that are trained in eval mode.

transformers checkpoints only layers in training mode, in which dropout would make the probability ratio of
the first step differ from 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from ...errors import ConfigError


def checkpoint_layers(*models: nn.Module) -> None:
    """Makes each layer save only its input for the backward pass; models may share layers.

    Raises ConfigError if an architecture has no layers that can be checkpointed.
    """
    for model in models:
        layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers:
            raise ConfigError(
                f"gradient_checkpointing: {type(model).__name__} has no layers that can be checkpointed; set "
                "it to false"
            )
        for layer in layers:
            if "forward" not in vars(layer):
                layer.forward = _checkpointed(layer.forward)


def _checkpointed(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def call(*args: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **options)
        return checkpoint(forward, *args, use_reentrant=False, **options)

    return call
