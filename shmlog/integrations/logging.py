"""Python's own logging as a source of a run's structured log."""

from __future__ import annotations

import logging
from typing import Any

import shmlog

_OURS = "shmlog"


class LoggingHandler(logging.Handler):
    """Hand the records of `logging` to the current run, as ``log`` events.

    Call ``logging.getLogger().addHandler(LoggingHandler())`` in the process that makes the run;
    forked children inherit the handler, a spawned one adds its own. An event has ``level``,
    ``message``, ``logger``, ``file``, ``line`` and, if there is one, the text of the ``exception`` and
    of the ``stack``; formatters are not used.

    It never raises into the program. Records that come while there is no run are left out, and so are
    those of shmlog itself, which might be about this very handler's work.

    Parameters
    ----------
    level : int or str
        As for any handler: records below it are left out, besides those that the run's own ``level``
        leaves out.
    run : Run, optional
        The run to log to, instead of the current one. Records after its end are counted as dropped.
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
            pass  # the run has ended, or no stack is left: the program must not notice
        except Exception:
            self.handleError(record)  # a mistake in the call: reported on standard error, as by any handler


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
