"""Token streams split into the rows that pretraining reads."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from ..errors import DataError
from ..model.padding import UNTRAINED
from .shards import TokenShards


class TokenRows(Dataset):
    """Rows {"input_ids", "labels"} (int64, shape (context_length,)) of concatenated token streams.

    With `isolate_documents` tokens attend to their own document only: "position_ids" restart with each
    document, and its first token is not trained. The rest of a document that began in an earlier row counts
    as a document of its own.

    Attributes:
        counts: number of rows of each stream.
        unused: number of tokens at the ends of the streams that don't fill a row.

    Raises:
        DataError: no stream fills a row.
    """

    def __init__(self, streams: list[TokenShards], context_length: int, isolate_documents: bool) -> None:
        self.counts = [stream.tokens // context_length for stream in streams]
        self.unused = sum(stream.tokens % context_length for stream in streams)
        if not sum(self.counts):
            tokens = sum(stream.tokens for stream in streams)
            raise DataError(
                f"{streams[0].folder}: {tokens:,} tokens; expected at least one row of {context_length}"
            )
        self._streams, self._length, self._isolate_documents = streams, context_length, isolate_documents
        self._ends = np.cumsum(self.counts)

    def __len__(self) -> int:
        return sum(self.counts)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        source = int(np.searchsorted(self._ends, index, side="right"))
        stream = self._streams[source]
        start = (index - int(self._ends[source]) + self.counts[source]) * self._length
        stop = start + self._length
        ids = torch.from_numpy(stream.read(start, stop))
        labels = ids.clone()
        if not self._isolate_documents:
            return {"input_ids": ids, "labels": labels}
        starts = stream.document_starts(start, stop)
        labels[starts] = UNTRAINED
        return {"input_ids": ids, "labels": labels, "position_ids": positions(starts, self._length)}

    def mean_attended(self) -> float:
        """Returns the mean number of positions that a token attends to, itself included, over 64 rows.

        The rows are evenly spaced.
        """
        if not self._isolate_documents:
            return (self._length + 1) / 2
        rows = [self[len(self) * place // 64] for place in range(64)]
        return 1 + float(torch.stack([row["position_ids"] for row in rows]).float().mean())


def positions(starts: np.ndarray, length: int) -> torch.Tensor:
    """Returns each token's position in its document, `[length]` int64; 0 at each of `starts`."""
    begins = np.zeros(length, dtype=np.int64)
    begins[starts] = starts
    return torch.from_numpy(np.arange(length) - np.maximum.accumulate(begins))
