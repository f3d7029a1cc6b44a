"""Estimates the amount of text in files, for the progress bar's remaining time."""

from __future__ import annotations

import zlib
from pathlib import Path

from ..data.unpacking import UNREADABLE

SAMPLE = 1 << 20  # bytes of a compressed file from which its uncompressed size is estimated


def expected_bytes(path: Path) -> float:
    """Returns about how many bytes a file has when it is uncompressed; 0 if unknown."""
    try:
        return _parquet_bytes(path) if path.suffix.lower() == ".parquet" else _unpacked_bytes(path)
    except UNREADABLE:
        return 0.0  # reading the file raises the error


def _unpacked_bytes(path: Path) -> float:
    size, ending = path.stat().st_size, path.suffix.lower()
    with path.open("rb") as file:
        head = file.read(SAMPLE)
    if not head:
        return 0.0
    if ending == ".gz":
        return size / len(head) * len(zlib.decompressobj(wbits=31).decompress(head))
    if ending == ".zst":
        import zstandard

        try:
            return size / len(head) * len(zstandard.ZstdDecompressor().decompressobj().decompress(head))
        except zstandard.ZstdError:
            return 0.0
    return float(size)


def _parquet_bytes(path: Path) -> float:
    from pyarrow import parquet

    metadata = parquet.read_metadata(path)
    return float(sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)))
