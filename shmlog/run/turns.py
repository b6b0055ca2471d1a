"""The n-th `init` of this process in an experiment: a run of its own, or one that it shares with other ranks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import MEETING_PREFIX, SHARED_MEMORY, names_in
from shmlog.run.run import Run
from shmlog.segment import beacon

# How many runs this process has made or joined in an experiment. A forked child begins anew.
_turns: dict[tuple[int, Path, str], int] = {}


class Makers(NamedTuple):
    """How runs of one experiment come to be."""

    make: Callable[[int], Run]  # one that no rank of this launch has made yet, in a turn
    next_attempt: Callable[[RunLayout, int], Run | None]  # of one whose ranks were started anew; None if it is finished


def take_turn(root: Path, experiment: str, run_of: Callable[[int], Run]) -> Run:
    """Return the run of this process's next turn in an experiment."""
    key = (os.getpid(), root, experiment)
    turn = _turns.get(key, 0) + 1
    _sweep()
    run = run_of(turn)
    _turns[key] = turn
    return run


def _sweep() -> None:
    """Remove what launches and processes that have ended have left in shared memory."""
    if names_in(SHARED_MEMORY, MEETING_PREFIX):
        from shmlog.segment import meeting  # slow to import, and for ranks alone

        meeting.sweep()
    beacon.sweep()
