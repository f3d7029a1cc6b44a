"""Data files opened for reading: unpacked on the way, and refused where they are cut or not there yet."""

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

UNREADABLE = (ValueError, EOFError, zlib.error, OSError)  # of gzip, zstandard, pyarrow and text decoding
CHUNK = 1 << 14  # bytes of a .zst file that are unpacked at a time; they may become a thousand times as many


def open_bytes(path: Path) -> IO[bytes]:
    """A file's bytes, unpacked where its name ends with .gz or .zst. A cut file raises EOFError when read."""
    ending = path.suffix.lower()
    if ending == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return io.BufferedReader(_ZstandardFile(path)) if ending == ".zst" else path.open("rb")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """`open_bytes`, closed at the end; DataError with the file's name for whatever can't be read of it."""
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
    """`opened` as UTF-8 text, without a byte order mark; all line ends are newlines."""
    with opened(path) as data, io.TextIOWrapper(data, encoding="utf-8-sig") as text:
        yield text


class _ZstandardFile(io.RawIOBase):
    """A .zst file unpacked, one frame after the other.

    Raises EOFError where the last frame is not whole; to `zstandard` a cut file is a short one.
    """

    def __init__(self, path: Path) -> None:
        import zstandard

        self._file = path.open("rb")
        self._decompressor, self._error = zstandard.ZstdDecompressor(), zstandard.ZstdError
        self._frame: Any = None  # the one under way
        self._packed, self._unpacked = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._unpacked:
            packed = self._packed or self._file.read(CHUNK)
            if packed:
                self._unpack(packed)
            elif self._frame is not None:
                raise EOFError("the file was cut: it ends in the middle of a zstandard frame")
            else:
                return 0
        count = min(len(buffer), len(self._unpacked))
        buffer[:count] = self._unpacked[:count]
        self._unpacked = self._unpacked[count:]
        return count

    def _unpack(self, packed: bytes) -> None:
        frame = self._frame or self._decompressor.decompressobj()
        try:
            self._unpacked = memoryview(frame.decompress(packed))
        except self._error as error:
            raise OSError(str(error)) from None
        self._frame, self._packed = (None, frame.unused_data) if frame.eof else (frame, b"")

    def close(self) -> None:
        self._file.close()
        super().close()
