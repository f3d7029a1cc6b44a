"""Token shards: token ids of the pretraining text in flat, memory-mapped files.

A folder contains one stream of documents:
- `shard-00000.bin`, …: ids, little-endian uint16, or uint32 for vocabularies above 65,536; shards contain
  whole documents.
- `shard-00000.starts`, …: index of each document's first token in the shard, little-endian uint64.
- `index.json`, written last: {"dtype", "vocabulary_size", "tokenizer" (hash), "tokens", "documents",
  "shards": [{"file", "tokens", "documents", "sha256", "starts_sha256"}]}.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..artifact import flush, write_json
from ..errors import DataError
from ..hashes import file_hash
from .encoder import EncodedDocuments

INDEX = "index.json"
STARTS = "<u8"
REMEDY = "delete the corpus and run the stage that wrote it (`prepare` or `pretrain`) again"


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns the dtype of ids in a shard file: uint16 if all ids fit into it, otherwise uint32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class _OpenShard:
    """State of the shard that is being written: number of tokens, starts of documents, checksum so far."""

    def __init__(self) -> None:
        self.tokens = 0
        self.starts: list[np.ndarray] = []
        self.sum = hashlib.sha256()


class ShardWriter:
    """Appends documents to the stream of a folder, shard by shard.

    Args:
        folder: folder of the stream, created if necessary; files that belong to no shard of `shards` are
            removed.
        vocab_size: exclusive upper limit of the ids.
        shards: index entries of the existing shards, after which writing resumes.
    """

    def __init__(self, folder: Path, vocab_size: int, shards: list[dict[str, Any]]) -> None:
        self.folder, self.shards = folder, shards
        self._vocabulary_size, self._dtype = vocab_size, token_dtype(vocab_size)
        folder.mkdir(parents=True, exist_ok=True)
        known = {name for shard in shards for name in (shard["file"], _starts_of(shard["file"]))}
        for path in folder.iterdir():
            if path.name not in known:
                path.unlink()
        self._open = _OpenShard()

    @property
    def open_tokens(self) -> int:
        """Number of tokens in the shard that is being written."""
        return self._open.tokens

    def append(self, documents: EncodedDocuments) -> None:
        """Appends documents to the open shard. Raises DataError for an id outside the vocabulary."""
        ids, lengths = documents
        if len(ids) and int(ids.max()) >= self._vocabulary_size:
            raise DataError(f"token id {ids.max()} is outside the vocabulary of {self._vocabulary_size}")
        data = ids.astype(self._dtype).tobytes()
        with (self.folder / self._name()).open("ab") as file:
            file.write(data)
        self._open.sum.update(data)
        self._open.starts.append(self._open.tokens + np.cumsum(lengths) - lengths)
        self._open.tokens += len(ids)

    def seal(self) -> None:
        """Closes the shard that is being written, if there is one."""
        if not self.open_tokens:
            return
        starts = np.concatenate(self._open.starts).astype(STARTS)
        path = self.folder / _starts_of(self._name())
        path.write_bytes(starts.tobytes())
        flush(path)
        flush(self.folder / self._name())
        self.shards.append(
            {
                "file": self._name(),
                "tokens": self.open_tokens,
                "documents": len(starts),
                "sha256": self._open.sum.hexdigest(),
                "starts_sha256": file_hash(path),
            }
        )
        self._open = _OpenShard()

    def _name(self) -> str:
        return f"shard-{len(self.shards):05d}.bin"

    def finish(self, tokenizer: str) -> None:
        """Closes the stream and writes its index. `tokenizer`: a hash (`model.checkpoint.tokenizer_hash`)."""
        self.seal()
        index = {
            "dtype": self._dtype.name,
            "vocabulary_size": self._vocabulary_size,
            "tokenizer": tokenizer,
            "tokens": sum(shard["tokens"] for shard in self.shards),
            "documents": sum(shard["documents"] for shard in self.shards),
            "shards": self.shards,
        }
        write_json(self.folder / INDEX, index)


def _starts_of(shard: str) -> str:
    return Path(shard).with_suffix(".starts").name


class TokenShards:
    """The memory-mapped token stream of a folder; `token_rows.TokenRows` splits it into rows.

    Raises DataError if the index is missing or broken, a file's size differs from the index, or the shards
    were written with another tokenizer than `tokenizer` (a hash, None to skip the check).
    """

    def __init__(self, folder: Path, tokenizer: str | None = None) -> None:
        self.folder = folder
        self.index = _read_index(folder)
        if tokenizer is not None and tokenizer != self.index["tokenizer"]:
            raise DataError(
                f"{folder}: the shards were written with tokenizer {self.index['tokenizer'][:12]}…, but the "
                f"model's tokenizer is {tokenizer[:12]}…; run `prepare` again with the model's tokenizer"
            )
        self.tokens: int = self.index["tokens"]
        self.documents: int = self.index["documents"]
        shards = self.index["shards"]
        dtype = token_dtype(self.index["vocabulary_size"])
        self._shards = [self._map(shard["file"], dtype, shard["tokens"]) for shard in shards]
        self._starts = [
            self._map(_starts_of(shard["file"]), np.dtype(STARTS), shard["documents"]) for shard in shards
        ]
        self._first = np.cumsum([0, *(len(shard) for shard in self._shards)])

    def _map(self, name: str, dtype: np.dtype, count: int) -> np.ndarray:
        path = self.folder / name
        expected = count * dtype.itemsize
        size = path.stat().st_size if path.is_file() else 0
        if size != expected:
            raise DataError(
                f"{path}: the file has {size:,} bytes, but {expected:,} according to {INDEX}; it was "
                f"truncated, {REMEDY}"
            )
        return np.memmap(path, dtype=dtype, mode="r")

    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns tokens start … stop - 1 of the whole stream, int64."""
        parts = [
            self._shards[shard][begin:end].astype(np.int64) for shard, begin, end in self._parts(start, stop)
        ]
        return np.concatenate(parts)

    def document_starts(self, start: int, stop: int) -> np.ndarray:
        """Returns where documents begin among tokens start … stop - 1, relative to `start`, int64."""
        starts_by_shard = []
        for shard, begin, end in self._parts(start, stop):
            starts = self._starts[shard]
            # numbers of their type: for a Python integer numpy would convert all starts on each call
            first, last = np.searchsorted(starts, np.array([begin, end], dtype=starts.dtype))
            inside = starts[first:last]
            starts_by_shard.append(inside.astype(np.int64) + self._first[shard] - start)
        return np.concatenate(starts_by_shard)

    def shard(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of one shard, and where its documents begin in it (int64).

        The ids are mapped anew, so that their pages leave the process's memory when the array is deleted.
        """
        name, tokens = self.index["shards"][number]["file"], len(self._shards[number])
        ids = self._map(name, token_dtype(self.index["vocabulary_size"]), tokens)
        return np.asarray(ids), self._starts[number].astype(np.int64)

    def _parts(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Returns (shard, begin, end) of the pieces that contain tokens start … stop - 1."""
        shard = int(np.searchsorted(self._first, start, side="right")) - 1
        parts = []
        while start < stop:
            first, next_first = int(self._first[shard]), int(self._first[shard + 1])
            parts.append((shard, start - first, min(stop, next_first) - first))
            start, shard = next_first, shard + 1
        return parts

    def checksums(self) -> list[tuple[Path, str]]:
        """Returns all files with their expected SHA-256."""
        return [
            (self.folder / name, shard[key])
            for shard in self.index["shards"]
            for name, key in ((shard["file"], "sha256"), (_starts_of(shard["file"]), "starts_sha256"))
        ]


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{folder}: {INDEX} does not exist; expected complete token shards, which `prepare` writes"
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: invalid JSON ({error}); {REMEDY}") from None
    expected = {"vocabulary_size", "tokens", "documents", "tokenizer", "shards"}
    if not isinstance(index, dict) or not index.keys() >= expected:
        raise DataError(
            f"{path}: not an index of token shards; expected an object with {', '.join(sorted(expected))}"
        )
    return index
