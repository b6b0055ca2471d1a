"""Open files of a run folder, which may come from anybody, so that none blocks us or fills the memory.

In the place of a file, a pipe would block for ever, a link could lead to files of other users, and a file of holes
takes no room on disk but its whole length in memory.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from shmlog.base.durable import HARMLESS
from shmlog.errors import RefusedError

BYTES_MAX = 64 << 20
"""Most bytes of a file that is read as a whole; ours have some kilobytes."""
LOG_BYTES_MAX = 16 << 30
"""Most bytes of a log: it ends at some 16 MB, after a frame that can hold all lanes."""

_NO_FILE = (errno.ENXIO, errno.ELOOP)  # for a socket; for a link
_REFUSED = "not a regular file; refused"


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    RefusedError
        If it is a link, a pipe, a folder or the like.
    OSError
        If it can't be opened.
    """
    return open(path, "rb", opener=_open)


def read_regular(path: Path, bytes_max: int = BYTES_MAX) -> bytes:
    """Return the bytes of a file; raises as `open_regular`, and RefusedError if it has more than ``bytes_max``."""
    with open_regular(path) as file:
        refuse_holes(file, path)
        size = os.fstat(file.fileno()).st_size
        if size > bytes_max:
            raise RefusedError(f"{path}: {size:,} bytes: refused, since ours have {bytes_max:,} at most")
        return file.read(size)


def refuse_holes(file: BufferedReader, path: Path) -> None:
    """Raise RefusedError for a large file that has holes: shmlog writes none into a file that is read whole."""
    if has_holes(file):
        size = os.fstat(file.fileno()).st_size
        raise RefusedError(f"{path}: {size:,} bytes with holes: refused, since shmlog writes no holes")


def has_holes(file: BufferedReader) -> bool:
    """Whether a file that was just opened is large and has holes."""
    size = os.fstat(file.fileno()).st_size
    if size <= BYTES_MAX:
        return False
    first_hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
    file.seek(0)
    return first_hole < size


def _open(path: str, flags: int) -> int:
    try:
        fd = os.open(path, flags | HARMLESS)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise RefusedError(f"{path}: {_REFUSED}") from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise RefusedError(f"{path}: {_REFUSED}")
    return fd
