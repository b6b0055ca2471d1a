"""The lock under which a run without processes is changed: a file that exists only while it is locked."""

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
    """Return the path of a file, never on a network file system, whose lock lets one process recover a run."""
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
        Whether to keep out also processes with another shared memory: those in other containers of this kernel.

    Raises
    ------
    LockError
        If ``everywhere`` is set and the folder can't be locked, as on a network file system.
    RunStateError
        If another process holds the lock for long: one that recovers the run, or any that may read its folder.
    SegmentError
        If another user has put something in the place of the lock file.
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


# ---- files that killed processes have left ----


def stale_locks() -> list[Path]:
    """Return the lock files of this user that no process holds: their processes were killed."""
    return [path for path in sorted(_folder().glob(f"{_PREFIX}{os.geteuid()}-*")) if _if_free(path, remove=False)]


def remove_lock(path: Path) -> None:
    """Remove a lock file, unless a process holds it by now, which then removes it."""
    _if_free(path, remove=True)


def _if_free(path: Path, *, remove: bool) -> bool:
    """Whether no process holds a lock. To find out, hold it for a moment; with ``remove``, remove the file then."""
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
