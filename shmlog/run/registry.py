"""The runs that this process has open, and which of them is current."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shmlog.run.run import Run

_open: dict[str, Run] = {}
_finished = False


def remember(run: Run) -> None:
    """Make ``run`` the current one."""
    _open.pop(str(run.dir), None)
    _open[str(run.dir)] = run


def forget(run: Run) -> None:
    """Take ``run`` off the list; the one opened before it becomes current."""
    global _finished
    if _open.get(str(run.dir)) is run:
        del _open[str(run.dir)]
        _finished = True


def has_finished() -> bool:
    """Whether this process has finished a run: then it does not attach by itself."""
    return _finished


def current() -> Run | None:
    """Return the run opened last and not finished."""
    return next(reversed(_open.values()), None)


def find(run_dir: str) -> Run | None:
    """Return this process's open run in that folder."""
    return _open.get(run_dir)


def open_runs() -> list[Run]:
    """Return all open runs, the current one first."""
    return list(reversed(_open.values()))


def reopen(run_dir: str, name: str | None) -> Run:
    """Return the run that was pickled, attached to in this process.

    If it has ended, the result drops and counts: unpickling must not end a worker.
    """
    from shmlog.run.attach import reopen_or_closed

    return reopen_or_closed(run_dir, name)
