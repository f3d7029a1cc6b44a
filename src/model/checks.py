"""Checks every model when it is loaded: whether weights, config and tokenizer are complete and consistent.

They apply to folders, models of the Hub, GGUF files (converted to folders) and artifacts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..yaml_file import parse_json
from .special import add_pad_row, eos_ids, fit_config, listed, say_once, write_special_ids

CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
POINTER = b"version https://git-lfs.github.com/spec/"
HEAD = "score."  # prefix of a reward model's head
# Tensors that the config determines; older versions of transformers and llama.cpp saved them.
COMPUTED = re.compile(r".*(\.masked_bias|\binv_freq|\.attn_rot_embd(\.weight)?)")


def check_files(folder: Path) -> None:
    """Checks the kinds of files in a folder before anything is loaded.

    Raises DataError for git-lfs pointers instead of files, and for an adapter, which transformers would add
    to the model in the same folder.
    """
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        if not path.is_dir():
            check_no_pointer(path)
    if (folder / ADAPTER).is_file():
        found = "a model and an adapter" if (folder / CONFIG).is_file() else "an adapter without its model"
        raise DataError(
            f"{folder}: the folder contains {found} ({ADAPTER}); expected a whole model without adapter: "
            "merge the adapter into its base model with peft's merge_and_unload()"
        )
    if (files := sorted(folder.glob("*.gguf"))) and not (folder / CONFIG).is_file():
        raise DataError(
            f"{folder}: {CONFIG} does not exist; expected a model folder, or the path of one GGUF file, for "
            f"example {files[0]}"
        )


def check_no_pointer(path: Path) -> None:
    """Raises DataError for a git-lfs pointer, which replaces a file that git-lfs has not downloaded."""
    try:
        with path.open("rb") as file:
            start = file.read(len(POINTER))
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from None
    if start == POINTER:
        raise DataError(f"{path}: a git-lfs pointer instead of the file; run `git lfs pull` in {path.parent}")


def check_json(folder: Path) -> None:
    """Raises DataError with file and line for invalid JSON, which the errors of libraries don't name."""
    for path in sorted(folder.glob("*.json")):
        try:
            parse_json(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: can't be read: {error}") from None


def has_weights(folder: Path) -> bool:
    """Whether a folder has weights, or an index that names files of weights."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def check_weights(folder: Path) -> None:
    """Raises DataError if a folder's weights are incomplete or not safetensors."""
    index = folder / INDEX
    if (folder / WEIGHTS).is_file():
        return
    if not index.is_file():
        raise DataError(
            f"{folder}: {WEIGHTS} does not exist; expected weights as safetensors (no other format)"
        )
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index}: can't be read: {error!r}") from None
    if not named:
        raise DataError(f"{index}: weight_map is empty; expected the file of each tensor")
    if missing := sorted(name for name in named if not (folder / str(name)).is_file()):
        raise DataError(
            f"{folder}: {listed(missing)} missing; expected all {len(named)} files that {INDEX} lists"
        )


def read_config(folder: Path) -> Any:
    """Loads the config of a folder's model, without its weights.

    Raises DataError if it is missing or broken, has no context length, or describes a quantised model.
    """
    from transformers import AutoConfig

    path = folder / CONFIG
    if not path.is_file():
        raise DataError(f"{folder}: {CONFIG} does not exist; expected a model folder")
    try:
        quantised = parse_json(path.read_text(encoding="utf-8")).get("quantization_config")
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # wrong values raise errors of many types in transformers
        raise DataError(f"{path}: the model's config can't be read: {' '.join(str(error).split())}") from None
    if quantised:
        method = quantised.get("quant_method", "unnamed") if isinstance(quantised, dict) else quantised
        raise DataError(
            f"{path}: quantization_config: the weights are quantised ({method}) and can't be trained; "
            "expected the original model in float32, bfloat16 or float16"
        )
    if getattr(config, "max_position_embeddings", None) is None:
        raise DataError(f"{path}: max_position_embeddings is missing; expected the model's context in tokens")
    _check_rope(path, config)
    _check_generation(folder / GENERATION)
    return config


def _check_generation(path: Path) -> None:
    """Raises DataError for a generation config that can't be read, which transformers would ignore."""
    if not path.is_file():
        return
    try:
        eos = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: can't be read: {error}") from None
    for token in eos if isinstance(eos, list) else [eos]:
        if token is not None and type(token) is not int:
            raise DataError(f"{path}: eos_token_id contains {token!r}; expected token ids")


