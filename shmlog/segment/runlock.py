"""The lock under which a run without processes is changed: a file that is there only meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shmlog.folder import flock
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import SHARED_MEMORY
from shmlog.segment.lockfile import hold

_PREFIX = "shmlog.recover-"


def lock_path(layout: RunLayout) -> Path:
    """Return the file whose lock lets one process recover a run: on no network file system."""
    status = layout.dir.stat()
    return _folder() / f"{_PREFIX}{os.geteuid()}-{status.st_dev:x}-{status.st_ino:x}"


def _folder() -> Path:
    return SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path("/tmp")


@contextmanager
def locked(layout: RunLayout, *, everywhere: bool = False) -> Iterator[None]:
    """Hold the lock of a run.

    Parameters
    ----------
    everywhere : bool
        Whether others must be kept out who have another shared memory: the other containers of this kernel.

    Raises
    ------
    LockError
        If they can't be, as on a network file system.
    RunStateError
        If somebody holds it for long: who recovers the run, or anybody who may read its folder.
    SegmentError
        If another user has put something in the place of the lock.
    """
    with flock.folder_locked(layout.dir, must=everywhere), _file_locked(layout):
        yield


@contextmanager
def _file_locked(layout: RunLayout) -> Iterator[None]:
    path = lock_path(layout)
    fd = hold(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        flock.release(fd)


# ---- what is left of those that were killed ----


def stale_locks() -> list[Path]:
    """Return the lock files of this user that nobody holds: whoever did was killed."""
    return [path for path in sorted(_folder().glob(f"{_PREFIX}{os.geteuid()}-*")) if _if_free(path, remove=False)]


def remove_lock(path: Path) -> None:
    """Remove a lock file, unless somebody holds it by now and so removes it himself."""
    _if_free(path, remove=True)


def _if_free(path: Path, *, remove: bool) -> bool:
    """Whether nobody holds a lock; to tell, it is held for a moment, in which the file can be removed."""
    try:
        fd = hold(path, make=False, wait=False)
    except OSError:
        return False
    try:
        if remove:
            path.unlink(missing_ok=True)
    finally:
        flock.release(fd)
    return True
