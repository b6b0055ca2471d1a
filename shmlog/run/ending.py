"""The end of a run with its process: its status, and the flusher that closes it."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from shmlog.errors import ShmlogError
from shmlog.flusher.process import start_flusher
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.status import CANCELLED, FAILED, status_of_exit

_CLOSING_S = 30.0  # how long closing the runs may take, since it merges their parts
_NAP_S = 0.01
_HOST_PIDS = "pid:[4026531836]"  # the initial namespace of the kernel: PROC_PID_INIT_INO

_ended: list[tuple[int, RunLayout]] = []  # with the pid of the process that finished it, since children inherit this


def status_after(exception: BaseException) -> str:
    """Return the status of a run that ends with an exception."""
    if isinstance(exception, SystemExit):
        return status_of_exit(exception.code)
    return CANCELLED if isinstance(exception, KeyboardInterrupt) else FAILED


def note_end(layout: RunLayout) -> None:
    """Note a finished run that its flusher has not closed: the exit of this process then has it closed."""
    _ended.append((os.getpid(), layout))


def ends_with_us() -> bool:
    """Whether the end of this process may kill the flusher: the end of a container's first process kills all others.

    Docker's ``--init``, or a shell that runs this process, ends right after it.
    """
    try:
        return os.readlink("/proc/self/ns/pid") != _HOST_PIDS
    except OSError:
        return False


def see_off() -> None:
    """See that the noted runs are closed, and wait for it if the flushers end with this process; never raises."""
    deadline = time.monotonic() + _CLOSING_S if ends_with_us() else 0.0
    for pid, layout in _ended:
        if pid == os.getpid():
            with suppress(ShmlogError, OSError):  # `recover` can close the run later
                _see_off(layout, deadline)


def _see_off(layout: RunLayout, deadline: float) -> None:
    """See that a flusher closes a run that is over, and wait for it until the deadline."""
    from shmlog.folder import liveness  # slow to import: not when a run begins

    is_started = False
    while not _is_closed(layout):
        description = Description.read(layout)
        if not is_started and liveness.flusher_lives(description) is False:
            start_flusher(layout)  # it closes the run as soon as no process is attached
            is_started = True
        if liveness.members_live(description) and not liveness.is_closing(description):
            return  # other processes, or this one until its end, are attached
        if time.monotonic() >= deadline:
            return
        time.sleep(_NAP_S)


def _is_closed(layout: RunLayout) -> bool:
    return Description.read(layout).complete is True and not layout.wal.is_dir()
