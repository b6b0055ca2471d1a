"""A lock of an open file or folder, which anybody can hold who may read it: it is not waited for without end."""

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
    """Lock what is open, and return whether that was possible in time; who calls `release` gives it free.

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
    """Hold the lock of a run folder, under which a run that is over is recovered, resumed or taken away.

    Parameters
    ----------
    must : bool
        Whether it is an error if folders can't be locked there; else others are not kept out.

    Raises
    ------
    LockError
        If it must be locked and can't be, as on a network file system.
    RunStateError
        If somebody holds it for long: who does one of these things, or anybody who may read the folder.
    FileNotFoundError
        If there is no such folder, or whoever held the lock has taken it away.
    """
    with ExitStack() as opened:
        while True:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.callback(release, fd)
            _lock_folder(fd, folder, must)
            if os.path.samestat(os.fstat(fd), os.stat(folder)):
                break
            opened.close()  # it was taken away meanwhile, and another is in its place, such as the same run restored
        yield


def _lock_folder(fd: int, folder: Path, must: bool) -> None:
    try:
        is_free = lock(fd)
    except OSError as error:  # no locks there, or none of folders
        if must:
            raise LockError(error.errno, error.strerror) from error
        is_free = True
    if not is_free:
        raise RunStateError(
            f"{folder}: somebody else has held the lock of its folder for {PATIENCE_S:g} s, and so may be "
            "recovering or resuming it; try again when that is done"
        )


def release(fd: int) -> None:
    """Give a lock free, and close its file, which a child that was forked meanwhile has open still."""
    import fcntl

    with suppress(OSError):  # there are no locks in that file system
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
