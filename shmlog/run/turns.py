"""The n-th `init` of this process in an experiment: a run of its own, or one that it shares with other ranks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shmlog.folder.segmentref import MEETING_PREFIX, SHARED_MEMORY, names_in
from shmlog.run.identity import lone_local_rank, rank_among_several
from shmlog.run.run import Run
from shmlog.segment import beacon

if TYPE_CHECKING:
    from shmlog.folder.layout import RunLayout

# How many runs this process has made or joined in an experiment. A forked child begins anew.
_turns: dict[tuple[int, Path, str], int] = {}


class Makers(NamedTuple):
    """How runs of one experiment come to be."""

    make: Callable[[int], Run]  # one that no rank of this launch has made yet, in a turn
    next_attempt: Callable[[RunLayout, int], Run | None]  # of one whose ranks were started anew; None if it is finished


def take_turn(root: Path, experiment: str, makers: Makers) -> Run:
    """Return the run that another rank of this launch has made in this turn, or else make one."""
    key = (os.getpid(), root, experiment)
    turn = _turns.get(key, 0) + 1
    _sweep()
    is_rank = rank_among_several() is not None or lone_local_rank() is not None
    run = _meet_others(root, experiment, turn, makers) if is_rank else makers.make(turn)
    _turns[key] = turn
    return run


def _meet_others(root: Path, experiment: str, turn: int, makers: Makers) -> Run:
    from shmlog.run.rendezvous import meet  # slow to import, and for ranks alone

    return meet(root, experiment, turn, makers)


def _sweep() -> None:
    """Remove what launches and processes that have ended have left in shared memory."""
    if names_in(SHARED_MEMORY, MEETING_PREFIX):
        from shmlog.segment import meeting  # as above

        meeting.sweep()
    beacon.sweep()
