"""Special tokens: makes EOS and pad token of tokenizer, model config and generation config consistent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Any

from ..console import say
from ..errors import DataError

PAD = "<pad>"
# Names of pad tokens: <pad>, [PAD], <|pad_id|>, <|finetune_right_pad_id|>.
PADS = re.compile(r"\W*(?:finetune_right_)?pad(?:_id|_token)?\W*", re.IGNORECASE)
# Names of tokens that occur in no text: <|reserved_special_token_0|>, <unused0>, [unused1].
RESERVED = re.compile(r"\W*(?:reserved|unused)_?(?:special_)?(?:token)?_?\d+\W*", re.IGNORECASE)
SHOWN = 5  # maximum number of names in a message

say_once = cache(say)  # a model may be loaded several times


def listed(names: Iterable[str]) -> str:
    """Joins the first names for a message, and the number of the others."""
    names = list(names)
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def ensure_pad_token(tokenizer: Any) -> None:
    """Sets a separate pad token if the tokenizer has none, or pads with EOS or BOS.

    If EOS were the pad, it would not be recognized as the end of an answer: `transformers` reads a reward
    model's score at the last token that is not a pad. The new pad is, in this order: a token with the name of
    a pad, a reserved token, the unknown token, or a new token, for which `add_pad_row` adds an embedding.
    """
    taken = {None, tokenizer.eos_token_id, tokenizer.bos_token_id}
    if tokenizer.pad_token_id not in taken:
        return
    names = [token.content for id, token in sorted(tokenizer.added_tokens_decoder.items()) if id not in taken]
    spare = [name for kind in (PADS, RESERVED) for name in names if kind.fullmatch(name)]
    if tokenizer.unk_token_id not in taken:
        spare.append(tokenizer.unk_token)
    tokenizer.add_special_tokens({"pad_token": spare[0] if spare else PAD})


def eos_ids(config: Any) -> list[int]:
    """Returns the tokens that end an answer by a model's or generation config, the tokenizer's EOS first."""
    eos = getattr(config, "eos_token_id", None)
    return list(eos) if isinstance(eos, list | tuple) else [] if eos is None else [eos]


def fit_config(config: Any, tokenizer: Any) -> None:
    """Sets the special ids in a config before its model is built; the pad's only if it has an embedding.

    The pad's embedding gets no gradient, so a wrong id would leave a real token untrained.
    """
    pad = tokenizer.pad_token_id
    config.pad_token_id = pad if pad is not None and pad < getattr(config, "vocab_size", pad + 1) else None
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id


def write_special_ids(model: Any, tokenizer: Any) -> None:
    """Sets BOS, EOS and pad in a model's config and generation config to those of its tokenizer.

    Further EOS ids of the generation config are kept, unless it was derived from the model's config and lacks
    the tokenizer's EOS: then it only repeats a wrong id.
    """
    generation = getattr(model, "generation_config", None)
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    named = eos_ids(generation)
    if getattr(generation, "_from_model_config", False) and not set(own) & set(named):
        named = []
    eos = list(dict.fromkeys([*own, *named]))
    for config in (model.config, generation):
        if config is not None:
            config.pad_token_id, config.bos_token_id = tokenizer.pad_token_id, tokenizer.bos_token_id
            config.eos_token_id = (eos if len(eos) > 1 else eos[0]) if eos else None


def rows_with_pad(rows: int, tokenizer: Any, name: str) -> int:
    """Number of rows that the embeddings need, with one for a pad token that has none.

    Args:
        rows: number of rows of the embeddings in the file.
        name: name of the model in messages.

    Raises DataError if other tokens have no embedding either, because they would need training.
    """
    beyond = sorted((id, token) for token, id in tokenizer.get_vocab().items() if id >= rows)
    if not beyond:
        return rows
    others = [token for _, token in beyond if token != tokenizer.pad_token]
    if others:
        raise DataError(
            f"{name}: the tokenizer has tokens up to id {beyond[-1][0]}, but the model's embeddings have "
            f"{rows} rows: none for {listed(map(repr, others))}; use the tokenizer of this model, "
            f"or save the model after model.resize_token_embeddings({beyond[-1][0] + 1}) and train it on "
            "these tokens"
        )
    say_once(
        f"{name}: no pad token; {tokenizer.pad_token!r} is added as row {beyond[-1][0]} of the embeddings"
    )
    return beyond[-1][0] + 1


def add_pad_row(model: Any, tokenizer: Any, name: str) -> None:
    """Adds an embedding for a pad token that has none: the mean of the others.

    No other token depends on the state at a pad, so its embedding needs no training. Raises DataError as
    `rows_with_pad`.
    """
    before = model.get_input_embeddings().num_embeddings
    count = rows_with_pad(before, tokenizer, name)
    if count > before:
        _add_rows(model, count)


def _add_rows(model: Any, count: int) -> None:
    import torch

    before = model.get_input_embeddings().num_embeddings
    with torch.random.fork_rng(devices=[]):  # the random rows are replaced below
        model.resize_token_embeddings(count, mean_resizing=False)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            if layer is not None:
                layer.weight[before:] = layer.weight[:before].mean(dim=0)
                if getattr(layer, "bias", None) is not None:
                    layer.bias[before:] = layer.bias[:before].mean()
