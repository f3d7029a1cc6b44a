"""Which layers are checkpointed; `test_trainer.py` trains with them."""

from __future__ import annotations

import pytest
from torch import nn

from llamita.errors import ConfigError
from llamita.rlhf.ppo.checkpointing import checkpoint_layers

from ...helpers.tiny import tiny_model


def test_a_layer_that_two_models_share_is_changed_once() -> None:
    model = tiny_model()
    checkpoint_layers(model)
    once = model.model.layers[0].forward
    checkpoint_layers(model, model)
    assert model.model.layers[0].forward is once


def test_an_architecture_without_such_layers_is_an_error() -> None:
    with pytest.raises(ConfigError, match="gradient_checkpointing: Linear has no layers"):
        checkpoint_layers(nn.Linear(2, 2))
