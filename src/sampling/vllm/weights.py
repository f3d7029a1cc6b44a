"""A model's weights as a server needs them: whole, merged with adapters, by the names of transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...artifact import model_folder, write_json
from ...model.checkpoint import load_causal_lm, load_tokenizer
from ...model.checks import has_weights
from ...model.saving import FILE_SIZE, INDEX, save_model
from ...model.sharded import shape_of, stored_tensors, whole
from ...processes import is_main_process
from ...settings import Precision
from ..weights import merged

BASE_LAYER = ".base_layer"  # peft's name for the layer that an adapter belongs to
WEIGHT_FILES = (
    *("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "*.pt", "*.gguf"),
    *("*.pth", "*.h5", "*.msgpack", "*.onnx"),  # published models have copies in other formats
)
CHANGED_SHARE = 0.01  # of the elements of a matrix


class Weight(NamedTuple):
    """A weight of a model: its name, the layer that it belongs to, and its name there."""

    name: str
    layer: Any
    attribute: str

    @property
    def parameter(self) -> Any:
        return getattr(self.layer, self.attribute)

    @property
    def shape(self) -> tuple[int, ...]:
        return shape_of(self.parameter)


def weights_of(model: Any) -> list[Weight]:
    """The weights of a model by the names that it has without adapters; tied ones occur once."""
    found, seen = [], set()
    for prefix, module in model.named_modules():
        if ".lora_" in prefix or prefix.startswith("lora_"):
            continue
        layer_name = prefix.replace(BASE_LAYER, "")
        # peft's layer passes on the attributes of its base layer, and knows how to merge
        layer = model.get_submodule(prefix.removesuffix(BASE_LAYER)) if BASE_LAYER in prefix else module
        for attribute, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                found.append(Weight(f"{layer_name}.{attribute}".lstrip("."), layer, attribute))
    return found


@torch.no_grad()
def whole_weights(model: Any, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yields each weight in `dtype`, gathered if ZeRO-3 has partitioned it, and merged with adapters.

    Every rank must iterate to the end; it holds one gathered weight at a time.
    """
    for weight in weights_of(model):
        with whole(weight.parameter):
            value = merged(weight.layer) if weight.attribute == "weight" else weight.parameter.detach()
            yield weight.name, value.to(dtype)


def write_snapshot(model: Any, source: Path, folder: Path, *, dtype: torch.dtype) -> Exception | None:
    """Writes a model as a folder for a server; every rank calls it, rank 0 writes.

    Config and tokenizer are copied from `source`, the folder that the model was loaded from. Rank 0 holds the
    tensors of one file at a time.

    Returns the error of the first file that rank 0 could not write: the other ranks still need it to gather
    the weights, so it is not raised before the end.
    """
    failure: Exception | None = None
    files: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    size = 0

    def flush() -> None:
        nonlocal failure, size
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        file = f"model-{len(set(files.values())) + 1:05}.safetensors"
        files.update(dict.fromkeys(tensors, file))
        if failure is None:
            try:
                save_file(tensors, folder / file, {"format": "pt"})
            except (OSError, SafetensorError) as error:
                failure = error
        tensors.clear()
        size = 0

    if is_main_process():
        try:
            _copy_other_files(source, folder)
        except OSError as error:
            failure = error
    for name, tensor in whole_weights(model, dtype):
        if is_main_process():
            if size and size + tensor.nbytes > FILE_SIZE:
                flush()
            tensors[name] = tensor.to("cpu", copy=True).contiguous()
            size += tensor.nbytes
    if is_main_process():
        flush()
        if failure is None:
            try:
                write_json(folder / INDEX, {"metadata": {}, "weight_map": files})
            except OSError as error:
                failure = error
    return failure


def _copy_other_files(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns(*WEIGHT_FILES)
    shutil.copytree(source, folder, ignore=ignored, dirs_exist_ok=True)


def servable(folder: Path, copy: Path, dtype: Precision) -> Path:
    """A folder with the model of `folder` that a server can load.

    That of an adapter without its base model, or of a GGUF file, is written to `copy`. Raises DataError if
    the model can't be loaded.
    """
    model = model_folder(folder)
    if model.is_dir() and has_weights(model):
        return model
    shutil.rmtree(copy, ignore_errors=True)
    save_model(load_causal_lm(folder, dtype), load_tokenizer(folder), copy)
    return copy


def differ(folder: Path, other: Path, dtype: torch.dtype) -> bool:
    """Whether two folders have weights so different that a server's log-probabilities must differ.

    Compared, in `dtype`, are the first and the last matrix by name: at least `CHANGED_SHARE` of the elements
    of one of them must differ.
    """
    mine, theirs = (stored_tensors(sorted(each.glob("*.safetensors"))) for each in (folder, other))
    matrices = sorted(name for name, tensor in mine.items() if len(tensor.shape) == 2 and name in theirs)
    for name in {*matrices[:1], *matrices[-1:]}:
        one, two = (stored[name].read().to(dtype) for stored in (mine, theirs))
        if one.shape == two.shape and (one != two).float().mean().item() >= CHANGED_SHARE:
            return True
    return False


def difference(folder: Path, other: Path) -> str | None:
    """Why a running server of the model in `other` cannot serve that in `folder`; None if it can.

    Ids of special tokens may differ: requests name them.
    """
    one, two = map(_config, (folder, other))
    names = sorted(
        name
        for name in one.keys() | two.keys()
        if not name.endswith("_token_id") and one.get(name) != two.get(name)
    )
    return "; ".join(f"{name} is {one.get(name)}, not {two.get(name)}" for name in names[:3]) or None


def _config(folder: Path) -> dict[str, Any]:
    """What decides the shape of a folder's model."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    ignored = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache")
    return {name: value for name, value in config.items() if name not in ignored}
