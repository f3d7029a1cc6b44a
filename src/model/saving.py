"""Writes models and tokenizers as Hugging Face folders."""

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
    """Writes model and tokenizer for `transformers`, with the tokenizer's special ids in every config.

    `state_dict`: the weights, if the model itself does not contain them completely (ZeRO-3).
    """
    write_special_ids(model, tokenizer)
    with quiet():
        model.save_pretrained(str(folder), state_dict=state_dict)
    tokenizer.save_pretrained(str(folder))


@contextmanager
def quiet() -> Iterator[None]:
    """Hides transformers' progress bars and load reports; the checks raise DataError for their problems."""
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
