"""Payloads too large for a lane, each in its own file below the run folder; the file's name ends with its checksum."""

from __future__ import annotations

import os
import re
import zlib
from io import BufferedReader
from pathlib import Path

from shmlog.base.durable import fsync_dir
from shmlog.errors import RefusedError
from shmlog.folder.files import LOCAL, RunFiles

_CHECKSUM = r".*-([0-9a-f]{8})\.txt"
_LARGE = r"large/([A-Za-z0-9._-]+)"


def large_name(data: bytes) -> str:
    """Return a new name, below ``large/``, for a payload."""
    return f"{os.getpid()}-{os.urandom(8).hex()}-{zlib.crc32(data):08x}.txt"


# Small functions: without any memory, CPython 3.11 loops for ever on the way out of a ``with`` or ``try``
# beyond instruction 256, whose number it tries to allocate.


def write_large(run_dir: Path, data: bytes) -> str:
    """Write a payload, durably, into a new file; return its name below ``large/``.

    Raises
    ------
    OSError
        If the file can't be written. Then it does not exist.
    """
    folder = run_dir / "large"
    folder.mkdir(exist_ok=True)
    path = folder / large_name(data)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o666)
    try:
        _fill(fd, data)
        fsync_dir(folder)
        fsync_dir(run_dir)  # ``large`` itself may be new
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path.name


def _fill(fd: int, data: bytes) -> None:
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def _open(run_dir: Path, path: str, files: RunFiles) -> BufferedReader:
    """Open the regular file that a record names; no symbolic link leads out of the folder."""
    match = re.fullmatch(_LARGE, path)
    if match is None:
        raise OSError(f"{path!r} is not the path of a large payload")
    try:
        return files.open_below(run_dir / "large", match[1])
    except RefusedError as error:
        raise OSError(str(error)) from error


def large_size(run_dir: Path, path: str, files: RunFiles = LOCAL) -> int:
    """Return the size in bytes of a payload's file.

    Raises
    ------
    OSError
        If the file is missing, or not a regular file in ``large/``.
    """
    with _open(run_dir, path, files) as file:
        return os.fstat(file.fileno()).st_size


def read_large(run_dir: Path, path: str, files: RunFiles = LOCAL) -> bytes:
    """Return a payload; raises OSError as `large_size` does, and if its checksum is wrong."""
    with _open(run_dir, path, files) as file:
        data = file.read()
    checksum = re.fullmatch(_CHECKSUM, path)
    if checksum is not None and int(checksum[1], 16) != zlib.crc32(data):
        raise OSError(f"the checksum of {path!r} is wrong")
    return data
