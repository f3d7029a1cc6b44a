"""A corpus that `writing.py` wrote: token shards of each source and part, and their counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from ..errors import DataError
from ..hashes import file_hash
from .shards import INDEX, REMEDY, TokenShards

Part = Literal["train", "validation"]
PARTS: tuple[Part, ...] = ("train", "validation")
COUNTS = "corpus.json"  # written last: if it exists, all shards are complete


class Corpus:
    """A complete corpus.

    Attributes:
        counts: see `writing.write_corpus`.
        train, validation: the streams of each part that contain tokens, one per source.
        weights: weights of the streams in `train`.

    Raises:
        DataError: the corpus is incomplete, a file's size differs from its index, or the corpus was written
            with another tokenizer than `tokenizer` (a hash).
    """

    def __init__(self, folder: Path, tokenizer: str) -> None:
        try:
            self.counts = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(
                f"{folder}: {COUNTS} does not exist; expected a corpus, which `llamita prepare` writes"
            ) from None
        sources = {part: [s for s in self.counts[part]["sources"] if s["tokens"]] for part in PARTS}
        self.train, self.validation = (
            [TokenShards(folder / source["folder"], tokenizer) for source in sources[part]] for part in PARTS
        )
        self.weights: list[float] = [source["weight"] for source in sources["train"]]

    def verify(self, share: int = 0, shares: int = 1) -> None:
        """Compares the checksums of a share of the files. Raises DataError for a file that differs."""
        sums = [sum for stream in [*self.train, *self.validation] for sum in stream.checksums()]
        for path, expected in sums[share::shares]:
            if file_hash(path) != expected:
                raise DataError(f"{path}: the checksum differs from that in {INDEX}; {REMEDY}")
