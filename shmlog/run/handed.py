"""How a process hands its run down to the programs that it starts.

The environment reaches every kind of child except children of a forkserver that was started earlier; those are
reached by the configuration that multiprocessing hands down to each process. Both are withdrawn when the
run ends, so that a program started afterwards joins no run.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

from shmlog import _core
from shmlog.errors import RunNotFoundError
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import SegmentRef, make_ref
from shmlog.run import registry

VARIABLE = "SHMLOG_RUN"
DISABLED = "disabled"
"""The value handed down for a run whose calls do nothing."""
_FILE = "file"  # in the place of the segment's name: the segment is a file in the run folder
_SEVERAL = "several"  # in the same place: several runs could be meant
_WITHDRAWN = ""  # not removed, since a forkserver may have an environment from before

# Our pid, and the values that were handed down to us; None: we hand down no run of our own.
_before: tuple[int, str | None, str | None] | None = None


class Handed(NamedTuple):
    """The run that our parent has handed down."""

    layout: RunLayout | None  # None: no run, or one of several
    ref: SegmentRef | None
    beacon: str | None
    is_disabled: bool = False


def handed_down() -> Handed | None:
    """Return the run that our parent has handed down, or None.

    Raises
    ------
    RunNotFoundError
        If ``$SHMLOG_RUN`` is not of the form ``segment@beacon:folder``.
    """
    value = _config().get(VARIABLE)
    if value is None:
        value = _core.variable(VARIABLE)
    return _parse(value) if value else None


def hand_down() -> None:
    """Hand the newest open run down to children, if it is the only one or was made within the others."""
    with registry.guard.lock:
        _hand_down()


def _hand_down() -> None:
    global _before
    runs = [run for run in registry.open_runs() if run.is_owner or run._disabled]
    is_set = _before is not None and _before[0] == os.getpid()
    if runs and not is_set:
        _before = os.getpid(), os.environ.get(VARIABLE), _config().get(VARIABLE)
    if runs:
        value = _value(runs)
        _set(os.environ, value)
        _set(_config(), value)
    elif is_set and _before is not None:
        _set(os.environ, _before[1])
        _set(_config(), _before[2] or _WITHDRAWN)
        _before = None


def _value(runs: list[Any]) -> str:
    newest = runs[0]
    if newest._disabled:
        return DISABLED
    around = {run._entry.begun for run in runs[1:] if run._entry is not None}
    if around <= set(newest._entry.under):
        return f"{newest._ref.name or _FILE}@{newest._beacon}:{newest.dir}"
    return f"{_SEVERAL}@{newest._beacon}:"


def _set(place: Any, value: str | None) -> None:
    if value is None:
        place.pop(VARIABLE, None)
    else:
        place[VARIABLE] = value


def _config() -> dict[str, Any]:
    process: Any = sys.modules.get("multiprocessing.process")
    config: dict[str, Any] = process.current_process()._config if process is not None else {}
    return config


def _parse(value: str) -> Handed:
    if value == DISABLED:
        return Handed(None, None, None, is_disabled=True)
    head, colon, run_dir = value.partition(":")
    name, _, beacon = head.partition("@")
    if not colon or not name or "\0" in value or (not run_dir and name != _SEVERAL):
        raise RunNotFoundError(
            f"${VARIABLE} is {value!r}; expected 'segment@beacon:run folder', as shmlog.init sets it"
        )
    if name == _SEVERAL:
        return Handed(None, None, beacon or None)
    layout = RunLayout(run_dir)
    return Handed(layout, make_ref(layout, None if name == _FILE else name), beacon or None)
