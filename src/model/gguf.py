"""Models in GGUF files, the format of llama.cpp, as plain Hugging Face folders.

A file is converted once: its weights, dequantized to fp32, and its tokenizer go to a cache, by the file's
hash.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..artifact import file_hash
from ..console import say
from ..errors import DataError
from .saving import quiet, save_model

SUFFIX = ".gguf"
SPECIAL_TOKENS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # our names: the file's


def is_gguf(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX and path.is_file()


def converted(path: Path) -> Path:
    """The folder that a GGUF file was converted to, made now if it is not there.

    Raises DataError where the package gguf is missing, or the file can't be read or holds a model that
    `transformers` doesn't read from GGUF.
    """
    folder = cache() / file_hash(path)[:32]
    if not folder.is_dir():
        say(f"{path}: converting to {folder}, once")
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
        try:
            convert(path, aside)
            aside.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another rank was faster
                raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return folder


def cache() -> Path:
    """Where conversions stay: `LLAMITA_CACHE`, or `~/.cache/llamita`."""
    return Path(os.environ.get("LLAMITA_CACHE") or Path.home() / ".cache" / "llamita") / "gguf"


def convert(path: Path, folder: Path) -> None:
    """Writes the model of a GGUF file as a plain Hugging Face folder. Raises DataError as `converted`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf  # noqa: F401  (transformers reads with it)
    except ImportError:
        raise DataError(f"{path}: reading GGUF needs the package gguf: pip install 'llamita[gguf]'") from None
    place: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **place)
            _set_special_tokens(tokenizer, path)
            model = AutoModelForCausalLM.from_pretrained(str(path.parent), dtype="float32", **place)
    except Exception as error:  # a broken file fails anywhere in gguf, numpy or transformers
        raise DataError(f"{path}: the GGUF file can't be read: {type(error).__name__}: {error}") from None
    save_model(_unquantized(model), tokenizer, folder)


def _set_special_tokens(tokenizer: Any, path: Path) -> None:
    """Takes the special tokens from the file's own ids: transformers 5.17 exchanges BOS and EOS."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    for name, key in SPECIAL_TOKENS.items():
        field = reader.get_field(f"tokenizer.ggml.{key}_token_id")
        if field is not None:
            setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(field.contents()))


def _unquantized(model: Any) -> Any:
    """The same weights in a model that does not call itself quantized: such a one refuses to be saved."""
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    fresh = type(model)(type(model.config).from_dict(settings))
    fresh.load_state_dict(model.state_dict())
    return fresh
