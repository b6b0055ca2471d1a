"""What a user is told of the first record that is dropped: why, and what helps."""

from __future__ import annotations

import os
from typing import NamedTuple

from shmlog.errors import log_warning
from shmlog.folder.layout import RunLayout


class _Why(NamedTuple):
    """What has happened, and what the user can do."""

    cause: str
    remedy: str


_WHY = {
    "full": _Why(
        "records come faster than its flusher takes them, and there was no room for one in time",
        "log less often, or make the run with a larger lane_records= or a longer max_wait=",
    ),
    "names": _Why(
        "its table of 16,384 metric names is full",
        "put what varies, such as a step or a file, into the value or the step, not into the name",
    ),
    "large": _Why(
        "a text was too large for shared memory, and could not be written to a file of its own",
        "look at the disk of the run's folder: its room, and who may write there",
    ),
    "lane": _Why(
        "this process got no lane in its shared memory",
        "make the run with a larger lanes=, or give /dev/shm more room; the user must be the one that made the run",
    ),
    "closed": _Why(
        "the run has ended",
        "log before finish() is called or the process that made the run ends, or start the next run with init()",
    ),
    "disk": _Why(
        "its log can't be written, and there was no more room in shared memory",
        "free some room on the disk of the run's folder: then it goes on by itself",
    ),
}


def warn_of_drop(layout: RunLayout, reason: str) -> None:
    """Warn that this process has dropped a record of a run."""
    why = _WHY[reason]
    who = f"run {layout.experiment}/{layout.run_id} dropped a record of process {os.getpid()}"
    told = f"shmlog: {who}: {why.cause} (reason: {reason}). What helps: {why.remedy}. Further drops are only counted"
    log_warning("%s, see Run.stats", told)
