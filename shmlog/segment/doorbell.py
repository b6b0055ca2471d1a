"""The semaphore on which an idle flusher waits in the C core.

It wakes the flusher; it locks nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from shmlog.folder.segmentref import SHARED_MEMORY, is_segment_name, names_in

_MODE = 0o600
_PREFIX = "sem."  # the C library begins the file's name with it


class Doorbell:
    """A named semaphore, or none: then the flusher polls."""

    def __init__(self, semaphore: Any) -> None:
        self._semaphore = semaphore

    @classmethod
    def create(cls, name: str) -> None:
        """Create the doorbell of the segment ``name``, readable by this user alone."""
        import posix_ipc

        posix_ipc.Semaphore(name, flags=posix_ipc.O_CREX, mode=_MODE, initial_value=0).close()
        with suppress(FileNotFoundError):  # it lies elsewhere, as on macOS
            os.chmod(SHARED_MEMORY / f"{_PREFIX}{name[1:]}", _MODE)  # whatever the umask; nobody else can replace it

    @classmethod
    def open(cls, name: str | None) -> Doorbell:
        """Open the doorbell of the segment ``name``."""
        if name is None:
            return cls(None)
        import posix_ipc

        try:
            return cls(posix_ipc.Semaphore(name))
        except (posix_ipc.Error, ValueError):  # ValueError: the name is not valid
            return cls(None)

    @staticmethod
    def unlink(name: str) -> None:
        """Remove the doorbell, if it exists."""
        import posix_ipc

        try:
            posix_ipc.unlink_semaphore(name)
        except posix_ipc.ExistentialError:
            pass

    def __del__(self) -> None:
        # posix_ipc unmaps a semaphore only when it is closed.
        if self._semaphore is not None:
            self._semaphore.close()

    def ring(self) -> None:
        """Wake the flusher."""
        if self._semaphore is not None:
            self._semaphore.release()


# ---- doorbells left by killed processes, or whose segment was removed ----


def stale() -> list[Path]:
    """Return this user's doorbells without a segment, which is made before its doorbell and removed after it."""
    bells = [SHARED_MEMORY / bell for bell in names_in(SHARED_MEMORY, _PREFIX) if is_segment_name(_segment_of(bell))]
    return [path for path in bells if _is_stale(path)]


def remove_stale(path: Path) -> None:
    """Remove the doorbell of a segment that is gone."""
    with suppress(FileNotFoundError):
        path.unlink()


def _segment_of(bell: str) -> str:
    return f"/{bell.removeprefix(_PREFIX)}"


def _is_stale(path: Path) -> bool:
    try:
        is_ours = path.lstat().st_uid == os.geteuid()
    except OSError:
        return False
    return is_ours and not os.path.lexists(SHARED_MEMORY / _segment_of(path.name)[1:])
