"""Calls without a run.

They go to the run that was made last in their thread or task; without one, to the only run that this
process has open; in a process that has made no run, to the run of the process that started it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from shmlog._core import Metric
from shmlog.errors import RunStateError
from shmlog.folder.layout import RunLayout
from shmlog.folder.logsettings import LogSettings
from shmlog.run import follow, late, mode, registry
from shmlog.run.handed import Handed, handed_down
from shmlog.run.join import join_entry, join_handed
from shmlog.run.run import Run
from shmlog.segment.beacon import BeaconEntry

if TYPE_CHECKING:
    from shmlog._core import Timestamp

_followed: Run | None = None  # the parent's run to which calls went last
_said_no_run = False


class Meant(NamedTuple):
    """The run that a call means: an open run, an ended one, the newest of several possible ones, or no run."""

    run: Run | None = None
    ended: Run | None = None
    several: RunLayout | None = None


_NONE = Meant()


def current() -> Run | None:
    """Return the run to which a call without a run goes; None if there is no run, or several are possible.

    In a process that has made no run, it is the run of the process that started it.
    """
    return find().run


@overload
def log(name: str, value: Any, step: int | None = None, *, timestamp: Timestamp | None = None) -> None: ...
@overload
def log(metrics: dict[str, Any], step: int | None = None, *, timestamp: Timestamp | None = None) -> None: ...
def log(*args: Any, **kwargs: Any) -> None:
    """Log one metric, or several as ``log(metrics, step=None, *, timestamp=None)``, to the current run: see `Run.log`.

    Without a run it does nothing; with ``SHMLOG_MODE=strict`` it raises.
    """
    made = registry.made.get()
    run = made[-1] if made else registry.sole()
    if run is None or not run._is_live:
        run = _run_for(args[0] if args else kwargs.get("metrics"))
    if run is not None:
        run.log(*args, **kwargs)


def _log(name: str, value: Any = ..., step: int | None = None, *, timestamp: Timestamp | None = None) -> None:
    """Show how `log` is called: it hands its arguments on as they are, since that is faster."""


vars(log)["__wrapped__"] = _log  # where `help` and others look for the arguments


def event(event_type: str, data: Mapping[str, Any] | None = None) -> None:
    """Log a structured event to the current run: see `Run.event`. Without a run it does nothing."""
    run = _run_for(None)
    if run is not None:
        run.event(event_type, data)


def metric(name: str) -> Metric:
    """Return the handle of a metric in the current run: see `Run.metric`.

    Without a run, the handle is bound at its first use while there is a run; until then it does nothing.
    """
    run = find().run
    return (_unbound if run is None else run).metric(name)


def finish(status: str = "success", reason: str | None = None) -> bool:
    """Finish the current run: see `Run.finish`. True if there is no run."""
    run = find().run
    return True if run is None else run.finish(status, reason)


# ---- which run ----


def find() -> Meant:
    """Return the run that a call without a run means now."""
    made = registry.made.get()
    for run in reversed(made):
        if run.is_open:
            return Meant(run)
    last = made[-1] if made else None
    meant = _own(last)
    if meant is None:
        meant = _parents(None if last is None or last._was_ours else last)
    if meant == _NONE:
        ended = last or registry.last_closed()
        meant = Meant(ended=ended)
    return meant


def _own(last: Run | None) -> Meant | None:
    """Return which of the runs that this process owns is meant; None if it has no open run."""
    runs = [run for run in registry.open_runs() if run.is_owner and run.is_open]
    if not runs:
        return None
    if last is not None and last._was_ours:
        return Meant(ended=last)  # a thread or task that had its own run does not use runs of others
    return Meant(runs[0]) if len(runs) == 1 else Meant(several=runs[0]._layout)


def _parents(last: Run | None) -> Meant:
    """Return which run of the process that started this one, or sent it a handle, is meant."""
    global _followed
    if last is None and _followed is not None:
        if _followed.is_open:
            return Meant(_followed)
        last = _followed
    meant = _next_of(last) if last is not None else _first()
    if meant.run is not None:
        _followed = meant.run
        registry.follow(meant.run)
    return _sent() if meant == _NONE else meant


def _sent() -> Meant:
    """Return which run is meant in a process that knows runs only by handles sent from other processes."""
    runs = [run for run in registry.open_runs() if not run.is_owner and not run._disabled]
    open_runs = [run for run in runs if run.is_open]
    if len(open_runs) > 1:
        return Meant(several=open_runs[0]._layout)
    if open_runs:
        return Meant(open_runs[0])
    return _next_of(runs[0]) if runs else _NONE


def _next_of(last: Run) -> Meant:
    place = follow.surrounding(last) or follow.successor(last)
    run = join_entry(*place) if place else None
    return Meant(run) if run is not None else Meant(ended=last)


def _first() -> Meant:
    """Return which run is meant in a process that has had no run yet."""
    if mode.is_disabled(None):
        return _NONE
    handed = handed_down()
    if handed is None:
        place = follow.of_ancestors()
        return _choose(*place, None) if place else _NONE
    if handed.is_disabled:
        return _NONE
    entries = follow.entries_of(handed.beacon) if handed.beacon else []
    same = [entry for entry in entries if handed.layout and entry.run_dir == str(handed.layout.dir)]
    return _choose(handed.beacon, same or entries, handed)


def _choose(name: str | None, entries: list[BeaconEntry], handed: Handed | None) -> Meant:
    if len(entries) > 1:
        return Meant(several=RunLayout(entries[-1].run_dir))
    run = join_entry(name, entries[0]) if name and entries else None
    if run is None and handed is not None and handed.layout is not None:
        run = join_handed(handed)
    return Meant(run) if run is None or run.is_open else Meant(ended=run)


def is_off() -> bool:
    """Whether the run of this process, or of the one that started it, is disabled."""
    made = registry.made.get()
    if made:
        return made[-1]._disabled
    handed = handed_down()
    return handed is not None and handed.is_disabled


# ---- no run ----


def _run_for(metrics: Any) -> Run | None:
    """Return the run that logs a call, or counts it as dropped, with its dict if it has one; None: no run does."""
    meant = find()
    run = _run_of(meant)
    if run is None:
        _drop(meant, _records(metrics) if isinstance(metrics, dict) else 1)
    return run


def _records(metrics: dict[str, Any]) -> int:
    return sum(_records(value) if isinstance(value, dict) else value is not None for value in metrics.values())


def _run_of(meant: Meant) -> Run | None:
    if meant.run is None and mode.is_strict():
        raise RunStateError("there is no run: call shmlog.init() first, or shmlog.attach(run_dir) (SHMLOG_MODE=strict)")
    return meant.run or meant.ended


def _drop(meant: Meant, records: int) -> None:
    if meant.several is not None:
        late.drop_ambiguous(meant.several, records)
    else:
        _say_no_run()


def _say_no_run() -> None:
    global _said_no_run
    if not _said_no_run:
        _said_no_run = True
        import logging

        logging.getLogger("shmlog").debug("there is no run: what process %d logs goes nowhere", os.getpid())


class _Unbound(Run):
    """Stands in for a run while there is none: each call goes to the run that is current then."""

    def __init__(self) -> None:
        # Absolute: a process may have no current folder.
        super().__init__(RunLayout("/no-run"), None, log_settings=LogSettings())

    def __reduce__(self) -> tuple[Any, ...]:
        return unbound_run, ()

    def _next(self) -> Run | None:
        return _run_of(find())

    def _count_late(self, records: int) -> None:
        _drop(find(), records)

    def _skip(self, name: str) -> None:
        """Do not warn: the run that the call goes to does."""

    def _first_drop(self, reason: str) -> None:
        """Do not warn: there is no run, or the warning was given already."""


_unbound = _Unbound()


def unbound_run() -> Run:
    """Return the object that stands in for a run while there is none."""
    return _unbound
