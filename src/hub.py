"""Models of the Hugging Face Hub, downloaded to its shared cache."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import ConfigError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
READ = [
    "*.json",
    "*.safetensors",
    "*.jinja",
    "tokenizer.model",
]  # no other files of a repository are downloaded


def is_hub_id(value: str) -> bool:
    """Whether a text has the form of a Hub id: `org/name` or `org/name@revision`."""
    return HUB_ID.fullmatch(value) is not None and not value.startswith(".")


def fetch(name: str) -> Path:
    """The local folder of a model on the Hub, downloaded if it is not in the cache.

    Raises ConfigError if the model does not exist, or is not cached and cannot be downloaded.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=READ))
    except Exception as error:  # the Hub's errors have no common base class
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{name}: no such folder, and the download from the Hub failed ({type(error).__name__}: {reason})"
        ) from None
