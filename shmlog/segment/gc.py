"""What nobody uses any more in shared memory: find and remove it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from shmlog.errors import CorruptDataError, RunNotFoundError, SegmentError
from shmlog.segment import beacon, meeting, runlock, shm
from shmlog.storage import liveness, unbegun
from shmlog.storage.layout import RunLayout
from shmlog.storage.segmentref import SHARED_MEMORY, SegmentRef, read_ref

_YOUNG_S = 10
_ORPHAN_S = 86_400

_UNUSABLE = "not usable"
_NEVER_WHOLE = "its process was killed before it was whole"
_UNBEGUN = "its process was killed before the run began"
_ORPHANED = "its processes are dead and its run folder is gone"

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
    found = (_examine(ref) for ref in _own_segments())
    return [stale for stale in found if stale is not None]


def _own_segments() -> Iterator[SegmentRef]:
    """Yield this user's segments in shared memory but those that are perhaps still being made."""
    for path in sorted(SHARED_MEMORY.glob(f"{shm.PREFIX[1:]}*")):
        try:
            status = path.lstat()
        except OSError:
            continue
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if is_ours and time.time() - status.st_mtime > _YOUNG_S:
            yield SegmentRef(f"/{path.name}", path)


def _examine(ref: SegmentRef) -> Stale | None:
    if liveness.is_in_use(ref.path):  # asked of the file alone: one of another version can't be opened
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
    run_dir = Path(segment.run_dir)
    if not segment.run_dir or not run_dir.is_dir():
        return Stale(name, ref.path, None, segment.run_id, used, _ORPHANED)
    if not _is_known(RunLayout(run_dir), ref):
        return Stale(name, ref.path, None, segment.run_id, used, _UNBEGUN)
    return Stale(name, ref.path, run_dir, segment.run_id, used, "its processes are dead")


def _is_known(layout: RunLayout, ref: SegmentRef) -> bool:
    """Whether a run has got as far as to name its segment, or that can't be told."""
    try:
        return read_ref(layout) == ref
    except RunNotFoundError:
        return not unbegun.is_unbegun(layout)
    except (CorruptDataError, OSError):
        return True


def remove(stale: Stale) -> None:
    """Remove a segment, whose run is recovered first, since what it holds is lost; or a file that is still stale.

    Raises
    ------
    SegmentError
        If it can't be opened and so may hold records that are nowhere else. It is kept.
    """
    if stale.reason in _FILES:
        _FILES[stale.reason][1](stale.path)
    elif stale.reason.startswith(_UNUSABLE):
        raise SegmentError(
            f"{stale.reason}; 'shmlog recover' with the version that made it brings in what it holds, "
            f"'shmlog recover --force RUN' or rm {stale.path} gives that up"
        )
    else:
        ref = SegmentRef(stale.name, stale.path)
        if stale.reason == _UNBEGUN:
            unbegun.remove_folder(RunLayout(shm.open_segment(ref).run_dir))
        shm.unlink(ref)


# ---- what is removed without being asked ----


def sweep(report: Callable[[str], None]) -> None:
    """Remove the segments of this user that belong to no run: those of an `init` that was killed, and orphans.

    The folder of an orphan's run may have been moved, or lie where this container does not see it. Therefore an
    orphan is marked when it is first met, and goes a day later.
    """
    for ref in _own_segments():
        try:
            _sweep(ref, report)
        except OSError as error:
            report(f"{ref.path}: {error}")


def _sweep(ref: SegmentRef, report: Callable[[str], None]) -> None:
    stale = _examine(ref)
    if stale is None or stale.reason not in (_NEVER_WHOLE, _UNBEGUN, _ORPHANED):
        return
    if stale.reason == _ORPHANED and not _is_marked_for_long(ref.path):
        return
    remove(stale)
    report(f"{ref.path}: removed: {stale.reason}")


def _is_marked_for_long(path: Path) -> bool:
    """Whether an orphan was marked a day ago; it is marked now if it is not. The mark is the sticky bit."""
    status = path.stat()
    if not status.st_mode & stat.S_ISVTX:
        path.chmod(stat.S_IMODE(status.st_mode) | stat.S_ISVTX)
        return False
    return time.time() - status.st_ctime > _ORPHAN_S
