"""How the process ends, for runs that nobody finished.

When Python comes to its end, an uncaught exception can be seen, but not the number that the process exits with, nor
whether anything else happens meanwhile. So the run gets a status then that is only likely, and the C library tells
the true one when the process is through: csrc/core/exits.c.
"""

from __future__ import annotations

import atexit
import sys

from shmlog.folder.status import FAILED, SUCCESS
from shmlog.run import ending, registry

_watching = False


def watch() -> None:
    """Have the runs of this process finished at its exit. Once per process."""
    global _watching
    if not _watching:
        _watching = True
        atexit.register(finish_all)


def _uncaught(*, at_prompt: bool) -> BaseException | None:
    """Return the exception that this process is ending by, as Python notes it whatever the hooks for it do.

    At a prompt it is of what was typed last, and only a KeyboardInterrupt may end the process.
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
            # After a KeyboardInterrupt Python has SIGINT end the process: the C library has nothing to tell.
            run._end(status, is_likely=at_prompt or not isinstance(exception, KeyboardInterrupt))
        except Exception:  # the interpreter is ending: nobody is left to hear of it
            run._leave()
    ending.see_off()
