"""The checksum of a part's footer, which says where its pages are: Parquet gives these checksums, but it none.

Damage in it would not only be read as it stands: names that statistics leave out are passed over in
silence, and pyarrow ends the process when it is asked of a column whose description makes no sense.
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
UNSEALED = "crc32:00000000"  # the footer's checksum is taken with this in its place

_MARK = UNSEALED[:-8].encode()
_TAIL = struct.Struct("<I4s")
_MAGIC = b"PAR1"


def identity(run_id: str, first: int, last: int) -> dict[str, str]:
    """Return what the footer of a part of logs ``first`` … ``last`` says of whose it is."""
    return {RUN_ID: run_id, FIRST_LOG: str(first), LAST_LOG: str(last)}


def seal(fd: int) -> None:
    """Put the checksum into the footer of a whole file, which has `UNSEALED` as the value of `KEY`."""
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
    """Open a file whose footer is in order; give its descriptor, where the footer begins, and the footer.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptDataError
        If it is not a Parquet file, has no checksum, or another one.
    """
    with open_regular(path) as file:
        fd = file.fileno()
        begin, footer = _read(fd, path)
        _compare(path, footer)
        yield fd, begin, footer


def _compare(path: Path, footer: bytes) -> None:
    """Raise CorruptDataError if a footer is not what its checksum is of."""
    at = _place(footer)
    if at < 0:
        raise CorruptDataError(f"{path}: damaged, or not a part of shmlog (the footer has no checksum)")
    told = footer[at : at + 8]
    if told != b"%08x" % zlib.crc32(footer[:at] + b"00000000" + footer[at + 8 :]):
        raise CorruptDataError(f"{path}: damaged (the checksum of the footer is not {told.decode('ascii', 'replace')})")


def _read(fd: int, what: object) -> tuple[int, bytes]:
    """Return where the footer begins, and the footer."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, _TAIL.size, max(size - _TAIL.size, 0))
    length, magic = _TAIL.unpack(tail) if len(tail) == _TAIL.size else (0, b"")
    begin = size - _TAIL.size - length
    if magic != _MAGIC or begin < 0:
        raise CorruptDataError(f"{what}: damaged (no Parquet file, or cut off)")
    return begin, os.pread(fd, length, begin)


def _place(footer: bytes) -> int:
    """Return where the digits are, or -1: behind the last key of that name, for a metric's may be the same."""
    at = footer.rfind(_MARK, footer.rfind(KEY.encode()) + 1)
    return at + len(_MARK) if at >= 0 and at + len(UNSEALED) <= len(footer) else -1


class Facts(NamedTuple):
    """What the footer of a part says: its rows, and of which run and logs it is."""

    rows: int
    metadata: dict[str, str | None]


def read_facts(path: Path) -> Facts:
    """Return what the footer of a part says; raises as `checked` does."""
    with checked(path) as (_, _, data):
        without_pages = pa.BufferReader(_MAGIC + data + _TAIL.pack(len(data), _MAGIC))
    try:
        described = pq.read_metadata(without_pages)
    except (OSError, pa.ArrowException) as error:
        raise CorruptDataError(f"{path}: damaged ({error})") from error
    told = described.metadata or {}
    values = {key: told.get(key.encode()) for key in (RUN_ID, FIRST_LOG, LAST_LOG)}
    metadata = {key: value and value.decode("utf-8", "replace") for key, value in values.items()}
    return Facts(described.num_rows, metadata)
