"""Loads models and tokenizers: local files and safetensors only, checked for consistency (`checks.py`).

Each function accepts an artifact's folder (and reads its `model/`), a Hugging Face folder, or a GGUF file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..artifact import model_folder
from ..distributed.device import report_slow_bf16
from ..errors import ConfigError, DataError
from . import lora, sharded
from .architecture import context_of
from .checks import (
    GENERATION,
    TOKENIZER,
    check_files,
    check_json,
    check_no_pointer,
    check_tensors,
    check_weights,
    fit_special_ids,
    fit_to_tokenizer,
    has_weights,
    read_config,
)
from .gguf import converted_folder, is_gguf
from .merging import merged_with
from .saving import quiet
from .special import ensure_pad_token, write_special_ids

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification


def load_tokenizer(folder: Path) -> Any:
    """Loads the tokenizer of a folder, with a separate pad token (`special.ensure_pad_token`).

    Raises DataError if it is missing or can't be read.
    """
    from transformers import AutoTokenizer

    folder = _existing(folder)
    if not (folder / TOKENIZER).is_file():
        raise DataError(f"{folder}: {TOKENIZER} does not exist; expected a model folder with its tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exception for a broken file
        check_json(folder)
        raise DataError(f"{folder}: the tokenizer can't be read: {error}") from None
    ensure_pad_token(tokenizer)
    return tokenizer


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of all that determines ids: vocabulary, merges, added tokens, normalization, splitting."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    relevant = {key: backend[key] for key in ("model", "added_tokens", "normalizer", "pre_tokenizer")}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()


def model_config(folder: Path) -> Any:
    """Returns the config of a folder's model. Raises DataError if it can't be read."""
    return read_config(_existing(folder))


def loaded_config(folder: Path, tokenizer: Any) -> Any:
    """Returns the config of a folder's model with the special ids that it has when it is loaded.

    Raises DataError if it can't be read.
    """
    from transformers import GenerationConfig

    folder = _existing(folder)
    config, generation = read_config(folder), None
    fit_special_ids(folder, config, tokenizer)
    if (folder / GENERATION).is_file():
        generation = GenerationConfig.from_pretrained(str(folder))
    write_special_ids(SimpleNamespace(config=config, generation_config=generation), tokenizer)
    return config


def context_length(folder: Path) -> int:
    """Returns the context of a folder's model, in tokens. Raises DataError if its config can't be read."""
    return context_of(model_config(folder))


def check_length(setting: str, tokens: int, context: int) -> None:
    """Raises ConfigError for a setting with more tokens than the model's context."""
    if tokens > context:
        raise ConfigError(f"{setting}: {tokens} is above the model's context of {context} tokens")


def load_causal_lm(folder: Path, dtype: str | torch.dtype = "float32") -> LlamaForCausalLM:
    """Loads a language model. Raises DataError naming missing or broken parts."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, folder, dtype)


def load_reward_model(folder: Path, dtype: str | torch.dtype = "float32") -> LlamaForSequenceClassification:
    """Loads a trained reward model with its head. Raises DataError naming missing or broken parts."""
    from transformers import AutoModelForSequenceClassification

    return _load(AutoModelForSequenceClassification, folder, dtype)


def new_reward_model(
    folder: Path, seed: int, dtype: str | torch.dtype = "float32"
) -> LlamaForSequenceClassification:
    """Makes a reward model of a language model: replaces its output layer by a head with one output (3.2.2).

    The head has no bias and is drawn from N(0, 1 / (hidden size + 1)), so initial scores are small.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    model = _load(AutoModelForSequenceClassification, folder, dtype, new_head=True)
    weight = model.score.weight
    shape = sharded.shape_of(weight)
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad(), sharded.whole(weight, changed=True) as mine:
        if mine:
            weight.copy_(drawn / (shape[1] + 1) ** 0.5)
    return model


def _load(auto_class: Any, folder: Path, dtype: Any, *, new_head: bool = False) -> Any:
    adapter, folder = folder / lora.ADAPTER, _existing(folder)
    if adapter.is_dir() and not has_weights(folder):
        return _base_with_adapter(auto_class, adapter, dtype, new_head=new_head)
    config = read_config(folder)
    check_weights(folder)
    if str(dtype).endswith("bfloat16"):
        report_slow_bf16()
    tokenizer = load_tokenizer(folder)
    fit_special_ids(folder, config, tokenizer)
    if new_head:
        config.num_labels = 1
    load = _partitioned if sharded.is_active() else _whole
    model = load(auto_class, folder, config, tokenizer=tokenizer, dtype=dtype, new_head=new_head)
    fit_to_tokenizer(folder, model, tokenizer)
    return model


def _base_with_adapter(auto_class: Any, adapter: Path, dtype: Any, *, new_head: bool) -> Any:
    """Loads the base model of an artifact without merged weights and merges its adapter in memory."""
    if sharded.is_active():
        raise ConfigError(
            f"{adapter.parent}: has an adapter but no merged model, and ZeRO-3 can't merge them; train with "
            "`lora`, use ZeRO-0 to 2, or run the stage that wrote it with `lora.merge: true`"
        )
    base_model = lora.read_base_model(adapter)
    classifier = "SequenceClassification" in auto_class.__name__
    model = _load(auto_class, base_model.path, dtype, new_head=classifier)
    return merged_with(model, adapter, head=classifier and not new_head)


def _partitioned(
    auto_class: Any, folder: Path, config: Any, *, tokenizer: Any, dtype: Any, new_head: bool
) -> Any:
    from .sharded_loading import load_partitioned

    with _read_errors(folder):
        model_class = auto_class._model_mapping[type(config)]
        return load_partitioned(model_class, folder, config, tokenizer=tokenizer, new_head=new_head)


def _whole(auto_class: Any, folder: Path, config: Any, *, tokenizer: Any, dtype: Any, new_head: bool) -> Any:
    with _read_errors(folder), quiet():
        model, loading = auto_class.from_pretrained(
            str(folder),
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,  # otherwise transformers asks in the terminal
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check_tensors` raises an error that names them
        )
    check_tensors(folder, model, loading, new_head=new_head)
    return model


@contextmanager
def _read_errors(folder: Path) -> Iterator[None]:
    """Reports errors of libraries about a folder's files as DataError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ImportError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        check_json(folder)
        message, *_ = str(error).partition("\nModel type should be one of")  # drops hundreds of names
        raise DataError(f"{folder}: the model can't be read: {message}") from None


def _existing(folder: Path) -> Path:
    if is_gguf(folder):
        check_no_pointer(folder)
        return converted_folder(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a model, or a stage that trained one")
    folder = model_folder(folder)
    check_files(folder)
    return folder
