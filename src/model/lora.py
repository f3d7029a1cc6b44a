"""LoRA with peft (extra `lora`): the base model's weights are frozen, an adapter is trained.

An artifact then contains its `adapter` in peft's format, `adapter/base_model.json`, which names the base
model, and `model`: the merged model, or without merging only its config and tokenizer; whoever loads it then
merges base model and adapter in memory. A stage that starts from such an artifact continues to train its
adapter, so that all models of a run share one base model.
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
from ..errors import ConfigError, DataError, install_command
from ..hashes import input_hash
from ..processes import is_main_process
from . import sharded

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ADAPTER, BASE_MODEL = "adapter", "base_model.json"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


class BaseModel(NamedTuple):
    """The frozen weights of an adapter: folder or file, and its hash."""

    path: Path
    hash: str


def load_trainable(
    load: Callable[[Path], PreTrainedModel], folder: Path, lora: Mapping[str, Any] | None, *, seed: int
) -> Any:
    """Loads a model to train: with `lora` a frozen base model with an adapter, otherwise all weights.

    Args:
        load: loads a model from a folder.
        lora: options of `peft.LoraConfig`, None for training without adapter.
        seed: seed of a new adapter, which does not change the model's outputs before training.

    Raises:
        ConfigError: peft is missing or rejects `lora`, or the folder's adapter has another shape.
        DataError: the base model of the folder's adapter is missing or has changed.
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
    """Returns the base model of an adapter trained from `folder`. Raises DataError as `read_base_model`."""
    if (folder / ADAPTER).is_dir():
        return read_base_model(folder / ADAPTER)
    return BaseModel(folder.absolute(), input_hash(folder))


