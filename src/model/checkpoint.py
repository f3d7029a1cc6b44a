"""Models and tokenizers in and out of plain Hugging Face folders: local, safetensors only, nothing missing.

Each function takes an artifact's folder (whose `model/` it reads) or a Hugging Face folder itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifact import model_folder
from ..errors import DataError

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedModel

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder. Raises DataError where there is none or it can't be read."""
    from transformers import AutoTokenizer

    folder = _existing(folder)
    if not (folder / TOKENIZER).is_file():
        raise DataError(f"{folder}: no {TOKENIZER}; expected a model folder with its tokenizer")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # tokenizers raises plain Exception for a broken file
        raise DataError(f"{folder}: the tokenizer can't be read: {error}") from None


def tokenizer_hash(tokenizer: Any) -> str:
    """Hash of how text becomes ids: vocabulary, merges, added tokens, normalization, splitting."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    deciding = {key: backend[key] for key in ("model", "added_tokens", "normalizer", "pre_tokenizer")}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


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


def save_model(
    model: PreTrainedModel, tokenizer: Any, folder: Path, state_dict: dict[str, Any] | None = None
) -> None:
    """Writes model and tokenizer so that plain `transformers` reads them, special ids in every config.

    `state_dict`: the weights, where they are no longer whole in the model itself (ZeRO-3).
    """
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    for config in (model.config, getattr(model, "generation_config", None)):
        for name, value in ids.items() if config is not None else ():
            setattr(config, name, value)
    with quiet():
        model.save_pretrained(str(folder), state_dict=state_dict)
    tokenizer.save_pretrained(str(folder))


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
                attn_implementation="sdpa",
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


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' bars and load reports out of ours: what matters in them is raised as DataError."""
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


def _existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected a model or the artifact of a stage")
    return model_folder(folder)
