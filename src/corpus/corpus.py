"""A corpus as `writing.py` leaves it: token shards of each source and part, and what was counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from ..errors import DataError
from ..hashes import file_hash
from .shards import INDEX, TokenShards

Part = Literal["train", "validation"]
PARTS: tuple[Part, ...] = ("train", "validation")
COUNTS = "corpus.json"  # written last: beside it all shards stand


class Corpus:
    """A corpus that was written to its end.

    Attributes:
        counts: see `writing.write_corpus`.
        train, validation: the streams of each part that hold tokens, one a source.
        weights: of the streams of `train`.

    Raises:
        DataError: it was not written to its end, a file has another size or checksum than its index says, or
            `tokenizer` (the hash of one) is not the one that it was written with.
    """

    def __init__(self, folder: Path, tokenizer: str) -> None:
        try:
            self.counts = json.loads((folder / COUNTS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{folder}: no {COUNTS}; expected what `llamita prepare` makes") from None
        sources = {part: [s for s in self.counts[part]["sources"] if s["tokens"]] for part in PARTS}
        self.train, self.validation = (
            [TokenShards(folder / source["folder"], tokenizer) for source in sources[part]] for part in PARTS
        )
        self.weights: list[float] = [source["weight"] for source in sources["train"]]

    def verify(self, share: int = 0, shares: int = 1) -> None:
        """Compares the checksums of a share of the files. Raises DataError naming the one that differs."""
        sums = [sum for stream in [*self.train, *self.validation] for sum in stream.checksums()]
        for path, expected in sums[share::shares]:
            if file_hash(path) != expected:
                raise DataError(f"{path}: its checksum isn't that of {INDEX}; write it again")
