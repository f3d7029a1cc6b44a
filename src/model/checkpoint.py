"""Models and tokenizers read: local, safetensors only, checked for what doesn't fit together (`checks.py`).

Each function takes an artifact's folder (whose `model/` it reads), a Hugging Face folder, or a GGUF file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact import model_folder
from ..errors import ConfigError, DataError
from .architecture import context_of
from .checks import (
    TOKENIZER,
    check_files,
    check_json,
    check_model,
    check_no_pointer,
    check_weights,
    fit_special_ids,
    read_config,
)
from .gguf import converted, is_gguf
from .saving import quiet
from .special import ensure_pad_token

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, with a pad token of its own (`special.ensure_pad_token`).

    Raises DataError where there is none or it can't be read.
    """
    from transformers import AutoTokenizer

    folder = _existing(folder)
    if not (folder / TOKENIZER).is_file():
        raise DataError(f"{folder}: no {TOKENIZER}; expected a model folder with its tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises plain Exception for a broken file
        check_json(folder)
        raise DataError(f"{folder}: the tokenizer can't be read: {error}") from None
    ensure_pad_token(tokenizer)
    return tokenizer


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of how text becomes ids: vocabulary, merges, added tokens, normalization, splitting."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    deciding = {key: backend[key] for key in ("model", "added_tokens", "normalizer", "pre_tokenizer")}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def context_length(folder: Path) -> int:
    """The most tokens that a folder's model reads. Raises DataError where its config can't be read."""
    return context_of(read_config(_existing(folder)))


def check_length(setting: str, tokens: int, context: int) -> None:
    """Raises ConfigError for a setting of more tokens than a model reads."""
    if tokens > context:
        raise ConfigError(f"{setting}: {tokens} is above the model's context of {context} tokens")


def load_causal_lm(folder: Path, dtype: str | torch.dtype = "float32") -> LlamaForCausalLM:
    """A language model with all of its weights. Raises DataError naming what is missing or broken."""
    from transformers import AutoModelForCausalLM

    return _load(AutoModelForCausalLM, folder, dtype)


def load_reward_model(folder: Path, dtype: str | torch.dtype = "float32") -> LlamaForSequenceClassification:
    """A trained reward model, its head included. Raises DataError naming what is missing or broken."""
    from transformers import AutoModelForSequenceClassification

    return _load(AutoModelForSequenceClassification, folder, dtype)


def new_reward_model(
    folder: Path, seed: int, dtype: str | torch.dtype = "float32"
) -> LlamaForSequenceClassification:
    """A reward model begun from a language model: its output layer replaced by a head to one scalar (3.2.2).

    The head has no bias and is drawn from N(0, 1 / (hidden size + 1)), so first scores are small.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    model = _load(AutoModelForSequenceClassification, folder, dtype, new_head=True)
    weight = model.score.weight
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight.copy_(drawn / (weight.shape[1] + 1) ** 0.5)
    return model


def _load(auto_class: Any, folder: Path, dtype: Any, *, new_head: bool = False) -> Any:
    from safetensors import SafetensorError

    folder = _existing(folder)
    config = read_config(folder)
    check_weights(folder)
    tokenizer = load_tokenizer(folder)
    fit_special_ids(folder, config, tokenizer)
    if new_head:
        config.num_labels = 1
    try:
        with quiet():
            model, loading = auto_class.from_pretrained(
                str(folder),
                config=config,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,  # otherwise transformers asks on the terminal
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
            )
    except (OSError, ImportError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        check_json(folder)
        told, *_ = str(error).partition("\nModel type should be one of")  # hundreds of names
        raise DataError(f"{folder}: the model can't be read: {told}") from None
    check_model(folder, model, tokenizer, loading=loading, new_head=new_head)
    return model


def _existing(folder: Path) -> Path:
    if is_gguf(folder):
        check_no_pointer(folder)
        return converted(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a model or the artifact of a stage")
    folder = model_folder(folder)
    check_files(folder)
    return folder
