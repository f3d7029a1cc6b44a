"""The corpus: text to token shards, a part of it held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from ..artifact import write_json
from ..console import track
from ..data.shards import encode_documents, write_shards
from ..data.sources import read_documents
from ..errors import DataError
from ..model.checkpoint import tokenizer_hash
from .settings import PretrainSettings

Part = Literal["train", "validation"]
COUNTS = "corpus.json"  # written last: beside it all shards stand


class Corpus:
    """The documents of one part; counts what it yields.

    With `validation` sources the parts are what the sources say; with a `validation_share`, a document is
    held out by a hash of its text, so equal documents are on the same side.
    """

    def __init__(self, settings: PretrainSettings, root: Path, part: Part) -> None:
        self._settings, self._part = settings, part
        held_out = part == "validation" and settings.validation
        self._documents = read_documents(settings.validation if held_out else settings.documents, root)
        self.bytes = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._documents:
            if self._settings.validation_share and self._side(text) != self._part:
                continue
            self.bytes += len(text.encode())
            yield text

    def _side(self, text: str) -> Part:
        digest = hashlib.sha256(f"{self._settings.seed}/{text}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        return "validation" if place < self._settings.validation_share else "train"

    @property
    def skipped(self) -> Mapping[str, int]:
        return self._documents.skipped


def write_corpus(settings: PretrainSettings, tokenizer: Any, root: Path, folder: Path) -> dict[str, Any]:
    """Writes the token shards `folder/train` and `folder/validation`, unless they stand already.

    Returns by part: `documents`, `tokens`, `bytes`, `bytes_per_token`, `skipped` (documents by reason).
    Raises DataError for broken rows, or where a part holds no document.
    """
    if (folder / COUNTS).is_file():
        standing: dict[str, Any] = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        return standing
    counts: dict[str, Any] = {}
    for part in ("train", "validation"):
        corpus = Corpus(settings, root, part)
        documents = encode_documents(tokenizer, track(corpus, f"tokenizing {part}", unit="documents"))
        try:
            index = write_shards(
                documents, folder / part, len(tokenizer), settings.shard_tokens, tokenizer_hash(tokenizer)
            )
        except DataError as error:
            share = settings.validation_share
            reason = f"; validation_share: {share:g} of the documents leaves none here" if share else ""
            raise DataError(f"{part} documents: {error}{reason}") from None
        counts[part] = {
            "documents": index["documents"],
            "tokens": index["tokens"],
            "bytes": corpus.bytes,
            "bytes_per_token": corpus.bytes / index["tokens"],
            "skipped": dict(corpus.skipped),
        }
    write_json(folder / COUNTS, counts)
    return counts
