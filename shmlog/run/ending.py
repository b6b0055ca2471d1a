"""How a run ends with its process: the status that it gets, and who closes it then."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from shmlog.errors import ShmlogError
from shmlog.flusher.process import start_flusher
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.status import CANCELLED, FAILED, status_of_exit

_CLOSING_S = 30.0  # how long it may take to close the runs: their parts are merged
_NAP_S = 0.01
_HOST_PIDS = "pid:[4026531836]"  # the namespace that the kernel itself makes: PROC_PID_INIT_INO

_ended: list[tuple[int, RunLayout]] = []  # with the process that has finished it: not a child of that


def status_after(exception: BaseException) -> str:
    """Return the status of a run that ends with an exception."""
    if isinstance(exception, SystemExit):
        return status_of_exit(exception.code)
    return CANCELLED if isinstance(exception, KeyboardInterrupt) else FAILED


def note_end(layout: RunLayout, *, sealed: bool, is_awaited: bool) -> None:
    """Have the exit of this process see to a run that it has finished, if its flusher may not be able to close it.

    ``is_awaited``: the end of the process decides the status, and waits for the flusher, which closes the run then.
    """
    if not sealed or (not is_awaited and ends_with_us()):
        _ended.append((os.getpid(), layout))


def ends_with_us() -> bool:
    """Whether the flusher may be killed when this process ends: with the first process of a container all others are.

    Docker's ``--init`` and a shell that runs us end right after us.
    """
    try:
        return os.readlink("/proc/self/ns/pid") != _HOST_PIDS
    except OSError:
        return False


def see_off() -> None:
    """Have the runs that were noted closed, and wait for that if the flushers end with this process; never raises."""
    deadline = time.monotonic() + _CLOSING_S if ends_with_us() else 0.0
    for pid, layout in _ended:
        if pid == os.getpid():
            with suppress(ShmlogError, OSError):  # recover goes on from there
                _see_off(layout, deadline)


def _see_off(layout: RunLayout, deadline: float) -> None:
    """Have somebody close a run that is over, and wait for that until the deadline."""
    from shmlog.folder import liveness  # slow to import: not when a run begins

    is_started = False
    while not _is_closed(layout):
        described = Description.read(layout)
        if not is_started and liveness.flusher_lives(described) is False:
            start_flusher(layout)  # it closes the run as soon as nobody is attached
            is_started = True
        if liveness.members_live(described) and not liveness.is_closing(described):
            return  # others are attached, or this process is until its end
        if time.monotonic() >= deadline:
            return
        time.sleep(_NAP_S)


def _is_closed(layout: RunLayout) -> bool:
    return Description.read(layout).complete is True and not layout.wal.is_dir()
