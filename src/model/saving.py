"""Models and tokenizers written as plain Hugging Face folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .special import write_special_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_model(
    model: PreTrainedModel, tokenizer: Any, folder: Path, *, state_dict: dict[str, Any] | None = None
) -> None:
    """Writes model and tokenizer so that plain `transformers` reads them, special ids in every config.

    `state_dict`: the weights, where they are no longer whole in the model itself (ZeRO-3).
    """
    write_special_ids(model, tokenizer)
    with quiet():
        model.save_pretrained(str(folder), state_dict=state_dict)
    tokenizer.save_pretrained(str(folder))


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
