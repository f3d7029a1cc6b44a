"""One frozen language model that carries policy, reference, critic and reward models as adapters (LoRA).

Five models cost the memory of one. Each is the base model with its own adapter active; reward models and
critic have a head of their own as well.
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
from ..model.saving import save_model


class SharedBaseModel:
    """A language model whose weights stay as they are, under adapters of one shape.

    Args:
        base_model: whose weights they are.
        settings: of every adapter, by the names of `peft.LoraConfig`.
    """

    def __init__(self, base_model: lora.BaseModel, settings: Mapping[str, Any]) -> None:
        self._base_model, self._settings = base_model, settings
        self.model = load_causal_lm(base_model.path).to(device()).eval().requires_grad_(False)
        self._adapted: Any = None

    def language_model(self, name: str, folder: Path) -> AdaptedLanguageModel:
        """The model with the adapter of an artifact, as `name`; all adapters are frozen then.

        Raises DataError for an artifact without an adapter, or whose adapter belongs to another base model.
        """
        self._add(name, folder)
        return AdaptedLanguageModel(self, name)

    def reward_model(self, name: str, folder: Path) -> AdaptedRewardModel:
        """The same for a reward model, its head included."""
        self._add(name, folder)
        return AdaptedRewardModel(self, name, lora.adapter_head(folder / lora.ADAPTER))

    def _add(self, name: str, folder: Path) -> None:
        adapter = folder / lora.ADAPTER
        if not adapter.is_dir():
            raise DataError(
                f"{folder}: no {lora.ADAPTER}; with `lora` expected a model trained with it as well"
            )
        if (base_model := lora.read_base_model(adapter)).hash != self._base_model.hash:
            raise DataError(
                f"{adapter}: its base model is {base_model.path}, not {self._base_model.path}; "
                "expected adapters of one base model"
            )
        lora.check_shape(adapter, self._settings)
        self._adapted = lora.add_adapter(self._adapted or self.model, name, self._settings)
        lora.load_adapter(self._adapted, adapter, name)
        self._adapted.requires_grad_(False)

    def use(self, name: str) -> None:
        """Puts the adapter of this name to work, and no other."""
        for _, layer in self._layers():
            layer._active_adapter = [name]  # `set_adapter` would also decide which weights are trained

    def weights(self, name: str) -> list[nn.Parameter]:
        """The adapter's own."""
        return [weight for _, layer in self._layers() for weight in lora.adapter_weights(layer, name)]

    def save(self, name: str, tokenizer: Any, folder: Path) -> None:
        """Writes an adapter: merged with the base model to `folder/model`, alone to `folder/adapter`."""
        lora.save_added(self._adapted, name, self._base_model, folder=folder / lora.ADAPTER)
        merged = {
            key.replace(".base_layer.", "."): value
            for key, value in self.model.state_dict().items()
            if "lora_" not in key
        }
        for key, layer in self._layers():
            merged[f"{key}.weight"] = layer.weight + layer.get_delta_weight(name)
        config = copy.deepcopy(self.model.config)
        config.tie_word_embeddings &= not lora.adapts_tied_embeddings(self.model)
        fresh = type(self.model)(config)
        fresh.load_state_dict(merged)
        fresh.generation_config = self.model.generation_config  # may name more tokens that end an answer
        save_model(fresh, tokenizer, folder / "model")

    def _layers(self) -> Iterator[tuple[str, Any]]:
        return lora.adapted_layers(self.model)


class _Adapted(nn.Module):
    """Only the adapter's weights are this module's parameters: they alone are trained and saved."""

    def __init__(self, shared: SharedBaseModel, name: str) -> None:
        super().__init__()
        self._shared, self._name = shared, name
        self.adapter = nn.ParameterList(shared.weights(name))
        self.config = shared.model.config

    def train_adapter(self) -> None:
        self.adapter.requires_grad_(True)


class AdaptedLanguageModel(_Adapted):
    """A causal language model, called as those of `transformers` are."""

    def forward(self, **inputs: Any) -> Any:
        return self.whole()(**inputs)

    def whole(self) -> Any:
        """The base model with this adapter at work, until another one is."""
        self._shared.use(self._name)
        return self._shared.model


def whole(model: Any) -> Any:
    """The model of `transformers` that computes what `model` does."""
    return model.whole() if isinstance(model, AdaptedLanguageModel) else model


class AdaptedBackbone(_Adapted):
    """A language model without its output layer."""

    def forward(self, **inputs: Any) -> Any:
        self._shared.use(self._name)
        return self._shared.model.base_model(**inputs)


class AdaptedRewardModel(nn.Module):
    """As much of a sequence classifier as scores and critics need: `base_model` and `score`."""

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
