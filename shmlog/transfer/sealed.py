"""The checksum of an exported Parquet file as a whole.

Parquet has checksums for pages, but none for their headers, nor for the footer, which says how many rows there are.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import IO, Any

from shmlog.errors import CorruptDataError

KEY = "shmlog.file"
UNSEALED = "crc32:00000000"  # the checksum is computed with this in its place

_MARK = KEY.encode() + b"\x18\x0ecrc32:"  # a key and the beginning of its value, as Thrift writes them
_ZEROS = b"00000000"


class SealedStream(io.RawIOBase):
    """A stream into which pyarrow writes a Parquet file, the last of whose metadata is `KEY` with `UNSEALED`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._crc = 0
        self._end: bytearray | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:
        """Write ``data``, or keep it if it belongs to the end of the file."""
        if self._end is None:
            self._crc = zlib.crc32(data, self._crc)
            self._file.write(data)
        else:
            self._end += data
        return len(data)

    def begin_end(self) -> None:
        """Keep in memory what is written from now on: the footer, in which the checksum stands."""
        self._end = bytearray()

    def seal(self) -> None:
        """Write the end of the file, with the checksum in it."""
        end = self._end or bytearray()
        at = end.rindex(_MARK) + len(_MARK)
        end[at : at + len(_ZEROS)] = b"%08x" % zlib.crc32(end, self._crc)
        self._file.write(end)


def check(path: Path, data: bytes) -> bool:
    """Compare a file with its checksum; return whether it has one.

    Raises
    ------
    CorruptDataError
        If it has another one.
    """
    at = data.rfind(_MARK)
    if at < 0:
        return False
    at += len(_MARK)
    rest = at + len(_ZEROS)
    crc = zlib.crc32(memoryview(data)[rest:], zlib.crc32(_ZEROS, zlib.crc32(memoryview(data)[:at])))
    if data[at:rest] != b"%08x" % crc:
        raise CorruptDataError(
            f"{path}: damaged (its checksum is not that of its content); if another program has saved the file again, "
            f"save it without the metadata {KEY!r}"
        )
    return True
