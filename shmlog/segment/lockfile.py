"""Locked files in shared memory, where other users may have put something else in their place."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from shmlog.errors import SegmentError

_MODE = 0o600


def hold(path: Path, *, make: bool = True, wait: bool = True) -> int:
    """Open a file of this user, lock it and return its descriptor; `flock.release` unlocks and closes it.

    The locked file is the one at ``path``: a previous holder may have removed the file that was there.

    Raises
    ------
    FileNotFoundError
        Without ``make``, if the file does not exist.
    BlockingIOError
        Without ``wait``, if another process holds the lock.
    SegmentError
        If it is not a plain file, is another user's, or can't be opened. Nothing was changed.
    """
    # A FIFO or a device must not block the open, a link must not lead elsewhere.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | (os.O_CREAT if make else 0)
    while True:
        fd = _open(path, flags)
        try:
            _check_ours(fd, path)
            os.fchmod(fd, _MODE)  # whatever the umask was
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(fd, path):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, _MODE)
    except FileNotFoundError:
        raise
    except OSError as error:  # a link, a folder, a file that only another user may open
        raise SegmentError(
            f"{path}: can't be opened ({error.strerror}); remove it, or have its owner remove it"
        ) from error


def _check_ours(fd: int, path: Path) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise SegmentError(f"{path}: not a plain file; remove it, or have its owner remove it")
    if status.st_uid != os.geteuid():
        raise SegmentError(f"{path}: belongs to user {status.st_uid}, not {os.geteuid()}; have its owner remove it")
    if status.st_nlink > 1:
        raise SegmentError(f"{path}: has {status.st_nlink} names, of which another may be in use; remove this one")


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
