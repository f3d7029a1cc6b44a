"""Models of the Hugging Face Hub, by their ids: fetched once into the cache that all its tools share."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import ConfigError

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
READ = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]  # nothing else of a repository is fetched


def is_hub_id(value: str) -> bool:
    """Whether a text that names no folder may be a Hub id: `org/name`, or `org/name@revision`."""
    return HUB_ID.fullmatch(value) is not None and not value.startswith(".")


def fetch(name: str) -> Path:
    """The local folder of a model on the Hub, downloaded where the cache lacks it.

    Raises ConfigError where there is no such model, or no network and nothing in the cache.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=READ))
    except Exception as error:  # the Hub's failures have no common base class
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{name}: no such folder, and not fetched from the Hub ({type(error).__name__}: {reason})"
        ) from None
