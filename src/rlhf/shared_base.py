"""One frozen base model with LoRA adapters for policy, reference, critic and all reward models.

Five models, or six with a judge, need the memory of one. Each of them is the base model with its own adapter
active; reward models and critic also have their own head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed.device import device
from ..errors import DataError
from ..model import lora
from ..model.checkpoint import load_causal_lm
from ..model.frozen import load_partitioned, run_partitioned
from ..model.merging import merged_with
from ..model.saving import save_config, save_model


class SharedBaseModel:
    """A frozen language model with several adapters of the same shape.

    Args:
        base_model: the model to load.
        settings: settings of every adapter, by the names of `peft.LoraConfig`.
        bf16: whether the base model's weights are in bf16; otherwise they are in fp32.
        partitioned: whether ZeRO-3 partitions the base model over the ranks. Adapters are whole on each rank.
    """

    def __init__(
        self, base_model: lora.BaseModel, settings: Mapping[str, Any], *, bf16: bool, partitioned: bool
    ) -> None:
        self._base_model, self._settings, self.bf16 = base_model, settings, bf16
        self._root: _Root | None = None

        def load() -> Any:
            return load_causal_lm(base_model.path, "bfloat16" if bf16 else "float32")

        if partitioned:
            self.model: Any = load_partitioned(load, bf16=bf16).eval()
            self._root = _Root(self.model)
            run_partitioned(self._root, bf16=bf16)
        else:
            self.model = load().to(device()).eval().requires_grad_(False)
        self._adapted: Any = None

    @property
    def partitioned(self) -> bool:
        """Whether every rank must make the same passes."""
        return self._root is not None

    def run(self, part: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        """Calls the base model or a part of it."""
        return part(**inputs) if self._root is None else self._root(part, inputs)

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

        `merge`: whether `folder/model` has the merged weights; otherwise only config and tokenizer. The base
        model is loaded once more for it, in fp32 and whole, on the rank that calls this.
        """
        lora.save_added(self._adapted, name, self._base_model, folder=folder / lora.ADAPTER)
        if not merge:
            save_config(self.model, tokenizer, folder / "model")
            return
        model = merged_with(load_causal_lm(self._base_model.path), folder / lora.ADAPTER, head=False)
        save_model(model, tokenizer, folder / "model")

    def _layers(self) -> Iterator[tuple[str, Any]]:
        return lora.adapted_layers(self.model)


class _Root(nn.Module):
    """What DeepSpeed takes for the model: passes through different parts of it have one beginning.

    At the beginning of a pass of this module ZeRO-3 forgets in which order the last pass used the weights.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, part: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
        return part(**inputs)


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
        return self._shared.run(self.activated(), inputs)

    def run(self, work: Callable[..., Any], **inputs: Any) -> Any:
        """Calls `work`, which calls parts of the activated base model, as one pass."""
        return self._shared.run(work, inputs)

    def activated(self) -> Any:
        """The base model with this adapter active, until another adapter is activated."""
        self._shared.activate(self._name)
        return self._shared.model


class AdaptedBackbone(_Adapted):
    """A language model without its output layer."""

    def forward(self, **inputs: Any) -> Any:
        return self._shared.run(self.activated(), inputs)

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
        self.score = nn.Linear(head.shape[1], head.shape[0], bias=False, device=device())
        with torch.no_grad():
            self.score.weight.copy_(head)
        self.config, self.partitioned = shared.model.config, shared.partitioned

    @property
    def device(self) -> torch.device:
        return self.score.weight.device
