"""The n-th `init` of this process in an experiment: its own run, or one that it shares with other ranks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import MEETING_PREFIX, SHARED_MEMORY, names_in
from shmlog.run.run import Run
from shmlog.segment import beacon

# The number of runs that this process has made or joined in an experiment. A forked child begins anew.
_turns: dict[tuple[int, Path, str], int] = {}


class Makers(NamedTuple):
    """The functions that make runs of one experiment."""

    make: Callable[[int], Run]  # makes a new run in a turn
    next_attempt: Callable[
        [RunLayout, int], Run | None
    ]  # of a run whose ranks were restarted; None if it has succeeded


def take_turn(root: Path, experiment: str, run_of: Callable[[int], Run]) -> Run:
    """Return the run of this process's next turn in an experiment."""
    key = (os.getpid(), root, experiment)
    turn = _turns.get(key, 0) + 1
    _sweep()
    run = run_of(turn)
    _turns[key] = turn
    return run


def _sweep() -> None:
    """Remove files of ended launches and processes from shared memory."""
    if names_in(SHARED_MEMORY, MEETING_PREFIX):
        from shmlog.segment import meeting  # slow to import, and for ranks alone

        meeting.sweep()
    beacon.sweep()
