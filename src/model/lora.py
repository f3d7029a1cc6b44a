"""LoRA by peft (extra `lora`): the weights that are given stay, an adapter beside them is trained.

Beside the merged `model` an artifact then has its `adapter`, as peft reads it, and
`adapter/base_model.json` names the model whose weights it belongs to. A stage that starts from such an
artifact continues to train its adapter, so that all models of a run share one base model.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..artifact import write_json
from ..errors import ConfigError, DataError
from ..hashes import input_hash

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ADAPTER, BASE_MODEL = "adapter", "base_model.json"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


class BaseModel(NamedTuple):
    """The frozen weights below an adapter: their folder or file, and its hash."""

    path: Path
    hash: str


def load_trainable(
    load: Callable[[Path], PreTrainedModel], folder: Path, lora: Mapping[str, Any] | None, *, seed: int
) -> Any:
    """The model to train: with `lora` the base model of a folder under an adapter, otherwise all its weights.

    Args:
        load: reads a model from a folder.
        lora: names of `peft.LoraConfig`.
        seed: of a new adapter, which changes nothing yet.

    Raises:
        ConfigError: peft is missing or refuses `lora`, or the folder's own adapter is of another shape.
        DataError: the folder's adapter has lost its base model.
    """
    if lora is None:
        return load(folder)
    adapter = folder / ADAPTER
    if not adapter.is_dir():
        return _under_new_adapter(load(folder), lora, seed, base_model=base_model_of(folder))
    check_shape(adapter, lora)
    base_model = read_base_model(adapter)
    model = _under_new_adapter(load(base_model.path), lora, seed, base_model=base_model)
    load_adapter(model, adapter)
    return model


def base_model_of(folder: Path) -> BaseModel:
    """What an adapter begun from `folder` belongs to. Raises DataError where that is gone or has changed."""
    if (folder / ADAPTER).is_dir():
        return read_base_model(folder / ADAPTER)
    return BaseModel(folder.absolute(), input_hash(folder))


def read_base_model(adapter: Path) -> BaseModel:
    """The base model of an adapter. Raises DataError where it is gone or has changed."""
    try:
        told = json.loads((adapter / BASE_MODEL).read_text(encoding="utf-8"))
        base_model = BaseModel((adapter / told["path"]).resolve(), told["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{adapter / BASE_MODEL}: missing or broken; expected an adapter of ours") from None
    if not base_model.path.exists():
        raise DataError(
            f"{adapter}: its base model {base_model.path} is missing; restore it, or train without `lora`"
        )
    if input_hash(base_model.path) != base_model.hash:
        raise DataError(
            f"{adapter}: the weights of its base model {base_model.path} have changed; rerun this stage"
        )
    return base_model


def is_adapted(model: Any) -> bool:
    """Whether `load_trainable` has put the model under an adapter."""
    return hasattr(model, "peft_config") and hasattr(model, "merge_and_unload")


def plain(model: Any) -> Any:
    """The model of `transformers` below an adapter, or the model itself; the layers are the same ones."""
    return model.get_base_model() if is_adapted(model) else model


def save_adapter(model: Any, folder: Path) -> None:
    """Writes the adapter of a model that `load_trainable` has made."""
    model.save_pretrained(str(folder), save_embedding_layers=False)  # they are the base model's
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty form
    _write_base_model(model.adapter_base, folder)


def _write_base_model(base_model: BaseModel, folder: Path) -> None:
    path = os.path.relpath(base_model.path, folder)  # a run may be moved as a whole
    write_json(folder / BASE_MODEL, {"path": path, "hash": base_model.hash})


def merged(model: Any) -> PreTrainedModel:
    """The plain model, the adapter added to its weights; `model` is used up.

    Tied embeddings with an adapter come out untied: the output layer below the adapter is the base model's.
    """
    base = model.get_base_model()
    if adapts_tied_embeddings(base):
        head = base.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        base.config.tie_word_embeddings = False
    with warnings.catch_warnings():  # as in `_wrapped`
        warnings.simplefilter("ignore")
        whole: PreTrainedModel = model.merge_and_unload()
    return whole


def load_adapter(model: Any, adapter: Path, name: str = "default") -> None:
    """Reads a saved adapter into a model's own of that name. Raises DataError if it doesn't fit."""
    saved = _tensors(adapter, "lora_")
    found = model.load_state_dict({_named(key, name): tensor for key, tensor in saved.items()}, strict=False)
    missing = [key for key in found.missing_keys if "lora_" in key and f".{name}." in key]
    if missing or found.unexpected_keys:
        names = ", ".join([*missing, *found.unexpected_keys][:3])
        raise DataError(f"{adapter}: not an adapter of this model: {names} don't match")


def _named(key: str, name: str) -> str:
    """The key of a saved tensor in a model that has its adapter under a name."""
    return f"{key}.{name}" if "lora_embedding_" in key else key.replace(".weight", f".{name}.weight")


def adapter_head(adapter: Path) -> Tensor:
    """The head `[outputs, hidden size]` in a reward model's saved adapter. Raises DataError if none is."""
    heads = list(_tensors(adapter, "score.weight").values())
    if len(heads) != 1:
        raise DataError(f"{adapter}: no head; expected the adapter of a reward model")
    return heads[0]


