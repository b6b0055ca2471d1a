"""The checksum of a part's footer, which locates its pages. Parquet has checksums for pages, but none for the footer.

Without it, damage would be read as data; readers would silently skip names that damaged statistics leave out; and
pyarrow ends the process when it reads a column whose description makes no sense.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from shmlog.errors import CorruptDataError
from shmlog.folder.files import LOCAL, RunFiles

KEY = "shmlog.footer"
RUN_ID, FIRST_LOG, LAST_LOG = "shmlog.run_id", "shmlog.first_log", "shmlog.last_log"
UNSEALED = "crc32:00000000"  # the footer's checksum is computed with this in its place

_MARK = UNSEALED[:-8].encode()
_TAIL = struct.Struct("<I4s")
_MAGIC = b"PAR1"
_END_BYTES = 1 << 16  # holds most footers, so that these are read at once


def identity(run_id: str, first: int, last: int) -> dict[str, str]:
    """Return the metadata that identifies the part of logs ``first`` … ``last`` in its footer."""
    return {RUN_ID: run_id, FIRST_LOG: str(first), LAST_LOG: str(last)}


def seal(fd: int) -> None:
    """Write the checksum into the footer of a complete file, which has `UNSEALED` as the value of `KEY`."""
    size = os.fstat(fd).st_size
    footer = _footer(lambda count: os.pread(fd, count, max(size - count, 0)), "the file just written")
    at = _place(footer)
    if at < 0:
        raise OSError(errno.EIO, "the footer just written has no place for its checksum")
    if os.pwrite(fd, b"%08x" % zlib.crc32(footer), size - _TAIL.size - len(footer) + at) != 8:
        raise OSError(errno.EIO, "only a part of the footer's checksum was written")


def checked(path: Path, files: RunFiles = LOCAL) -> bytes:
    """Return the footer of a file, which is intact.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptDataError
        If it is not a Parquet file, or its checksum is missing or wrong.
    """
    footer = _footer(lambda count: files.read_range(path, -count, count), path)
    at = _place(footer)
    if at < 0:
        raise CorruptDataError(f"{path}: damaged, or not a part of shmlog (the footer has no checksum)")
    digits = footer[at : at + 8]
    if digits != b"%08x" % zlib.crc32(footer[:at] + b"00000000" + footer[at + 8 :]):
        text = digits.decode("ascii", "replace")
        raise CorruptDataError(f"{path}: damaged (the checksum of the footer is not {text})")
    return footer


def _footer(read_end: Callable[[int], bytes], what: object) -> bytes:
    """Return the footer of a file, whose last bytes, or all that there are, ``read_end`` returns."""
    end = read_end(_END_BYTES)
    length, magic = _TAIL.unpack(end[-_TAIL.size :]) if len(end) >= _TAIL.size else (0, b"")
    size = length + _TAIL.size
    if magic == _MAGIC and len(end) < size:
        end = read_end(size)
    if magic != _MAGIC or len(end) < size:
        raise CorruptDataError(f"{what}: damaged (not a Parquet file, or cut off)")
    return end[len(end) - size : -_TAIL.size]


def _place(footer: bytes) -> int:
    """Return the offset of the checksum's digits, or -1: after the last `KEY`, since a metric's name may equal it."""
    at = footer.rfind(_MARK, footer.rfind(KEY.encode()) + 1)
    return at + len(_MARK) if at >= 0 and at + len(UNSEALED) <= len(footer) else -1


class FooterFacts(NamedTuple):
    """The number of rows of a part, and the run and logs to which it belongs."""

    rows: int
    metadata: dict[str, str | None]


def read_facts(path: Path, files: RunFiles = LOCAL) -> FooterFacts:
    """Return the facts in the footer of a part; raises as `checked` does."""
    footer = checked(path, files)
    without_pages = pa.BufferReader(_MAGIC + footer + _TAIL.pack(len(footer), _MAGIC))
    try:
        parquet = pq.read_metadata(without_pages)
    except (OSError, pa.ArrowException) as error:
        raise CorruptDataError(f"{path}: damaged ({error})") from error
    key_values = parquet.metadata or {}
    values = {key: key_values.get(key.encode()) for key in (RUN_ID, FIRST_LOG, LAST_LOG)}
    metadata = {key: value and value.decode("utf-8", "replace") for key, value in values.items()}
    return FooterFacts(parquet.num_rows, metadata)
