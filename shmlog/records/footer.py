"""The checksum of a part's footer, which locates its pages. Parquet has checksums for pages, but none for the footer.

Without it, damage would be read as data; readers would silently skip names that damaged statistics leave out; and
pyarrow ends the process when it reads a column whose description makes no sense.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from shmlog.errors import CorruptDataError
from shmlog.folder.regular import open_regular

KEY = "shmlog.footer"
RUN_ID, FIRST_LOG, LAST_LOG = "shmlog.run_id", "shmlog.first_log", "shmlog.last_log"
UNSEALED = "crc32:00000000"  # the footer's checksum is computed with this in its place

_MARK = UNSEALED[:-8].encode()
_TAIL = struct.Struct("<I4s")
_MAGIC = b"PAR1"


def identity(run_id: str, first: int, last: int) -> dict[str, str]:
    """Return the metadata that identifies the part of logs ``first`` … ``last`` in its footer."""
    return {RUN_ID: run_id, FIRST_LOG: str(first), LAST_LOG: str(last)}


def seal(fd: int) -> None:
    """Write the checksum into the footer of a complete file, which has `UNSEALED` as the value of `KEY`."""
    begin, footer = _read(fd, "the file just written")
    at = _place(footer)
    if at < 0:
        raise OSError(errno.EIO, "the footer just written has no place for its checksum")
    if os.pwrite(fd, b"%08x" % zlib.crc32(footer), begin + at) != 8:
        raise OSError(errno.EIO, "only a part of the footer's checksum was written")


def check(path: Path) -> None:
    """Check the footer of a file.

    Raises
    ------
    FileNotFoundError, CorruptDataError
        As `checked`.
    """
    with checked(path):
        pass


@contextmanager
def checked(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Open a file with an intact footer; yield its descriptor, the footer's offset, and the footer.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptDataError
        If it is not a Parquet file, or its checksum is missing or wrong.
    """
    with open_regular(path) as file:
        fd = file.fileno()
        begin, footer = _read(fd, path)
        _compare(path, footer)
        yield fd, begin, footer


def _compare(path: Path, footer: bytes) -> None:
    """Raise CorruptDataError if the checksum of a footer is missing or wrong."""
    at = _place(footer)
    if at < 0:
        raise CorruptDataError(f"{path}: damaged, or not a part of shmlog (the footer has no checksum)")
    digits = footer[at : at + 8]
    if digits != b"%08x" % zlib.crc32(footer[:at] + b"00000000" + footer[at + 8 :]):
        text = digits.decode("ascii", "replace")
        raise CorruptDataError(f"{path}: damaged (the checksum of the footer is not {text})")


def _read(fd: int, what: object) -> tuple[int, bytes]:
    """Return the offset of the footer, and the footer."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, _TAIL.size, max(size - _TAIL.size, 0))
    length, magic = _TAIL.unpack(tail) if len(tail) == _TAIL.size else (0, b"")
    begin = size - _TAIL.size - length
    if magic != _MAGIC or begin < 0:
        raise CorruptDataError(f"{what}: damaged (not a Parquet file, or cut off)")
    return begin, os.pread(fd, length, begin)


def _place(footer: bytes) -> int:
    """Return the offset of the checksum's digits, or -1: after the last `KEY`, since a metric's name may equal it."""
    at = footer.rfind(_MARK, footer.rfind(KEY.encode()) + 1)
    return at + len(_MARK) if at >= 0 and at + len(UNSEALED) <= len(footer) else -1


class FooterFacts(NamedTuple):
    """The number of rows of a part, and the run and logs to which it belongs."""

    rows: int
    metadata: dict[str, str | None]


def read_facts(path: Path) -> FooterFacts:
    """Return the facts in the footer of a part; raises as `checked` does."""
    with checked(path) as (_, _, data):
        without_pages = pa.BufferReader(_MAGIC + data + _TAIL.pack(len(data), _MAGIC))
    try:
        parquet = pq.read_metadata(without_pages)
    except (OSError, pa.ArrowException) as error:
        raise CorruptDataError(f"{path}: damaged ({error})") from error
    key_values = parquet.metadata or {}
    values = {key: key_values.get(key.encode()) for key in (RUN_ID, FIRST_LOG, LAST_LOG)}
    metadata = {key: value and value.decode("utf-8", "replace") for key, value in values.items()}
    return FooterFacts(parquet.num_rows, metadata)
