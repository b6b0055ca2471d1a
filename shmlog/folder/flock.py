"""A lock of an open file or folder, which anybody can hold who may read it: it is not waited for without end."""

from __future__ import annotations

import os
import time
from contextlib import suppress

PATIENCE_S = 60.0
_NAP_S = 0.02


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


def release(fd: int) -> None:
    """Give a lock free, and close its file, which a child that was forked meanwhile has open still."""
    import fcntl

    with suppress(OSError):  # there are no locks in that file system
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
