"""Token shards: the pretraining text as ids in flat files that are mapped, not read.

A folder holds `shard-00000.bin`, … (little-endian uint16, or uint32 for vocabularies above 65,536) and
`index.json`, written last: {"dtype", "vocabulary_size", "tokenizer" (hash), "tokens", "documents", "shards":
[{"file", "tokens", "documents" (how many begin in it), "sha256"}]}. Documents follow each other without a gap
and may run on from one shard into the next.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..artifact import write_json
from ..errors import DataError
from .chat import UNTRAINED

INDEX = "index.json"


def encode_documents(tokenizer: Any, texts: Iterable[str], batch: int = 1000) -> Iterator[list[int]]:
    """Ids of each document between BOS and EOS; "<s>" and the like inside a text stay plain text."""
    texts = iter(texts)
    while chunk := list(islice(texts, batch)):
        encoded = tokenizer(
            chunk, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False
        )
        for ids in encoded["input_ids"]:
            yield [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]


def write_shards(
    documents: Iterable[list[int]], folder: Path, vocabulary_size: int, shard_tokens: int, tokenizer: str
) -> dict[str, Any]:
    """Writes documents (token ids) as shards of `shard_tokens` tokens, the last perhaps shorter.

    Returns the index. `tokenizer`: its hash (`model.checkpoint.tokenizer_hash`).
    Raises DataError for an id outside the vocabulary, or where there is no token at all.
    """
    dtype = np.dtype("<u2" if vocabulary_size <= 1 << 16 else "<u4")
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Any]] = []
    pending: list[np.ndarray] = []  # whole and partial documents of the next shard
    waiting = begun = 0  # tokens in `pending`, documents that begin there

    def flush() -> None:
        nonlocal pending, waiting, begun
        data = np.concatenate(pending).astype(dtype).tobytes()
        name = f"shard-{len(shards):05d}.bin"
        (folder / name).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        shards.append({"file": name, "tokens": waiting, "documents": begun, "sha256": digest})
        pending, waiting, begun = [], 0, 0

    for document in documents:
        ids = np.asarray(document, dtype=np.int64)
        if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary_size:
            raise DataError(
                f"token id {ids.min()} or {ids.max()} is outside the vocabulary of {vocabulary_size}"
            )
        begun += 1
        while len(ids):
            part, ids = np.split(ids, [shard_tokens - waiting])
            pending.append(part)
            waiting += len(part)
            if waiting == shard_tokens:
                flush()
    if waiting:
        flush()
    if not shards:
        raise DataError(f"{folder}: no token to write; expected at least one document")
    index = {
        "dtype": "uint16" if dtype.itemsize == 2 else "uint32",
        "vocabulary_size": vocabulary_size,
        "tokenizer": tokenizer,
        "tokens": sum(shard["tokens"] for shard in shards),
        "documents": sum(shard["documents"] for shard in shards),
        "shards": shards,
    }
    write_json(folder / INDEX, index)
    return index


class TokenShards:
    """The token stream of a folder, memory-mapped: pieces of it by `read`, rows of one length by `rows`.

    Raises DataError where the index is missing or broken, a shard has another size than the index says, or
    (if `tokenizer` is given) the shards were written with another tokenizer.
    """

    def __init__(self, folder: Path, tokenizer: str | None = None) -> None:
        self.folder = folder
        self.index = _read_index(folder)
        if tokenizer is not None and tokenizer != self.index["tokenizer"]:
            raise DataError(
                f"{folder}: written with tokenizer {self.index['tokenizer'][:12]}…, the model has "
                f"{tokenizer[:12]}…; tokenize the text again"
            )
        self.tokens: int = self.index["tokens"]
        self.documents: int = self.index["documents"]
        self._shards = [self._map(shard) for shard in self.index["shards"]]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])

    def _map(self, shard: dict[str, Any]) -> np.ndarray:
        path = self.folder / shard["file"]
        dtype = np.dtype("<u2" if self.index["dtype"] == "uint16" else "<u4")
        expected = shard["tokens"] * dtype.itemsize
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise DataError(
                f"{path}: {size:,} bytes; expected {expected:,} by {INDEX}: truncated, write it again"
            )
        return np.memmap(path, dtype=dtype, mode="r")

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens start … stop - 1 of the whole stream, int64."""
        parts = []
        shard = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            first = int(self._starts[shard])
            part = self._shards[shard][start - first : stop - first]
            parts.append(part)
            start += len(part)
            shard += 1
        return np.concatenate(parts).astype(np.int64)

    def verify(self) -> None:
        """Reads everything and compares checksums. Raises DataError naming the shard that differs."""
        for shard in self.index["shards"]:
            path = self.folder / shard["file"]
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                    raise DataError(f"{path}: its checksum isn't that of {INDEX}; write it again")

    def rows(self, context_length: int, document_start: int | None = None) -> TokenRows:
        """The stream as rows of `context_length` tokens; see `TokenRows`."""
        return TokenRows(self, context_length, document_start)


class TokenRows(Dataset):
    """Rows {"input_ids", "labels"} (equal, int64, shape (context_length,)) of a token stream.

    With `document_start`, the id that begins every document, the documents of a row are kept apart:
    "position_ids" restart with each, and its first token is no label. `unused`: tokens at the end of the
    stream that fill no row. Raises DataError where there is no full row.
    """

    def __init__(self, shards: TokenShards, context_length: int, document_start: int | None) -> None:
        self._count, self.unused = divmod(shards.tokens, context_length)
        if not self._count:
            raise DataError(
                f"{shards.folder}: {shards.tokens:,} tokens; expected at least one row of {context_length}"
            )
        self._shards, self._length, self._document_start = shards, context_length, document_start

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        start = index * self._length
        ids = torch.from_numpy(self._shards.read(start, start + self._length))
        if self._document_start is None:
            return {"input_ids": ids, "labels": ids.clone()}
        labels = ids.masked_fill(ids == self._document_start, UNTRAINED)
        return {
            "input_ids": ids,
            "labels": labels,
            "position_ids": document_positions(ids, self._document_start),
        }


def document_positions(ids: torch.Tensor, document_start: int) -> torch.Tensor:
    """Place of each token in its document: `[…, length]` int64, 0 at the row's begin and at each document's.

    What is left of a document that began in an earlier row counts as a document of its own.
    """
    places = torch.arange(ids.shape[-1], device=ids.device).expand_as(ids)
    return places - torch.where(ids == document_start, places, 0).cummax(dim=-1).values


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder}: no {INDEX}; expected token shards that were written to their end"
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: no valid JSON ({error}); write the shards again") from None
    if not isinstance(index, dict) or not index.keys() >= {
        "dtype",
        "tokens",
        "documents",
        "tokenizer",
        "shards",
    }:
        raise DataError(f"{path}: not an index of token shards")
    return index
