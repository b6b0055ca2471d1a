"""Find and remove unused segments and small files in shared memory."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from shmlog import _core
from shmlog.errors import RunNotFoundError, SegmentError, UnreadableError
from shmlog.folder import liveness, unbegun
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import SHARED_MEMORY, SegmentRef, read_ref
from shmlog.segment import beacon, doorbell, meeting, runlock, shm

_YOUNG_S = 10
_ORPHAN_S = 86_400
_ORPHAN_WITH_RECORDS_S = 30 * _ORPHAN_S

_UNUSABLE = "not usable"
_NEVER_WHOLE = "its process was killed before it was whole"
_UNBEGUN = "its process was killed before the run began"
_ORPHANED = "its processes are dead and its run folder is gone"
_ORPHANED_WITH_RECORDS = f"{_ORPHANED}; it holds records that are nowhere else"
_UNKNOWN = "its processes are dead; the place of its run folder is not known"

#: By reason why files are stale: the function that finds them, and the one that removes one if it is still stale.
_FILES = {
    "lock of a recovery that was killed": (runlock.stale_locks, runlock.remove_lock),
    "list of the runs of a launch that has ended": (meeting.stale_meetings, meeting.remove_meeting),
    "list of the runs of a process that has ended": (beacon.stale, beacon.remove_stale),
    "doorbell of a segment that is gone": (doorbell.stale, doorbell.remove_stale),
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
    """Return this user's segments that no process holds, and the small files that no process needs."""
    files = [(path, reason) for reason, (find, _) in _FILES.items() for path in find()]
    return [*_stale_segments(), *(Stale(path.name, path, None, "", 0, reason) for path, reason in files)]


def _stale_segments() -> list[Stale]:
    segments = (_examine(ref) for ref in _own_segments())
    return [stale for stale in segments if stale is not None]


def _own_segments() -> Iterator[SegmentRef]:
    """Yield this user's segments in shared memory, except those that may still be in the making."""
    for path in sorted(SHARED_MEMORY.glob(f"{shm.PREFIX[1:]}*")):
        try:
            status = path.lstat()
        except OSError:
            continue
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if is_ours and time.time() - status.st_mtime > _YOUNG_S:
            yield SegmentRef(f"/{path.name}", path)


def _examine(ref: SegmentRef) -> Stale | None:
    if liveness.is_in_use(ref.path):  # checks the file alone: a segment of another version can't be opened
        return None
    name = str(ref.name)
    try:
        used = ref.path.stat().st_blocks * 512
        segment = shm.open_segment(ref)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = f"{_UNUSABLE}: {error}" if shm.may_hold_records(ref) else _NEVER_WHOLE
        return Stale(name, ref.path, None, "", 0, reason)
    if not segment.run_dir:  # too long for the header
        return Stale(name, ref.path, None, segment.run_id, used, _UNKNOWN)
    run_dir = Path(segment.run_dir)
    if _is_gone(run_dir):
        reason = _ORPHANED_WITH_RECORDS if _holds_records(segment) else _ORPHANED
        return Stale(name, ref.path, None, segment.run_id, used, reason)
    if not _is_known(RunLayout(run_dir), ref):
        return Stale(name, ref.path, None, segment.run_id, used, _UNBEGUN)
    return Stale(name, ref.path, run_dir, segment.run_id, used, "its processes are dead")


def _is_gone(run_dir: Path) -> bool:
    """Whether a folder certainly does not exist: a disk that fails is no evidence of that."""
    try:
        os.stat(run_dir)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _holds_records(segment: _core.Segment) -> bool:
    """Whether a lane has records that were not drained."""
    lanes = map(segment.lane, range(segment.lanes))
    return any(lane["head"] > lane["tail"] for lane in lanes)


def _is_known(layout: RunLayout, ref: SegmentRef) -> bool:
    """Whether run.yaml names the segment, or that is unknown."""
    try:
        return read_ref(layout) == ref
    except RunNotFoundError:
        return not unbegun.is_unbegun(layout)
    except (UnreadableError, OSError):
        return True


def remove(stale: Stale) -> None:
    """Remove a segment, or a file if it is still stale. Recover the segment's run first: its records are lost.

    Raises
    ------
    SegmentError
        If a segment can't be opened and so may hold records that are nowhere else. It is kept.
    """
    if stale.reason in _FILES:
        _FILES[stale.reason][1](stale.path)
    elif stale.reason.startswith(_UNUSABLE):
        raise SegmentError(
            f"{stale.reason}; 'shmlog recover' with the version that made it saves its records, "
            f"'shmlog recover --force RUN' or rm {stale.path} gives them up"
        )
    else:
        ref = SegmentRef(stale.name, stale.path)
        if stale.reason == _UNBEGUN:
            unbegun.remove_folder(RunLayout(shm.open_segment(ref).run_dir))
        shm.unlink(ref)


# ---- what a flusher removes by itself ----


def sweep(report: Callable[[str], None]) -> None:
    """Remove the segments of this user that belong to no run: those of a killed `init`, and orphans.

    The run folder of an orphan may have been moved, or lie where this container does not see it. Therefore an
    orphan is first marked, and removed only when its folder has not been seen for a day, or for thirty days if it
    holds records.
    """
    for ref in _own_segments():
        try:
            _sweep(ref, report)
        except OSError as error:
            report(f"{ref.path}: {error}")


def _sweep(ref: SegmentRef, report: Callable[[str], None]) -> None:
    stale = _examine(ref)
    patience_s = _PATIENCE_S.get(stale.reason) if stale is not None else None
    is_orphan = patience_s is not None and patience_s > 0
    marked_s = _mark(ref.path, is_orphan)
    if stale is None or patience_s is None or marked_s < patience_s:
        return
    remove(stale)
    report(f"{ref.path}: removed: {stale.reason}")


#: By reason, how long a segment is left alone; segments with other reasons stay until a user removes them.
_PATIENCE_S = {_NEVER_WHOLE: 0, _UNBEGUN: 0, _ORPHANED: _ORPHAN_S, _ORPHANED_WITH_RECORDS: _ORPHAN_WITH_RECORDS_S}


def _mark(path: Path, is_orphan: bool) -> float:
    """Mark an orphan, or unmark any other segment; return for how many seconds it has been marked.

    The mark is the sticky bit.
    """
    status = path.stat()
    is_marked = bool(status.st_mode & stat.S_ISVTX)
    if is_marked != is_orphan:
        path.chmod(stat.S_IMODE(status.st_mode) ^ stat.S_ISVTX)
    return time.time() - status.st_ctime if is_marked and is_orphan else 0.0
