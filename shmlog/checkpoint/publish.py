"""Put a checkpoint's file in place, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

from shmlog.checkpoint.container import DIGEST_BYTES, read_pieces, write_sealed
from shmlog.checkpoint.files import split_name
from shmlog.errors import StorageError
from shmlog.storage.layout import TEMPORARY_SUFFIX, fsync_dir
from shmlog.storage.regular import open_regular

_TEMPORARY = re.compile(r"\.(?P<final>.+\.safetensors)\.(?P<host>.+)\.(?P<pid>\d+)\.[0-9a-f]+\.tmp", re.ASCII)
_ABANDONED_S = 3600.0  # untouched for so long, whoever writes it
_DEAD_S = 60.0  # and by a process of this host that is no more, which another container's may only seem to be


def publish(path: Path, chunks: Iterable[memoryview]) -> str:
    """Put a file in place, whole and durable, or not at all; return its SHA-256.

    Raises
    ------
    StorageError
        If it can't be written. What was there before is still there.
    """
    mine = f"{os.uname().nodename}.{os.getpid()}.{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.name}.{mine}{TEMPORARY_SUFFIX}")
    try:
        _make_folder(path.parent)
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                sha256 = write_sealed(fd, chunks)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_dir(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}; the older ones are untouched") from error
    return sha256


def copy(path: Path, folder: Path) -> Path:
    """Copy a checkpoint's file into another folder, and return the copy.

    Raises
    ------
    StorageError
        If it can't be written.
    """
    target = folder / path.name
    with open_regular(path) as file:
        publish(target, read_pieces(file, path.stat().st_size - DIGEST_BYTES))
    return target


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        fsync_dir(folder.parent)


def remove_abandoned(path: Path) -> None:
    """Remove what killed saves of the same name have left beside ``path``, which has just been written."""
    with contextlib.suppress(OSError):
        now = path.stat().st_mtime  # the file system's clock, which need not be this machine's
        for entry in os.scandir(path.parent):
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None or not _same_name(Path(match["final"]), path):
                continue
            idle = now - entry.stat(follow_symlinks=False).st_mtime
            if idle > _ABANDONED_S or (idle > _DEAD_S and _is_gone(match["host"], int(match["pid"]))):
                os.unlink(entry)


def _same_name(one: Path, other: Path) -> bool:
    split = split_name(one), split_name(other)
    return split[0] is not None and split[1] is not None and split[0][0] == split[1][0]


def _is_gone(host: str, pid: int) -> bool:
    if host != os.uname().nodename:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False
