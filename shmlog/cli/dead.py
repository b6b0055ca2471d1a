"""Runs that a reader meets and whose processes have all died: they are recovered before they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from shmlog.cli.output import say
from shmlog.cli.text import relative
from shmlog.errors import CorruptDataError
from shmlog.folder import liveness
from shmlog.folder.layout import RunLayout


def recover_dead(run_dirs: Iterable[Path]) -> bool:
    """Recover those of this user's runs that are known to be dead, in processes of their own, and say so.

    Returns whether there were any. What can't be recovered is shown as it is.
    """
    dead = [layout for layout in map(RunLayout, run_dirs) if _is_dead(layout)]
    for layout in dead:
        _recover(layout)
    return bool(dead)


def _is_dead(layout: RunLayout) -> bool:
    try:
        return liveness.is_abandoned(layout)
    except (CorruptDataError, OSError):
        return False  # the reader tells what is wrong with it


def _recover(layout: RunLayout) -> None:
    from shmlog.flusher.process import recover_apart

    problem = recover_apart(layout)
    name = relative(layout.dir)
    if problem is None:
        say(f"shmlog: recovered {name}: its processes had died before it was closed")
    else:
        say(f"shmlog: warning: can't recover {name}: {problem}")
