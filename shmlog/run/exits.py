"""Finish open runs when the process ends.

At the end of Python, an uncaught exception is visible, but not the exit code of the process, nor whether anything
else happens meanwhile. So the run gets a status that is only likely, and csrc/core/exits.c records the true one when
the C library ends the process.
"""

from __future__ import annotations

import atexit
import sys

from shmlog.folder.status import FAILED, SUCCESS
from shmlog.run import ending, registry

_watching = False


def watch() -> None:
    """Arrange that the runs of this process are finished at its exit, once per process."""
    global _watching
    if not _watching:
        _watching = True
        atexit.register(finish_all)


def _uncaught(*, at_prompt: bool) -> BaseException | None:
    """Return the exception that ends this process, which Python records whatever its hooks do.

    At a prompt it is the exception of the last input, and only a KeyboardInterrupt may end the process.
    """
    exception = getattr(sys, "last_exc", getattr(sys, "last_value", None))
    return None if at_prompt and not isinstance(exception, KeyboardInterrupt) else exception


def finish_all() -> None:
    """Finish every open run of this process; bounded, and never raises."""
    at_prompt = hasattr(sys, "ps1")
    exception = _uncaught(at_prompt=at_prompt)
    status = SUCCESS if exception is None else ending.status_after(exception)
    for run in registry.open_runs():
        try:
            if exception is not None and run.is_owner and status == FAILED:
                run.log_error(exception)
                run._reason = f"{type(exception).__name__}: {exception}"  # true, whatever the status becomes
            # After a KeyboardInterrupt Python ends the process by SIGINT: the C library records nothing.
            run._end(status, is_likely=at_prompt or not isinstance(exception, KeyboardInterrupt))
        except Exception:  # the interpreter is ending: no caller is left to handle it
            run._leave()
    ending.see_off()
