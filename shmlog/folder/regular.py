"""Files of a run folder, which may come from anybody, opened so that none makes us wait or fills the memory.

A pipe in the place of a file would be waited on for ever, a link lead to files of others, and a file that is all hole
takes no room on the disk, and all of its length in memory.
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
"""Of a file that is read as a whole; ours have some kilobytes."""
LOG_BYTES_MAX = 16 << 30
"""Of a log, which ends at some 16 MB, behind a frame that holds what all lanes had."""

_NO_FILE = (errno.ENXIO, errno.ELOOP)  # of a socket; of a link
_REFUSED = "not a regular file; refused"


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading.

    Raises
    ------
    FileNotFoundError
        If there is none.
    RefusedError
        If it is a link, a pipe, a folder or the like.
    OSError
        If it can't be opened.
    """
    return open(path, "rb", opener=_open)


def read_regular(path: Path, most: int = BYTES_MAX) -> bytes:
    """Return what is in a file; raises as `open_regular`, and RefusedError if it is larger than ``most``."""
    with open_regular(path) as file:
        refuse_holes(file, path)
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise RefusedError(f"{path}: {size:,} bytes: refused, since ours have {most:,} at most")
        return file.read(size)


def refuse_holes(file: BufferedReader, path: Path) -> None:
    """Raise RefusedError for a large file that has holes: we leave none in what is read as a whole."""
    if has_holes(file):
        size = os.fstat(file.fileno()).st_size
        raise RefusedError(f"{path}: {size:,} bytes with holes: refused, since we leave none")


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
