"""Opens data files for reading: decompresses them, and raises errors for truncated and missing ones."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from ..errors import DataError
from ..model.checks import check_no_pointer

UNREADABLE = (ValueError, EOFError, zlib.error, OSError)  # raised by gzip, zstandard, pyarrow, text decoding
CHUNK = 1 << 14  # bytes of a .zst file that are decompressed at a time, possibly to a thousand times as many


def open_bytes(path: Path) -> IO[bytes]:
    """Opens a file, decompressing .gz and .zst. Reading a truncated compressed file raises EOFError."""
    ending = path.suffix.lower()
    if ending == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return io.BufferedReader(_ZstandardFile(path)) if ending == ".zst" else path.open("rb")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Opens as `open_bytes`, and closes the file; raises DataError naming the file if it can't be read."""
    try:
        check_no_pointer(path)
        if not path.stat().st_size:
            raise DataError(f"{path}: the file is empty")
        with open_bytes(path) as data:
            yield data
    except UNREADABLE as error:
        raise DataError(f"{path}: can't be read: {error}") from None


@contextmanager
def opened_text(path: Path) -> Iterator[IO[str]]:
    """Opens as `opened`, as UTF-8 text without byte order mark; all line ends become newlines."""
    with opened(path) as data, io.TextIOWrapper(data, encoding="utf-8-sig") as text:
        yield text


class _ZstandardFile(io.RawIOBase):
    """Decompresses a .zst file frame by frame.

    Raises EOFError if the last frame is incomplete, which `zstandard` itself does not report.
    """

    def __init__(self, path: Path) -> None:
        import zstandard

        self._file = path.open("rb")
        self._decompressor, self._error = zstandard.ZstdDecompressor(), zstandard.ZstdError
        self._frame: Any = None  # decompressor of an incomplete frame
        self._compressed, self._bytes = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._bytes:
            compressed = self._compressed or self._file.read(CHUNK)
            if compressed:
                self._decompress(compressed)
            elif self._frame is not None:
                raise EOFError("the file is truncated: it ends in the middle of a zstandard frame")
            else:
                return 0
        count = min(len(buffer), len(self._bytes))
        buffer[:count] = self._bytes[:count]
        self._bytes = self._bytes[count:]
        return count

    def _decompress(self, compressed: bytes) -> None:
        frame = self._frame or self._decompressor.decompressobj()
        try:
            self._bytes = memoryview(frame.decompress(compressed))
        except self._error as error:
            raise OSError(str(error)) from None
        self._frame, self._compressed = (None, frame.unused_data) if frame.eof else (frame, b"")

    def close(self) -> None:
        self._file.close()
        super().close()
