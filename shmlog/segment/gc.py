"""What nobody uses any more in shared memory: find and remove it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from shmlog import _core
from shmlog.errors import SegmentError
from shmlog.segment import beacon, meeting, runlock, shm
from shmlog.storage.segmentref import SHARED_MEMORY, SegmentRef

_YOUNG_S = 10

#: Why a file is stale, how those are found, and how one is removed that still is.
_FILES = {
    "lock of a recovery that was killed": (runlock.stale_locks, runlock.remove_lock),
    "list of the runs of a launch that has ended": (meeting.stale_meetings, meeting.remove_meeting),
    "list of the runs of a process that has ended": (beacon.stale, beacon.remove_stale),
}


class Stale(NamedTuple):
    """A segment whose processes are all dead, or a small file of a process or launch that has ended."""

    name: str
    path: Path
    run_dir: Path | None  # None: unknown
    run_id: str
    bytes: int
    reason: str


def find_stale() -> list[Stale]:
    """Return this user's segments that no process holds, and the small files that nobody needs any more."""
    files = [(path, reason) for reason, (find, _) in _FILES.items() for path in find()]
    return [*_stale_segments(), *(Stale(path.name, path, None, "", 0, reason) for path, reason in files)]


def _stale_segments() -> list[Stale]:
    try:
        names = sorted(os.listdir(SHARED_MEMORY))
    except OSError:
        return []
    prefix = shm.PREFIX[1:]
    found = (_examine("/" + name) for name in names if name.startswith(prefix))
    return [stale for stale in found if stale is not None]


def _examine(name: str) -> Stale | None:
    path = SHARED_MEMORY / name[1:]
    try:
        status = path.stat()
        if time.time() - status.st_mtime < _YOUNG_S:
            return None  # perhaps still being made
        used = status.st_blocks * 512
        segment = shm.open_segment(SegmentRef(name, path))
    except OSError as error:
        if isinstance(error, SegmentError) and path.exists() and path.stat().st_uid == os.geteuid():
            return Stale(name, path, None, "", 0, f"not usable: {error}")
        return None
    if segment.probe(_core.LOCK_MEMBER) or segment.probe(_core.LOCK_FLUSHER):
        return None
    run_dir = Path(segment.run_dir) if segment.run_dir else None
    there = run_dir is not None and run_dir.is_dir()
    reason = "its processes are dead" if there else "its processes are dead and its run folder is gone"
    return Stale(name, path, run_dir if there else None, segment.run_id, used, reason)


def remove(stale: Stale) -> None:
    """Remove a segment, whose run is recovered first, since what it holds is lost; or a file that is still stale."""
    if stale.reason in _FILES:
        _FILES[stale.reason][1](stale.path)
    else:
        shm.unlink(SegmentRef(stale.name, stale.path))