def _tensors(adapter: Path, part: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(adapter / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{adapter}: the adapter can't be read: {error}") from None
    return {name: tensor for name, tensor in tensors.items() if part in name}


def add_adapter(model: Any, name: str, lora: Mapping[str, Any]) -> Any:
    """A model under one more adapter, whose weights are still to be loaded; those there already stay."""
    with torch.random.fork_rng(devices=[]):
        if not is_adapted(model):
            return _wrapped(model, lora_config(model, lora), name)
        if name not in model.peft_config:
            with warnings.catch_warnings():  # as in `_wrapped`
                warnings.simplefilter("ignore")
                model.add_adapter(name, lora_config(plain(model), lora))
        return model


def save_added(model: Any, name: str, base_model: BaseModel, *, folder: Path) -> None:
    """Writes one of several adapters as `save_adapter` would write it alone."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / WEIGHTS)
    model.peft_config[name].save_pretrained(str(folder))
    _write_base_model(base_model, folder)


def adapted_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The layers that have adapters, by the names that they have without."""
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def adapter_weights(layer: Any, name: str) -> list[torch.nn.Parameter]:
    """The two factors that an adapter of this name has in a layer."""
    if name in layer.lora_embedding_A:
        return [layer.lora_embedding_A[name], layer.lora_embedding_B[name]]
    return [layer.lora_A[name].weight, layer.lora_B[name].weight]


def adapts_tied_embeddings(model: PreTrainedModel) -> bool:
    """Whether the embeddings have an adapter, but not the output layer that shares their weights.

    Args:
        model: the plain one below the adapters.
    """
    from peft.tuners.lora import LoraLayer

    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    return isinstance(table, LoraLayer) and head is not None and head.weight is table.weight


def lora_config(model: PreTrainedModel, lora: Mapping[str, Any]) -> Any:
    """`peft.LoraConfig` for a model. Raises ConfigError where peft is missing or refuses the settings."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError("lora: needs the package peft: pip install 'llamita[lora]'") from None
    task = "SEQ_CLS" if "SequenceClassification" in type(model).__name__ else "CAUSAL_LM"
    try:
        return LoraConfig(**lora, task_type=task)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"lora: {error}") from None


def _under_new_adapter(
    model: PreTrainedModel, lora: Mapping[str, Any], seed: int, *, base_model: BaseModel
) -> Any:
    config = lora_config(model, lora)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapted = _wrapped(model, config)
    adapted.adapter_base = base_model
    return adapted


def _wrapped(model: PreTrainedModel, config: Any, name: str = "default") -> Any:
    from peft import get_peft_model

    layers = [layer for layer, _ in model.named_modules()]
    with warnings.catch_warnings():
        # peft asks transformers for a property by a name that is to go, and warns of what `merged` does right
        warnings.simplefilter("ignore")
        try:
            adapted = get_peft_model(model, config, adapter_name=name)
        except (ValueError, re.error) as error:  # no layer has one of the names, or one that takes none
            raise ConfigError(f"lora: target_modules: {error}") from None
    _check_targets(plain(adapted), config.target_modules, layers)
    return adapted


def _check_targets(model: PreTrainedModel, targets: Any, layers: list[str]) -> None:
    """Raises ConfigError for names that no layer has, and for an adapter of the output layer."""
    for target in targets if isinstance(targets, list | set) else ():
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            last = sorted({layer.rpartition(".")[2] for layer, _ in adapted_layers(model)})
            raise ConfigError(
                f"lora: target_modules: no layer of the model is named {target!r}; the other names fit "
                f"{', '.join(last)}"
            )
    for layer, module in adapted_layers(model):
        if module is model.get_output_embeddings() or layer.split(".")[0] == "score":
            raise ConfigError(
                f"lora: target_modules: {layer} is the output layer, which language model and reward model "
                "don't share; name other layers, or `all-linear`"
            )


def check_shape(adapter: Path, lora: Mapping[str, Any]) -> None:
    """Raises ConfigError where an adapter was made with other settings: it can't go on with these."""
    try:
        made = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{adapter / CONFIG}: can't be read: {error}") from None
    for name in ("r", "lora_alpha", "use_rslora"):
        if made.get(name) != lora[name]:
            raise ConfigError(
                f"lora: {name}: {lora[name]}, but {adapter}, which is to go on, has {made.get(name)}"
            )
