"""Loads a model folder under ZeRO-3, parameter by parameter, so that no rank ever holds all weights.

`from_pretrained` partitions the weights too, but takes them from files that fit: it finds neither missing nor
unexpected tensors, ties weights that differ, and the first rank reads all of them at once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..distributed.group import gather_rows
from ..processes import is_main_process
from . import sharded
from .checks import GENERATION, INDEX, WEIGHTS, check_tensors
from .sharded import Stored
from .special import rows_with_pad


def load_partitioned(
    model_class: Any, folder: Path, config: Any, *, tokenizer: Any, new_head: bool = False
) -> Any:
    """Returns the model of a folder with partitioned weights; every rank calls it.

    Args:
        config: the folder's config; it is changed where the files have an output layer of their own or lack
            the pad token's embedding.
        new_head: as in `check_tensors`; the head's values are still to be drawn.

    Raises DataError as `check_tensors` and `rows_with_pad`, before any weights are read.
    """
    plan = sharded.blueprint(model_class, config)
    stored = sharded.named_as_in(plan, sharded.stored_tensors(_files(folder)))
    check_tensors(folder, plan, _loading_info(plan, stored), new_head=new_head)
    if _differ_though_tied(plan, stored):
        config.tie_word_embeddings = False
    rows = plan.get_input_embeddings().num_embeddings
    config.vocab_size = rows_with_pad(rows, tokenizer, str(folder))
    model = sharded.build(model_class, config)
    sharded.fill(model, stored)
    if model.can_generate() and (folder / GENERATION).is_file():
        model.generation_config = type(model.generation_config).from_pretrained(str(folder))
    return model


def read_tensor(folder: Path, name: str) -> Tensor:
    """Reads one tensor of a model folder, with the dtype that it has there."""
    return sharded.stored_tensors(_files(folder))[name].read()


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return sorted({folder / name for name in index["weight_map"].values()})


def _loading_info(plan: Any, stored: Mapping[str, Stored]) -> dict[str, Any]:
    """What `from_pretrained` reports with `output_loading_info`, from names and shapes alone."""
    expected = {name: tuple(tensor.shape) for name, tensor in plan.state_dict().items()}
    tied = plan.all_tied_weights_keys
    missing = [name for name in expected if name not in stored and tied.get(name) not in stored]
    return {
        "missing_keys": _without(missing, plan._keys_to_ignore_on_load_missing),
        "unexpected_keys": _without(stored.keys() - expected.keys(), plan._keys_to_ignore_on_load_unexpected),
        "mismatched_keys": [
            (name, stored[name].shape, shape)
            for name, shape in expected.items()
            if name in stored and stored[name].shape != shape
        ],
    }


def _without(names: Iterable[str], patterns: Iterable[str] | None) -> list[str]:
    return [name for name in names if not any(re.search(pattern, name) for pattern in patterns or ())]


def _differ_though_tied(plan: Any, stored: Mapping[str, Stored]) -> bool:
    """Whether the files have different values for weights that the config ties; rank 0 compares them."""
    pairs = [(stored.get(name), stored.get(source)) for name, source in plan.all_tied_weights_keys.items()]
    differ = is_main_process() and any(
        one is not None and other is not None and not torch.equal(one.read(), other.read())
        for one, other in pairs
    )
    return any(gather_rows([differ]))
