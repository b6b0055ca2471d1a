"""How the process ends, for runs that nobody finished.

An uncaught exception shows in ``sys.excepthook``, a ``sys.exit`` in the call;
both go on to whatever was there before.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn

from shmlog.run import registry
from shmlog.storage.status import CANCELLED, FAILED, status_of_exit

_watching = False
_exception: BaseException | None = None
_exit_code: object = None


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
