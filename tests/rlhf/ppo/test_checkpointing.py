"""PPO with activation checkpointing computes the same, and its layers save only their inputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from llamita.errors import ConfigError
from llamita.rlhf.ppo.checkpointing import checkpoint_layers

from ...helpers.tiny import tiny_model
from .test_trainer import trainer


def saved(model: Any) -> int:
    """Number of elements that autograd saves in a forward pass, weights included."""
    sizes: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=torch.arange(3, 29)[None], use_cache=False)
    return sum(sizes)


def test_losses_stay_the_same() -> None:
    options: dict[str, Any] = {"critic_warmup_iterations": 0, "episodes": 32}
    usual, checkpointed = (trainer(gradient_checkpointing=on, **options) for on in (False, True))
    for iteration in (1, 2):
        expected, found = (
            {name: value for name, value in one.iterate(iteration).items() if name.startswith("ppo/")}
            for one in (usual, checkpointed)
        )
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    for name in ("policy", "critic"):
        pairs = zip(*(getattr(one, name).module.parameters() for one in (usual, checkpointed)), strict=True)
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)


def test_policy_and_critic_save_less_though_they_are_in_eval_mode() -> None:
    usual, checkpointed = (trainer(gradient_checkpointing=on) for on in (False, True))
    for model in (lambda one: one.policy.module, lambda one: one.critic.module.backbone):
        assert saved(model(checkpointed)) < 0.5 * saved(model(usual))


def test_a_layer_that_two_models_share_is_changed_once() -> None:
    model = tiny_model()
    checkpoint_layers(model)
    once = model.model.layers[0].forward
    checkpoint_layers(model, model)
    assert model.model.layers[0].forward is once


def test_an_architecture_without_such_layers_is_an_error() -> None:
    with pytest.raises(ConfigError, match="gradient_checkpointing: Linear has no layers"):
        checkpoint_layers(nn.Linear(2, 2))
