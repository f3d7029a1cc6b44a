"""Models and tokenizers read: local, safetensors only, nothing missing.

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
from .gguf import converted, is_gguf
from .saving import quiet

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder. Raises DataError where there is none or it can't be read."""
    from transformers import AutoTokenizer

    folder = _existing(folder)
    if not (folder / TOKENIZER).is_file():
        raise DataError(f"{folder}: no {TOKENIZER}; expected a model folder with its tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exception for a broken file
        raise DataError(f"{folder}: the tokenizer can't be read: {error}") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks tell what is a pad, never its id
    return tokenizer


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of how text becomes ids: vocabulary, merges, added tokens, normalization, splitting."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    deciding = {key: backend[key] for key in ("model", "added_tokens", "normalizer", "pre_tokenizer")}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def context_length(folder: Path) -> int:
    """The most tokens that a folder's model reads. Raises DataError where its config can't be read."""
    from transformers import AutoConfig

    folder = _existing(folder)
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: the model's config can't be read: {error}") from None
    return context_of(config)


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

    model = _load(AutoModelForSequenceClassification, folder, dtype, new_head=True, num_labels=1)
    weight = model.score.weight
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight.copy_(drawn / (weight.shape[1] + 1) ** 0.5)
    return model


def _load(auto_class: Any, folder: Path, dtype: Any, new_head: bool = False, **options: Any) -> Any:
    from safetensors import SafetensorError

    folder = _existing(folder)
    if not (folder / CONFIG).is_file():
        raise DataError(f"{folder}: no {CONFIG}; expected a model folder")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise DataError(f"{folder}: no {WEIGHTS[0]}; expected weights as safetensors (no other kind is read)")
    try:
        with quiet():
            model, info = auto_class.from_pretrained(
                str(folder),
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(f"{folder}: the model can't be read: {error}") from None
    missing = {name for name in info["missing_keys"] if not (new_head and name.startswith("score."))}
    if missing:
        names = ", ".join(sorted(missing)[:3])
        raise DataError(f"{folder}: no weights for {names}; expected a whole {type(model).__name__}")
    return model


def _existing(folder: Path) -> Path:
    if is_gguf(folder):
        return converted(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a model or the artifact of a stage")
    return model_folder(folder)
