"""One frozen base model with LoRA adapters for policy, reference, critic and all reward models.

Five models, or six with a judge, need the memory of one. Each of them is the base model with its own adapter
active; reward models and critic also have their own head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed.device import device
from ..errors import DataError
from ..model import lora
from ..model.checkpoint import load_causal_lm
from ..model.saving import save_config, save_model


class SharedBaseModel:
    """A frozen language model with several adapters of the same shape.

    Args:
        base_model: the model to load.
        settings: settings of every adapter, by the names of `peft.LoraConfig`.
    """

    def __init__(self, base_model: lora.BaseModel, settings: Mapping[str, Any]) -> None:
        self._base_model, self._settings = base_model, settings
        self.model = load_causal_lm(base_model.path).to(device()).eval().requires_grad_(False)
        self._adapted: Any = None

    def language_model(self, name: str, folder: Path) -> AdaptedLanguageModel:
        """The model with the adapter of an artifact, added as `name` and frozen.

        Raises DataError if the artifact has no adapter or its adapter belongs to another base model.
        """
        self._add(name, folder)
        return AdaptedLanguageModel(self, name)

    def reward_model(self, name: str, folder: Path) -> AdaptedRewardModel:
        """The reward model of an artifact: its adapter, added as `name` and frozen, and its head."""
        self._add(name, folder)
        return AdaptedRewardModel(self, name, lora.adapter_head(folder / lora.ADAPTER))

    def _add(self, name: str, folder: Path) -> None:
        adapter = folder / lora.ADAPTER
        if not adapter.is_dir():
            raise DataError(
                f"{folder} has no {lora.ADAPTER}; with `lora` every input model must be trained with `lora`"
            )
        if (base_model := lora.read_base_model(adapter)).hash != self._base_model.hash:
            raise DataError(
                f"{adapter}: its base model is {base_model.path}, not {self._base_model.path}; "
                "all adapters must belong to the same base model"
            )
        lora.check_shape(adapter, self._settings)
        self._adapted = lora.add_adapter(self._adapted or self.model, name, self._settings)
        lora.load_adapter(self._adapted, adapter, name)
        self._adapted.requires_grad_(False)

    def activate(self, name: str) -> None:
        """Makes the adapter of this name the only active one."""
        for _, layer in self._layers():
            layer._active_adapter = [name]  # `set_adapter` would also decide which weights are trained

    def weights(self, name: str) -> list[nn.Parameter]:
        """The weights of an adapter."""
        return [weight for _, layer in self._layers() for weight in lora.adapter_weights(layer, name)]

    def save(self, name: str, tokenizer: Any, folder: Path, *, merge: bool = True) -> None:
        """Writes the adapter to `folder/adapter` and the base model merged with it to `folder/model`.

        `merge`: whether `folder/model` has the merged weights; otherwise only config and tokenizer.
        """
        lora.save_added(self._adapted, name, self._base_model, folder=folder / lora.ADAPTER)
        if not merge:
            save_config(self.model, tokenizer, folder / "model")
            return
        merged = {
            key.replace(".base_layer.", "."): value
            for key, value in self.model.state_dict().items()
            if "lora_" not in key
        }
        for key, layer in self._layers():
            merged[f"{key}.weight"] = layer.weight + layer.get_delta_weight(name)
        config = copy.deepcopy(self.model.config)
        config.tie_word_embeddings &= not lora.adapts_tied_embeddings(self.model)
        model = type(self.model)(config)
        model.load_state_dict(merged)
        model.generation_config = self.model.generation_config  # may list more EOS tokens than the config
        save_model(model, tokenizer, folder / "model")

    def _layers(self) -> Iterator[tuple[str, Any]]:
        return lora.adapted_layers(self.model)


class _Adapted(nn.Module):
    """A module with only the adapter's weights as parameters: no others are trained or saved."""

    def __init__(self, shared: SharedBaseModel, name: str) -> None:
        super().__init__()
        self._shared, self._name = shared, name
        self.adapter = nn.ParameterList(shared.weights(name))
        self.config = shared.model.config

    def train_adapter(self) -> None:
        self.adapter.requires_grad_(True)


class AdaptedLanguageModel(_Adapted):
    """A causal language model with the interface of `transformers`."""

    def forward(self, **inputs: Any) -> Any:
        return self.activated()(**inputs)

    def activated(self) -> Any:
        """The base model with this adapter active, until another adapter is activated."""
        self._shared.activate(self._name)
        return self._shared.model


class AdaptedBackbone(_Adapted):
    """A language model without its output layer."""

    def forward(self, **inputs: Any) -> Any:
        return self.activated()(**inputs)

    def activated(self) -> Any:
        """As `AdaptedLanguageModel.activated`."""
        self._shared.activate(self._name)
        return self._shared.model.base_model


def transformers_model(model: Any) -> Any:
    """The `transformers` model behind `model`, which computes the same."""
    return model.activated() if isinstance(model, AdaptedLanguageModel | AdaptedBackbone) else model


class AdaptedRewardModel(nn.Module):
    """A sequence classifier with only `base_model` and `score`, which the scorer and the critic use."""

    def __init__(self, shared: SharedBaseModel, name: str, head: Tensor) -> None:
        super().__init__()
        self.base_model = AdaptedBackbone(shared, name)
        self.score = nn.Linear(head.shape[1], head.shape[0], bias=False, device=device(), dtype=head.dtype)
        with torch.no_grad():
            self.score.weight.copy_(head)
        self.config = shared.model.config

    @property
    def device(self) -> torch.device:
        return self.score.weight.device
