"""How the process ends, for runs that nobody finished.

An uncaught exception shows in ``sys.excepthook``, a ``sys.exit`` in the call;
both go on to whatever was there before.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn

from shmlog.errors import ShmlogError
from shmlog.flusher.process import start_flusher
from shmlog.run import registry
from shmlog.storage import runfile
from shmlog.storage.layout import RunLayout
from shmlog.storage.status import CANCELLED, FAILED, status_of_exit

_CLOSING_S = 30.0  # how long it may take to close the runs: their parts are merged
_NAP_S = 0.01
_HOST_PIDS = "pid:[4026531836]"  # the namespace that the kernel itself makes: PROC_PID_INIT_INO

_watching = False
_exception: BaseException | None = None
_exit_code: object = None
_ended: list[tuple[int, RunLayout]] = []  # with the process that has finished it: not a child of that


def watch() -> None:
    """Have the runs of this process finished at its exit. Once per process."""
    global _watching
    if _watching:
        return
    _watching = True
    atexit.register(finish_all)
    sys.excepthook = _remembering_hook(sys.excepthook)
    sys.exit = _remembering_exit(sys.exit)


def _remembering_hook(previous: Callable[..., Any]) -> Callable[..., Any]:
    def excepthook(kind: type[BaseException], exception: BaseException, trace: TracebackType | None) -> None:
        global _exception
        _exception = exception
        previous(kind, exception, trace)

    return excepthook


def _remembering_exit(previous: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
    def exit(status: object = None, /) -> NoReturn:
        global _exit_code
        _exit_code = status
        previous(status)

    return exit


def exit_status() -> str:
    """Return the status of a run whose process is ending by itself."""
    return status_of_exit(_exit_code) if _exception is None else status_after(_exception)


def status_after(exception: BaseException) -> str:
    """Return the status of a run that ends with an exception."""
    if isinstance(exception, SystemExit):
        return status_of_exit(exception.code)
    return CANCELLED if isinstance(exception, KeyboardInterrupt) else FAILED


def note_end(layout: RunLayout, *, sealed: bool) -> None:
    """Have the exit of this process see to a run that it has finished, if its flusher may not be able to close it."""
    if not sealed or _ends_with_us():
        _ended.append((os.getpid(), layout))


def _ends_with_us() -> bool:
    """Whether the flusher may be killed when this process ends: with the first process of a container all others are.

    Docker's ``--init`` and a shell that runs us end right after us.
    """
    try:
        return os.readlink("/proc/self/ns/pid") != _HOST_PIDS
    except OSError:
        return False


def finish_all() -> None:
    """Finish every open run of this process; bounded, and never raises."""
    status = exit_status()
    for run in registry.open_runs():
        try:
            if run.is_owner and status == FAILED and _exception is not None:
                run.log_error(_exception)
            run.finish(status)
        except Exception:  # the interpreter is ending: nobody is left to hear of it
            run._leave()
    deadline = time.monotonic() + _CLOSING_S if _ends_with_us() else 0.0
    for pid, layout in _ended:
        if pid == os.getpid():
            with suppress(ShmlogError, OSError):  # recover goes on from there
                _see_off(layout, deadline)


def _see_off(layout: RunLayout, deadline: float) -> None:
    """Have somebody close a run that is over, and wait for that until the deadline."""
    from shmlog.storage import liveness  # slow to import: not when a run begins

    is_started = False
    while not _is_closed(layout):
        described = runfile.read(layout.run_yaml)
        if liveness.members_live(described) and not liveness.is_closing(described):
            return  # others are attached
        if not is_started and liveness.flusher_lives(described) is False:
            start_flusher(layout)  # it finds that nobody is attached, and closes the run
            is_started = True
        if time.monotonic() >= deadline:
            return
        time.sleep(_NAP_S)


def _is_closed(layout: RunLayout) -> bool:
    return runfile.read(layout.run_yaml).get("complete") is True and not layout.wal.is_dir()
