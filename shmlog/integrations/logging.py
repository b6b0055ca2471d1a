"""Python's own logging as a source of a run's structured log."""

from __future__ import annotations

import logging
from typing import Any

import shmlog

_OURS = "shmlog"


class LoggingHandler(logging.Handler):
    """Hand the records of `logging` to the current run, as ``log`` events.

    ``logging.getLogger().addHandler(LoggingHandler())`` is all there is to do, in the process
    that makes the run; forked children have it, a spawned one adds its own. An event has ``level``,
    ``message``, ``logger``, ``file``, ``line`` and, if there is one, the text of the ``exception`` and
    of the ``stack``; a formatter is not asked.

    It never raises into the program. What comes while there is no run is left out, and so is what
    shmlog itself logs, which might be about this very handler's work.

    Parameters
    ----------
    level : int or str
        As for any handler: records below it are left out, besides those that the run's own ``level``
        leaves out.
    run : Run, optional
        A run to log to, whichever is the current one. What comes after its end is counted as dropped.
    """

    def __init__(self, level: int | str = logging.NOTSET, *, run: shmlog.Run | None = None) -> None:
        super().__init__(level)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        if record.name.partition(".")[0] == _OURS:
            return
        try:
            run = self._run if self._run is not None else shmlog.current()
            if run is not None and run.enabled and run.keeps(record.levelno):
                run.event("log", _describe(record), console=False)
        except (shmlog.ShmlogError, RecursionError):
            pass  # no run any more, or no stack left: the program is none the wiser
        except Exception:
            self.handleError(record)  # a mistake in the call, as with any handler: told on standard error


def _describe(record: logging.LogRecord) -> dict[str, Any]:
    data: dict[str, Any] = {
        "level": record.levelname.lower(),
        "message": record.getMessage(),
        "logger": record.name,
        "file": record.pathname,
        "line": record.lineno,
    }
    if record.exc_info and record.exc_info[0] is not None:
        data["exception"] = logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        data["stack"] = record.stack_info
    return data
