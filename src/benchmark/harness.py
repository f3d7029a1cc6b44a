"""lm-eval as a library that may be missing; importing this module does not import it."""

from __future__ import annotations

import importlib.metadata
import logging
import os
from types import ModuleType

from ..errors import ConfigError


def lm_eval() -> ModuleType:
    """The package lm_eval, silenced: what it would report, the stage reports itself.

    Raises ConfigError if it is not installed.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        import lm_eval
    except ImportError as error:
        raise ConfigError(
            f"tasks: benchmarks need lm-eval ({error}); install it with `pip install 'llamita[eval]'`"
        ) from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return lm_eval


def harness_version() -> str:
    """The installed version of lm-eval."""
    return importlib.metadata.version("lm-eval")
