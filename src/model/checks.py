"""What is checked of every model at loading: whether its weights, its config and its tokenizer fit together.

Folders, models of the Hub, GGUF files (converted to folders) and artifacts all come through here.
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
HEAD = "score."  # of a reward model
# Tensors that older versions of transformers and llama.cpp saved and that follow from the config.
COMPUTED = re.compile(r".*(\.masked_bias|\binv_freq|\.attn_rot_embd(\.weight)?)")


def check_files(folder: Path) -> None:
    """Checks before anything is loaded that a folder's files are what their names say.

    Raises DataError for pointers of git-lfs in place of files, and for an adapter, which transformers would
    mix into the model beside it.
    """
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")]):
        if not path.is_dir():
            check_no_pointer(path)
    if (folder / ADAPTER).is_file():
        what = "an adapter beside the model" if (folder / CONFIG).is_file() else "an adapter, no model"
        raise DataError(
            f"{folder}: {what} ({ADAPTER}); expected a whole model alone: peft's merge_and_unload() adds an "
            "adapter to the weights that it belongs to"
        )
    if (files := sorted(folder.glob("*.gguf"))) and not (folder / CONFIG).is_file():
        raise DataError(f"{folder}: no {CONFIG}; expected a model folder, or one GGUF file, as {files[0]}")


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
    if not named:
        raise DataError(f"{index}: its weight_map is empty; expected the file of each tensor")
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
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
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
    _check_generation(folder / GENERATION)
    return config


def _check_generation(path: Path) -> None:
    """Raises DataError for a generation config that can't be read; to transformers it would be missing."""
    if not path.is_file():
        return
    try:
        eos = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: can't be read: {error}") from None
    for token in eos if isinstance(eos, list) else [eos]:
        if token is not None and type(token) is not int:
            raise DataError(f"{path}: eos_token_id holds {token!r}; expected ids of tokens")


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
    if named and eos is None:
        say_once(
            f"{folder / CONFIG}: eos_token_id {', '.join(map(str, named))} is not used: the tokenizer has no "
            "EOS token; tokenizer_config.json would name it as eos_token"
        )
    fit_config(config, tokenizer)


def check_model(
    folder: Path, model: Any, tokenizer: Any, *, loading: Mapping[str, Any], new_head: bool = False
) -> None:
    """Checks a loaded model against its files and its tokenizer, and sets what the tokenizer decides.

    These are the ids of special tokens in its configs, and a row for a pad token that has none.
    Raises DataError as `check_tensors`, where tokens have no embedding, and for a generation config with
    which the model could not be saved.
    """
    check_tensors(folder, model, loading, new_head=new_head)
    _settle_generation(folder / GENERATION, model)
    _untie_if_differing(model)
    add_pad_row(model, tokenizer, str(folder))
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
    unexpected = [
        name
        for name in loading["unexpected_keys"]
        if (not new_head or name.startswith(body)) and not COMPUTED.fullmatch(name)
    ]
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


def _settle_generation(path: Path, model: Any) -> None:
    """Has a generation config that can be saved once its ids are changed.

    Many, Llama 2's first one among them, have a temperature without `do_sample`, which transformers refuses.
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
    """Has the config say so where the file holds an output layer that is not the tied embeddings."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if getattr(model.config, "tie_word_embeddings", False) and head is not None:
        model.config.tie_word_embeddings = head.weight is table.weight
