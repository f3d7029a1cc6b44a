"""Writes models and tokenizers as Hugging Face folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..artifact import write_json
from ..processes import is_main_process
from . import sharded
from .special import write_special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FILE_SIZE = 5 * 1024**3  # bytes of a file of weights
INDEX = "model.safetensors.index.json"


def save_model(
    model: PreTrainedModel, tokenizer: Any, folder: Path, *, state_dict: dict[str, Any] | None = None
) -> None:
    """Writes model and tokenizer for `transformers`, with the tokenizer's special ids in every config.

    `state_dict`: the weights, if they are to be written otherwise than the model has them.
    """
    write_special_ids(model, tokenizer)
    with quiet():
        model.save_pretrained(str(folder), state_dict=state_dict)
    tokenizer.save_pretrained(str(folder))


def save_config(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Writes what `save_model` writes, without the weights."""
    write_special_ids(model, tokenizer)
    model.config.architectures = [type(model).__name__]
    model.config.dtype = next(model.parameters()).dtype
    model.config.save_pretrained(str(folder))
    if (generation := getattr(model, "generation_config", None)) is not None:
        generation.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def save_partitioned(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """As `save_model`, for weights that ZeRO-3 has partitioned; every rank calls it, rank 0 writes."""
    weights: dict[str, Any] = dict(model.named_parameters())
    names = model.state_dict().keys()
    write_weights(weights | {name: b for name, b in model.named_buffers() if name in names}, folder)
    if is_main_process():
        save_config(model, tokenizer, folder)


def write_weights(weights: Mapping[str, Any], folder: Path) -> None:
    """Writes weights, whole or partitioned, as safetensors; every rank calls it, rank 0 writes.

    Rank 0 holds the tensors of one file at a time, at most `FILE_SIZE` or one tensor. It raises the error of
    the first file that it cannot write when all weights have been gathered: the others still need it there.
    """
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plan = {
        name: torch.empty(sharded.shape_of(weight), dtype=weight.dtype, device="meta")
        for name, weight in weights.items()
    }
    files = split_torch_state_dict_into_shards(plan, max_shard_size=FILE_SIZE)
    folder.mkdir(parents=True, exist_ok=True)
    failure: Exception | None = None
    for file, stored in files.filename_to_tensors.items():
        tensors = {}
        for name in stored:
            with sharded.whole(weights[name]):
                if is_main_process():
                    tensors[name] = weights[name].detach().to("cpu", copy=True)
        if is_main_process() and failure is None:
            try:
                save_file(tensors, folder / file, {"format": "pt"})
            except (OSError, SafetensorError) as error:
                failure = error
    if failure is not None:
        raise failure
    if is_main_process() and files.is_sharded:
        write_json(folder / INDEX, {"metadata": files.metadata, "weight_map": files.tensor_to_filename})


def read_weights(weights: Mapping[str, Any], folder: Path) -> None:
    """Reads what `write_weights` wrote into weights of the same names, whole or partitioned, in place.

    Every rank calls it.
    """
    stored = sharded.stored_tensors(sorted(folder.glob("*.safetensors")))
    for name, weight in weights.items():
        with sharded.whole(weight, changed=True) as changes, torch.no_grad():
            if changes:
                weight.copy_(stored[name].read())


@contextmanager
def quiet() -> Iterator[None]:
    """Hides transformers' progress bars and load reports; the checks raise DataError for their problems."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
