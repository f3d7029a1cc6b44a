"""Converts GGUF files, the format of llama.cpp, to Hugging Face folders.

A file is converted once; the result, with weights dequantized to fp32, is cached by the file's hash.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..console import say
from ..errors import DataError, install_command
from ..hashes import file_hash
from .checks import check_tensors
from .gguf_rope import FACTORS, TENSORS, rope_parameters
from .saving import quiet, save_model
from .special import add_pad_row, ensure_pad_token

SUFFIX = ".gguf"
CONVERSION = (
    2  # version of the conversion: increase it when the result changes, so cached ones are not reused
)
SPECIAL_TOKENS = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # our name: the file's name


def is_gguf(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX and path.is_file()


def converted_folder(path: Path) -> Path:
    """Returns the folder with the converted GGUF file; converts it if the folder does not exist.

    Raises DataError if the package gguf is missing, the file can't be read, or `transformers` does not
    support its model.
    """
    folder = cache() / f"{file_hash(path)[:32]}-{CONVERSION}"
    if not folder.is_dir():
        say(f"{path}: converting to {folder} (only once)")
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
        try:
            convert(path, temporary)
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another rank was faster
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def cache() -> Path:
    """Folder of the cached conversions, below `LLAMITA_CACHE` or `~/.cache/llamita`."""
    return Path(os.environ.get("LLAMITA_CACHE") or Path.home() / ".cache" / "llamita") / "gguf"


def convert(path: Path, folder: Path) -> None:
    """Writes the model of a GGUF file as a Hugging Face folder. Raises DataError as `converted_folder`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf  # noqa: F401  (transformers uses it)
    except ImportError:
        raise DataError(f"{path}: reading GGUF needs the package gguf; {install_command('gguf')}") from None
    place: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    try:
        with quiet():
            _check_tokenizer(path)
            tokenizer = AutoTokenizer.from_pretrained(str(path.parent), **place)
            _set_special_tokens(tokenizer, path)
            model, loading = AutoModelForCausalLM.from_pretrained(
                str(path.parent),
                dtype="float32",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # `check_tensors` raises an error that names them
                **place,
            )
            unread = _unread_tensors(path, model)
    except DataError:
        raise
    except Exception as error:  # broken files raise errors of many types in gguf, numpy and transformers
        raise DataError(f"{path}: the GGUF file can't be read: {type(error).__name__}: {error}") from None
    loading["unexpected_keys"] = unread
    check_tensors(path, model, loading)
    ensure_pad_token(tokenizer)
    model = _unquantized(model, _rope(path, model.config))
    add_pad_row(model, tokenizer, str(path))
    save_model(model, tokenizer, folder)


def _check_tokenizer(path: Path) -> None:
    """Raises DataError for a file without a tokenizer, such as the later parts of a split file."""
    from gguf import GGUFReader

    if _value(GGUFReader(path), "tokenizer.ggml.tokens") is None:
        raise DataError(
            f"{path}: the file has no tokenizer (tokenizer.ggml.tokens); expected a whole model in one file"
        )


def _set_special_tokens(tokenizer: Any, path: Path) -> None:
    """Sets the special tokens by the file's ids, because transformers 5.17 exchanges BOS and EOS."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    for name, key in SPECIAL_TOKENS.items():
        number = _value(reader, f"tokenizer.ggml.{key}_token_id")
        if number is not None:
            setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(number))


def _unread_tensors(path: Path, model: Any) -> set[str]:
    """Returns the tensors of the file that transformers silently ignores."""
    from gguf import GGUFReader
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    reader = GGUFReader(path)
    processor = TENSOR_PROCESSORS.get(_value(reader, "general.architecture"), TensorProcessor)
    read = get_gguf_hf_weights_map(model, processor(config=model.config.to_dict()))
    return {
        tensor.name
        for tensor in reader.tensors
        if not {tensor.name, tensor.name.removesuffix(".weight")} & read.keys() and tensor.name not in TENSORS
    }


def _rope(path: Path, config: Any) -> dict[str, Any]:
    """Returns `rope_parameters` with the file's scaling. Raises DataError if the scaling is unsupported."""
    import torch
    from gguf import GGUFReader

    reader = GGUFReader(path)
    prefix = f"{_value(reader, 'general.architecture')}.rope."
    keys = [key for key in reader.fields if key.startswith(prefix)]
    fields = {key.removeprefix(prefix): _value(reader, key) for key in keys}
    tensors = {tensor.name: tensor for tensor in reader.tensors if tensor.name in TENSORS}
    if unknown := sorted(tensors.keys() - {FACTORS}):
        raise DataError(
            f"{path}: {unknown[0]}: RoPE scaling by longrope is not supported in GGUF files; "
            "use the model's Hugging Face folder"
        )
    factors = torch.tensor(tensors[FACTORS].data.copy()) if FACTORS in tensors else None
    try:
        return rope_parameters(config, fields, factors)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _value(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _unquantized(model: Any, rope: dict[str, Any]) -> Any:
    """Returns the model without its quantization config, with which transformers would not save it."""
    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    if rope:
        settings["rope_parameters"] = rope
    fresh = type(model)(type(model.config).from_dict(settings))
    fresh.load_state_dict(model.state_dict())
    return fresh
