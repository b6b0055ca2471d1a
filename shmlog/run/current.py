"""The calls that go to the current run; in a child, the first of them attaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shmlog._core import Metric
from shmlog.errors import RunStateError
from shmlog.run import registry
from shmlog.run.attach import attach, published
from shmlog.run.run import Run


def current() -> Run | None:
    """Return the current run, or None. Attaches to ``$SHMLOG_RUN`` if there is none yet."""
    run = registry.current()
    if run is None and published() and not registry.has_finished():
        run = attach()
    return run


def _require() -> Run:
    run = current()
    if run is None:
        raise RunStateError("there is no current run: call shmlog.init() first, or shmlog.attach(run_dir)")
    return run


def log(*args: Any, **kwargs: Any) -> None:
    """Log to the current run: see `Run.log`.

    Raises
    ------
    RunStateError
        If there is no current run.
    """
    _require().log(*args, **kwargs)


def metric(name: str) -> Metric:
    """Return the handle of a metric in the current run: see `Run.metric`."""
    return _require().metric(name)


def event(event_type: str, data: Mapping[str, Any] | None = None) -> None:
    """Log a structured event to the current run: see `Run.event`."""
    _require().event(event_type, data)


def finish(status: str = "success") -> bool:
    """Finish the current run: see `Run.finish`. True if there is none."""
    run = registry.current()
    return True if run is None else run.finish(status)
