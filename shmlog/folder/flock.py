"""Locks of open files and folders. Every process that may read one can hold its lock, so that waits have an end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from shmlog.errors import RunStateError

PATIENCE_S = 60.0
_NAP_S = 0.02


class LockError(OSError):
    """The folder of a run can't be locked."""


def lock(fd: int) -> bool:
    """Lock an open file or folder; return whether that was possible in time. `release` unlocks it.

    Raises
    ------
    OSError
        If it can't be locked, as on some network file systems.
    """
    import fcntl

    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_NAP_S)
        else:
            return True


@contextmanager
def folder_locked(folder: Path, *, must: bool = False) -> Iterator[None]:
    """Hold the lock of a run folder, under which a run that is over is recovered, resumed or removed.

    Parameters
    ----------
    must : bool
        Whether a file system without such locks is an error; if not, others are not kept out there.

    Raises
    ------
    LockError
        If ``must`` is set and the folder can't be locked, as on a network file system.
    RunStateError
        If another process holds the lock for long: one that changes the run, or any that may read the folder.
    FileNotFoundError
        If there is no such folder, or the previous holder of the lock has moved it away.
    """
    with ExitStack() as opened:
        while True:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(release, fd)
            _lock_folder(fd, folder, must)
            if os.path.samestat(os.fstat(fd), os.stat(folder)):
                break
            opened.close()  # moved away meanwhile, and another is in its place, such as the same run restored
        yield


def _lock_folder(fd: int, folder: Path, must: bool) -> None:
    try:
        is_free = lock(fd)
    except OSError as error:  # the file system has no locks, or none for folders
        if must:
            raise LockError(error.errno, error.strerror) from error
        is_free = True
    if not is_free:
        raise RunStateError(
            f"{folder}: another process has held the lock of this folder for {PATIENCE_S:g} s, and may be "
            "recovering or resuming the run; try again when that is done"
        )


def release(fd: int) -> None:
    """Unlock a file and close it; closing alone would not unlock it while a forked child has it open."""
    import fcntl

    with suppress(OSError):  # the file system has no locks
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
