"""How much there is to read, for an estimate of when it will have been read."""

from __future__ import annotations

import zlib
from pathlib import Path

SAMPLE = 1 << 20  # bytes of a packed file from which its size unpacked is estimated


def expected_bytes(path: Path) -> float:
    """About how many bytes a file holds when it is unpacked."""
    size = path.stat().st_size
    if path.suffix.lower() == ".parquet":
        return _parquet_bytes(path)
    with path.open("rb") as file:
        head = file.read(SAMPLE)
    if not head:
        return 0.0
    if path.suffix.lower() == ".gz":
        return size / len(head) * len(zlib.decompressobj(wbits=31).decompress(head))
    if path.suffix.lower() == ".zst":
        import zstandard

        return size / len(head) * len(zstandard.ZstdDecompressor().decompressobj().decompress(head))
    return float(size)


def _parquet_bytes(path: Path) -> float:
    from pyarrow import parquet

    metadata = parquet.read_metadata(path)
    return float(sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)))
