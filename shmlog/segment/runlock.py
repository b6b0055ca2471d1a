"""The lock under which a run without processes is changed: a file that is there only meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shmlog.segment.lockfile import hold
from shmlog.storage.layout import RunLayout
from shmlog.storage.segmentref import SHARED_MEMORY

_PREFIX = "shmlog.recover-"


def lock_path(layout: RunLayout) -> Path:
    """Return the file whose lock lets one process recover a run: on no network file system."""
    status = layout.dir.stat()
    return _folder() / f"{_PREFIX}{os.geteuid()}-{status.st_dev:x}-{status.st_ino:x}"


def _folder() -> Path:
    return SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path("/tmp")


@contextmanager
def locked(layout: RunLayout) -> Iterator[None]:
    """Hold the lock of a run."""
    path = lock_path(layout)
    fd = hold(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


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
        os.close(fd)
    return True