def read_base_model(adapter: Path) -> BaseModel:
    """Returns the base model of an adapter. Raises DataError if it is missing or has changed."""
    try:
        entry = json.loads((adapter / BASE_MODEL).read_text(encoding="utf-8"))
        base_model = BaseModel((adapter / entry["path"]).resolve(), entry["hash"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{adapter / BASE_MODEL}: missing or broken; expected an adapter that llamita has saved"
        ) from None
    if not base_model.path.exists():
        raise DataError(
            f"{adapter}: its base model {base_model.path} is missing; restore it, or train without `lora`"
        )
    if input_hash(base_model.path) != base_model.hash:
        raise DataError(
            f"{adapter}: the weights of its base model {base_model.path} have changed (above 256 MB "
            "their modification times count: copy them with `cp -p`); rerun this stage"
        )
    return base_model


def is_adapted(model: Any) -> bool:
    """Whether the model has an adapter."""
    return hasattr(model, "peft_config") and hasattr(model, "merge_and_unload")


def plain(model: Any) -> Any:
    """Returns the `transformers` model inside an adapted model, or the model itself; shares its layers."""
    return model.get_base_model() if is_adapted(model) else model


def save_adapter(model: Any, folder: Path) -> None:
    """Writes the adapter of a model that `load_trainable` loaded; every rank calls it, rank 0 writes.

    Under ZeRO-3 the adapter is gathered parameter by parameter, the base model is not.
    """
    state = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with sharded.whole(parameter):
                state[name] = parameter.detach().cpu().clone() if is_main_process() else parameter
    if not is_main_process():
        return
    # the embedding layers belong to the base model
    model.save_pretrained(str(folder), state_dict=state, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty template
    _write_base_model(model.adapter_base, folder)


def _write_base_model(base_model: BaseModel, folder: Path) -> None:
    # relative, so that it stays valid if the whole run is moved; `..` behind a link leads elsewhere
    path = os.path.relpath(base_model.path.resolve(), folder.resolve())
    write_json(folder / BASE_MODEL, {"path": path, "hash": base_model.hash})


def load_adapter(model: Any, adapter: Path, name: str = "default") -> None:
    """Loads a saved adapter into the model's adapter of that name. Raises DataError if it doesn't match."""
    saved = {_model_key(key, name): tensor for key, tensor in _tensors(adapter, "lora_").items()}
    loading = model.load_state_dict(saved, strict=False)
    missing = [key for key in loading.missing_keys if "lora_" in key and f".{name}." in key]
    if missing or loading.unexpected_keys:
        names = ", ".join([*missing, *loading.unexpected_keys][:3])
        raise DataError(
            f"{adapter}: the adapter belongs to another model: {names} don't match; use its own base model"
        )


def _model_key(key: str, name: str) -> str:
    """Converts the key of a saved tensor to its key in a model with an adapter of that name."""
    return f"{key}.{name}" if "lora_embedding_" in key else f"{key.removesuffix('.weight')}.{name}.weight"


def adapter_head(adapter: Path) -> Tensor:
    """Returns the head of a reward model's saved adapter, `[outputs, hidden size]`, in fp32.

    DeepSpeed trains it in bf16. Raises DataError if the adapter has no head.
    """
    heads = list(_tensors(adapter, "score.weight").values())
    if len(heads) != 1:
        raise DataError(f"{adapter}: the adapter has no head; expected the adapter of a reward model")
    return heads[0].float()


def _tensors(adapter: Path, part: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(adapter / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{adapter}: the adapter can't be read: {error}") from None
    return {name: tensor for name, tensor in tensors.items() if part in name}


def add_adapter(model: Any, name: str, lora: Mapping[str, Any]) -> Any:
    """Adds a named adapter to a model, which may have others; its weights are still to be loaded."""
    with torch.random.fork_rng(devices=[]):
        if not is_adapted(model):
            return _wrapped(model, lora_config(model, lora), name)
        if name not in model.peft_config:
            with warnings.catch_warnings():  # as in `_wrapped`
                warnings.simplefilter("ignore")
                model.add_adapter(name, lora_config(plain(model), lora))
        return model


def save_added(model: Any, name: str, base_model: BaseModel, *, folder: Path) -> None:
    """Writes one of a model's several adapters in the format of `save_adapter`."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / WEIGHTS)
    model.peft_config[name].save_pretrained(str(folder))
    _write_base_model(base_model, folder)


def adapted_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields the layers with adapters, with their names in the model without adapters."""
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def adapter_weights(layer: Any, name: str) -> list[torch.nn.Parameter]:
    """Returns the two factors of a named adapter in a layer."""
    if name in layer.lora_embedding_A:
        return [layer.lora_embedding_A[name], layer.lora_embedding_B[name]]
    return [layer.lora_A[name].weight, layer.lora_B[name].weight]


def adapts_tied_embeddings(model: PreTrainedModel) -> bool:
    """Whether the embeddings have an adapter, but not the output layer that shares their weights.

    Args:
        model: the plain model inside the adapted one.
    """
    from peft.tuners.lora import LoraLayer

    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    return isinstance(table, LoraLayer) and head is not None and head.weight is table.weight


def lora_config(model: PreTrainedModel, lora: Mapping[str, Any]) -> Any:
    """Returns the `peft.LoraConfig` of a model. Raises ConfigError if peft is missing or rejects `lora`."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError(f"lora: the package peft is not installed; {install_command('lora')}") from None
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
    frozen = [weight for weight in adapted.parameters() if sharded.is_partitioned(weight)]
    dtype = frozen[0].dtype if frozen else torch.float32  # DeepSpeed keeps trained weights in fp32 itself
    for weight in adapted.parameters():
        if weight.requires_grad:  # a base model in bf16 must not make the adapter's small steps vanish
            weight.data = weight.data.to(dtype)
    adapted.adapter_base = base_model
    return adapted


def _wrapped(model: PreTrainedModel, config: Any, name: str = "default") -> Any:
    from peft import get_peft_model

    layers = [layer for layer, _ in model.named_modules()]
    with warnings.catch_warnings():
        # peft uses a deprecated property of transformers, and warns of tied weights, which `merged` handles
        warnings.simplefilter("ignore")
        try:
            adapted = get_peft_model(model, config, adapter_name=name)
        except (ValueError, re.error) as error:  # no layer has one of the names, or it can't have an adapter
            raise ConfigError(f"lora: target_modules: {error}") from None
    _check_targets(plain(adapted), config.target_modules, layers)
    return adapted


def _check_targets(model: PreTrainedModel, targets: Any, layers: list[str]) -> None:
    """Raises ConfigError for names that no layer has, and for an adapter on the output layer."""
    for target in targets if isinstance(targets, list | set) else ():
        if not any(layer == target or layer.endswith(f".{target}") for layer in layers):
            last = sorted({layer.rpartition(".")[2] for layer, _ in adapted_layers(model)})
            raise ConfigError(
                f"lora: target_modules: no layer of the model is named {target!r}; the other names match "
                f"{', '.join(last)}"
            )
    for layer, module in adapted_layers(model):
        if module is model.get_output_embeddings() or layer.split(".")[0] == "score":
            raise ConfigError(
                f"lora: target_modules: {layer} is the output layer, which language model and reward model "
                "don't share; use other layers, or `all-linear`"
            )


def check_shape(adapter: Path, lora: Mapping[str, Any]) -> None:
    """Raises ConfigError if an adapter has another shape than `lora`, so its training can't continue."""
    try:
        saved = json.loads((adapter / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{adapter / CONFIG}: can't be read: {error}") from None
    for name in ("r", "lora_alpha", "use_rslora"):
        if saved.get(name) != lora[name]:
            raise ConfigError(
                f"lora: {name}: {lora[name]} differs from {saved.get(name)} in {adapter}, whose training "
                f"would continue; set {name}: {saved.get(name)}"
            )
