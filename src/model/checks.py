"""What is checked of every model at loading: whether its weights, its config and its tokenizer fit together.

Folders, models of the Hub, GGUF files (converted to folders) and artifacts all come through here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..document import parse_json
from ..errors import DataError
from .special import eos_ids, fit_config, fit_rows, listed, say_once, write_special_ids

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = b"version https://git-lfs"
HEAD = "score."  # of a reward model


def check_files(folder: Path) -> None:
    """Checks before anything is loaded that a folder's files are what their names say.

    Raises DataError for pointers of git-lfs in place of files.
    """
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        check_no_pointer(path)


def check_no_pointer(path: Path) -> None:
    """Raises DataError for what git leaves in a file's place where git-lfs has not fetched it."""
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None
    if start == POINTER:
        raise DataError(
            f"{path}: a pointer of git-lfs in place of the file; run `git lfs pull` in {path.parent}"
        )


def check_json(folder: Path) -> None:
    """Raises DataError with file and line for JSON that can't be read, which libraries don't name."""
    for path in sorted(folder.glob("*.json")):
        try:
            parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: can't be read: {error}") from None


def check_weights(folder: Path) -> None:
    """Raises DataError for a folder whose weights are no safetensors, or not all there."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return
    if not index.is_file():
        raise DataError(f"{folder}: no {WEIGHTS}; expected weights as safetensors (no other kind is read)")
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index}: can't be read: {error!r}") from None
    if missing := sorted(name for name in named if not (folder / str(name)).is_file()):
        raise DataError(f"{folder}: no {listed(missing)}; expected all {len(named)} files that {INDEX} names")


def read_config(folder: Path) -> Any:
    """The config of a folder's model, without its weights.

    Raises DataError where it is missing or broken, names no context, or is that of a quantised model.
    """
    from transformers import AutoConfig

    path = folder / CONFIG
    if not path.is_file():
        raise DataError(f"{folder}: no {CONFIG}; expected a model folder")
    try:
        quantised = parse_json(path.read_text(encoding="utf-8")).get("quantization_config")
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # a wrong value fails anywhere in transformers, with errors of many kinds
        raise DataError(f"{path}: the model's config can't be read: {' '.join(str(error).split())}") from None
    if quantised:
        method = quantised.get("quant_method", "unnamed") if isinstance(quantised, dict) else quantised
        raise DataError(
            f"{path}: quantization_config: the weights are quantised ({method}), which can't be trained; "
            "expected the model that was quantised, in float32, bfloat16 or float16"
        )
    if getattr(config, "max_position_embeddings", None) is None:
        raise DataError(f"{path}: no max_position_embeddings; expected the most tokens that the model reads")
    _check_rope(path, config)
    return config


def _check_rope(path: Path, config: Any) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = getattr(config, "rope_parameters", None) or {}
    for part in rope.values() if all(isinstance(value, dict) for value in rope.values()) else [rope]:
        kind = part.get("rope_type", "default")
        if kind not in ("default", *ROPE_INIT_FUNCTIONS):
            known = ", ".join(sorted({"default", *ROPE_INIT_FUNCTIONS}))
            raise DataError(f"{path}: rope_parameters: unknown rope_type {kind!r}; expected one of {known}")


def fit_special_ids(folder: Path, config: Any, tokenizer: Any) -> None:
    """Sets a config's special ids to the tokenizer's before a model is built by it; says if EOS differs."""
    eos, named = tokenizer.eos_token_id, eos_ids(config)
    if named and eos is not None and eos not in named:
        say_once(
            f"{folder / CONFIG}: eos_token_id {', '.join(map(str, named))} is not the tokenizer's; "
            f"answers end with that, {eos} ({tokenizer.eos_token!r})"
        )
    fit_config(config, tokenizer)


def check_model(
    folder: Path, model: Any, tokenizer: Any, loading: Mapping[str, Any], *, new_head: bool = False
) -> None:
    """Checks a loaded model against its files and its tokenizer, and sets what the tokenizer decides.

    These are the ids of special tokens in its configs, and a row for a pad token that has none.
    Raises DataError as `check_tensors` and where tokens have no embedding.
    """
    check_tensors(folder, model, loading, new_head=new_head)
    _untie_if_differing(model)
    fit_rows(model, tokenizer, str(folder))
    write_special_ids(model, tokenizer)


def check_tensors(place: Path, model: Any, loading: Mapping[str, Any], *, new_head: bool = False) -> None:
    """Checks that a folder or file holds the tensors of the model that its config describes.

    Args:
        loading: what `from_pretrained` says of them (`output_loading_info`).
        new_head: a reward model begun from a language model, whose output layer it leaves out.

    Raises:
        DataError: tensors are missing, unexpected, or of other shapes than the config says.
    """
    kind = type(model).__name__
    if wrong := sorted(loading["mismatched_keys"]):
        name, found, expected = wrong[0]
        raise DataError(
            f"{place}: the config doesn't fit the weights: {name} is {list(found)} in the file, but "
            f"{list(expected)} by the config; {_vocabulary(model, list(found), list(expected))}"
        )
    missing = [name for name in loading["missing_keys"] if not (new_head and name.startswith(HEAD))]
    if missing:
        raise DataError(f"{place}: no weights for {listed(sorted(missing))}; expected a whole {kind}")
    body = f"{model.base_model_prefix}."
    unexpected = [name for name in loading["unexpected_keys"] if not new_head or name.startswith(body)]
    if unexpected:
        raise DataError(
            f"{place}: weights that a {kind} of this config has no place for: {listed(sorted(unexpected))}; "
            f"expected a whole {kind} and nothing else"
        )


def _vocabulary(model: Any, found: list[int], expected: list[int]) -> str:
    """What to do where shapes differ; the key to correct, where it is the vocabulary's size."""
    said = getattr(model.config, "vocab_size", None)
    if expected[:1] == [said] and found[1:] == expected[1:]:
        return f"expected vocab_size: {found[0]} instead of {said}, or the weights that belong to the config"
    return "expected the config that belongs to these weights"


def _untie_if_differing(model: Any) -> None:
    """Has the config say so where the file holds an output layer that is not the tied embeddings."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if getattr(model.config, "tie_word_embeddings", False) and head is not None:
        model.config.tie_word_embeddings = head.weight is table.weight
