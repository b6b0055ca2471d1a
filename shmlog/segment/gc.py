"""Segments that nobody uses any more: find and remove them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

from shmlog import _core
from shmlog.errors import SegmentError
from shmlog.segment import shm
from shmlog.storage.segmentref import SHARED_MEMORY, SegmentRef

_YOUNG_S = 10


class StaleSegment(NamedTuple):
    """A segment whose processes are all dead."""

    name: str
    path: Path
    run_dir: Path | None  # None: unknown
    run_id: str
    bytes: int
    reason: str


def stale_segments() -> list[StaleSegment]:
    """Return this user's segments in shared memory that no process holds."""
    try:
        names = sorted(os.listdir(SHARED_MEMORY))
    except OSError:
        return []
    prefix = shm.PREFIX[1:]
    found = (_examine("/" + name) for name in names if name.startswith(prefix))
    return [stale for stale in found if stale is not None]


def _examine(name: str) -> StaleSegment | None:
    path = SHARED_MEMORY / name[1:]
    try:
        status = path.stat()
        if time.time() - status.st_mtime < _YOUNG_S:
            return None  # perhaps still being made
        used = status.st_blocks * 512
        segment = shm.open_segment(SegmentRef(name, path))
    except OSError as error:
        if isinstance(error, SegmentError) and path.exists() and path.stat().st_uid == os.geteuid():
            return StaleSegment(name, path, None, "", 0, f"not usable: {error}")
        return None
    if segment.probe(_core.LOCK_MEMBER) or segment.probe(_core.LOCK_FLUSHER):
        return None
    run_dir = Path(segment.run_dir) if segment.run_dir else None
    there = run_dir is not None and run_dir.is_dir()
    reason = "its processes are dead" if there else "its processes are dead and its run folder is gone"
    return StaleSegment(name, path, run_dir if there else None, segment.run_id, used, reason)


def remove(stale: StaleSegment) -> None:
    """Remove a stale segment. Recover its run first: what it holds is lost."""
    shm.unlink(SegmentRef(stale.name, stale.path))