def _check_rope(path: Path, config: Any) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = getattr(config, "rope_parameters", None) or {}
    for part in rope.values() if all(isinstance(value, dict) for value in rope.values()) else [rope]:
        kind = part.get("rope_type", "default")
        if kind not in ("default", *ROPE_INIT_FUNCTIONS):
            known = ", ".join(sorted({"default", *ROPE_INIT_FUNCTIONS}))
            raise DataError(f"{path}: rope_parameters: unknown rope_type {kind!r}; expected one of {known}")


def fit_special_ids(folder: Path, config: Any, tokenizer: Any) -> None:
    """Sets a config's special ids to the tokenizer's before a model is built; reports a different EOS."""
    eos, named = tokenizer.eos_token_id, eos_ids(config)
    if named and eos is not None and eos not in named:
        say_once(
            f"{folder / CONFIG}: eos_token_id {', '.join(map(str, named))} differs from the tokenizer's, "
            f"{eos} ({tokenizer.eos_token!r}), which is used"
        )
    if named and eos is None:
        say_once(
            f"{folder / CONFIG}: eos_token_id {', '.join(map(str, named))} is not used: the tokenizer has no "
            "EOS token; to use it, set eos_token in tokenizer_config.json"
        )
    fit_config(config, tokenizer)


def fit_to_tokenizer(folder: Path, model: Any, tokenizer: Any) -> None:
    """Adapts a loaded model, whose tensors are checked, to its tokenizer.

    Sets the ids of special tokens in its configs, and adds an embedding for a pad token that has none.
    Raises DataError if other tokens have no embedding, and for a generation config that would prevent saving
    the model.
    """
    _settle_generation(folder / GENERATION, model)
    _untie_if_differing(model)
    add_pad_row(model, tokenizer, str(folder))
    write_special_ids(model, tokenizer)


def check_tensors(place: Path, model: Any, loading: Mapping[str, Any], *, new_head: bool = False) -> None:
    """Checks that a folder or file contains exactly the tensors that its config describes.

    Args:
        loading: information from `from_pretrained` (`output_loading_info`).
        new_head: the model is a reward model that was made from a language model without its output layer.

    Raises:
        DataError: tensors are missing, unexpected, or their shapes differ from the config.
    """
    kind = type(model).__name__
    if wrong := sorted(loading["mismatched_keys"]):
        name, found, expected = wrong[0]
        raise DataError(
            f"{place}: the config doesn't match the weights: {name} has shape {list(found)} in the file, but "
            f"{list(expected)} by the config; {_remedy(model, list(found), list(expected))}"
        )
    missing = [name for name in loading["missing_keys"] if not (new_head and name.startswith(HEAD))]
    if missing:
        raise DataError(f"{place}: no weights for {listed(sorted(missing))}; expected a complete {kind}")
    body = f"{model.base_model_prefix}."
    unexpected = [
        name
        for name in loading["unexpected_keys"]
        if (not new_head or name.startswith(body)) and not COMPUTED.fullmatch(name)
    ]
    if unexpected:
        raise DataError(
            f"{place}: the files contain weights that a {kind} with this config does not have: "
            f"{listed(sorted(unexpected))}; expected a complete {kind} and nothing else"
        )


def _remedy(model: Any, found: list[int], expected: list[int]) -> str:
    """Advice for shapes that differ, naming `vocab_size` if only that is wrong."""
    vocab_size = getattr(model.config, "vocab_size", None)
    if expected[:1] == [vocab_size] and found[1:] == expected[1:]:
        return f"expected vocab_size: {found[0]} instead of {vocab_size}, or the weights of this config"
    return "expected the config that belongs to these weights"


def _settle_generation(path: Path, model: Any) -> None:
    """Corrects a generation config so that it can be saved after its ids are changed.

    Many, including Llama 2's first one, set a temperature without `do_sample`, which transformers rejects.
    """
    generation = getattr(model, "generation_config", None)
    if generation is None:
        return
    try:
        generation.validate(strict=True)
    except ValueError:
        generation.do_sample = True
        try:
            generation.validate(strict=True)
        except ValueError as error:
            raise DataError(f"{path}: {' '.join(str(error).split())}") from None


def _untie_if_differing(model: Any) -> None:
    """Corrects `tie_word_embeddings` if the file has an output layer that differs from the embeddings."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if getattr(model.config, "tie_word_embeddings", False) and head is not None:
        model.config.tie_word_embeddings = head.weight is table.weight
