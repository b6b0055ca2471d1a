"""Files in shared memory that are held under a lock; anybody can have put something else in their place."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from shmlog.errors import SegmentError


def hold(path: Path, *, make: bool = True, wait: bool = True) -> int:
    """Open a file of this user, lock it and return its descriptor; who closes that gives it free.

    It is in its place: who holds a lock may remove the file, and the next one then has another.

    Raises
    ------
    OSError
        If it can't be opened; without ``make`` if there is none, without ``wait`` if somebody holds it.
    SegmentError
        If what is there is no plain file, or another user's. Nothing was changed.
    """
    # A FIFO or a device must not make the open wait, a link must not lead elsewhere.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_CREAT if make else 0)
    while True:
        fd = os.open(path, flags, 0o600)
        try:
            _check_ours(fd, path)
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _check_ours(fd: int, path: Path) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise SegmentError(f"{path}: no plain file; remove it, or have its owner remove it")
    if status.st_uid != os.geteuid():
        raise SegmentError(f"{path}: belongs to user {status.st_uid}, not {os.geteuid()}; have its owner remove it")
    if status.st_nlink > 1:
        raise SegmentError(f"{path}: has {status.st_nlink} names, of which another may be in use; remove this one")


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
