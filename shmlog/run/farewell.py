"""A word at the end of a run, on the terminal of the process that has made it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from shmlog.base import variables
from shmlog.base.times import duration
from shmlog.errors import UnreadableError
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.status import SUCCESS


def say(layout: RunLayout, how: str, stats: Mapping[str, Any], *, is_sealed: bool) -> None:
    """Print how a run has ended, in one block, if standard error is a terminal; never raises.

    ``stats`` are those of this process, in case the run goes on for others.
    """
    try:
        if sys.stderr.isatty():
            sys.stderr.write("".join(f"{line}\n" for line in _lines(layout, how, stats, is_sealed)))
            sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # standard error is closed or missing


def is_wanted(quiet: bool | None) -> bool:
    """Whether a run says how it has ended: ``init(quiet=…)``, else ``$SHMLOG_QUIET``."""
    return not (variables.is_set(variables.QUIET) if quiet is None else quiet)


def how_ended(status: str, duration_s: float, reason: str | None, *, is_known: bool) -> str:
    """Return how a run has ended; ``is_known``: no exit code will make another status of it."""
    word = status if is_known or status != SUCCESS else "ended"
    return f"{word} after {duration(duration_s)}{f': {reason}' if reason else ''}"


def _lines(layout: RunLayout, how: str, stats: Mapping[str, Any], is_sealed: bool) -> list[str]:
    place = shlex.quote(_short(str(layout.dir)))
    return [
        f"shmlog: {layout.experiment}/{layout.run_id}: {how}",
        f"  records  {_records(layout, stats)}",
        f"  folder   {layout.dir}",
        f"  look     shmlog show {place}" if is_sealed else f"  not sealed yet: shmlog recover {place}",
    ]


def _records(layout: RunLayout, stats: Mapping[str, Any]) -> str:
    """Return what all processes have logged, or this one, if the run goes on for others."""
    whose = ""
    try:
        description = Description.read(layout)
        counts = description.counts if description.complete is True else None
    except (OSError, UnreadableError):
        counts = None
    if not isinstance(counts, dict):
        counts = {"metrics": stats["logged"], "dropped": sum(stats["dropped"].values())}
        whose = " of this process"
    logged = counts.get("metrics", 0) + counts.get("events", 0)
    return f"{logged:,}{whose}, {counts.get('dropped', 0):,} dropped"


def _short(path: str) -> str:
    try:
        relative = os.path.relpath(path)
    except OSError:  # the current folder is gone
        return path
    return relative if len(relative) < len(path) else path
