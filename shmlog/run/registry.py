"""The open runs of this process, and the runs made in each thread or task."""

from __future__ import annotations

from contextvars import ContextVar

from shmlog.run.run import Run
from shmlog.segment.guard import Guard

guard = Guard()
"""Held while the list, or the run handed down, changes: several threads make and finish runs."""

_open: dict[str, Run] = {}
_last_closed: Run | None = None

#: The runs made in this thread or task, each within the one before it; the last one stays after its end.
made: ContextVar[tuple[Run, ...]] = ContextVar("shmlog_made", default=())


def remember(run: Run, *, current: bool) -> None:
    """Put ``run`` on the list; ``current``: it becomes the run of this thread or task."""
    with guard.lock:
        _open.pop(str(run.dir), None)
        _open[str(run.dir)] = run
    if current:
        made.set((*(other for other in made.get() if other.is_open), run))


def forget(run: Run) -> None:
    """Remove ``run`` from the list."""
    global _last_closed
    with guard.lock:
        if _open.get(str(run.dir)) is run:
            del _open[str(run.dir)]
            _last_closed = run


def forget_ended() -> None:
    """Remove ended runs of other processes from the list, since a later run of one has come."""
    for run in open_runs():
        if not run.is_owner and not run.is_open:
            with guard.lock:
                if _open.get(str(run.dir)) is run:
                    del _open[str(run.dir)]


def last_closed() -> Run | None:
    """Return the last closed run, if this process owned it."""
    return _last_closed if _last_closed is not None and _last_closed.is_owner else None


def follow(run: Run) -> None:
    """Replace the runs made in this thread or task, if any, by the run that follows them."""
    if made.get():
        made.set((run,))


def find(run_dir: str) -> Run | None:
    """Return this process's open run in that folder, or None."""
    return _open.get(run_dir)


def sole() -> Run | None:
    """Return the run that this process owns, if it is the only one on the list."""
    for run in _open.values():
        return run if len(_open) == 1 and run.is_owner else None
    return None


def open_runs() -> list[Run]:
    """Return all open runs, the newest first."""
    return list(reversed(_open.values()))
