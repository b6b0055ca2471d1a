"""Check that the run folder, and the folder of its logs, are still those in which the flusher began."""

from __future__ import annotations

import os
import time

from shmlog.errors import StorageError
from shmlog.folder.layout import RunLayout

_LOOK_EVERY_S = 1.0


class Place:
    """The folders of a run, identified by device and inode, since other folders may get their names."""

    def __init__(self, layout: RunLayout) -> None:
        self._layout = layout
        self._run = _identity(layout.dir)
        self._logs = _identity(layout.wal)
        self._looked_s = time.monotonic()

    def open_logs(self) -> int:
        """Return a descriptor of the folder of the logs."""
        return os.open(self._layout.wal, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def has_new_logs(self, *, at_once: bool = False) -> bool:
        """Whether the folder of the logs is another one than at the last check; checks at most once a second.

        If it was replaced, unsealed records are gone with it. Later records go into the new folder.

        Raises
        ------
        OSError
            If the folder is gone.
        StorageError
            If the run folder is another one, to which the books do not belong.
        """
        if not at_once and time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return False
        if _identity(self._layout.dir) != self._run:
            raise StorageError(f"{self._layout.dir} is not the folder in which the run began; it is left as it is")
        logs = _identity(self._layout.wal)
        is_new = logs != self._logs
        self._logs, self._looked_s = logs, time.monotonic()
        return is_new

    def is_lost(self) -> bool:
        """Whether the folders in which to close the run are gone; False if that is unknown, as when a disk fails."""
        try:
            os.stat(self._layout.run_yaml)
            os.stat(self._layout.wal)
            return _identity(self._layout.dir) != self._run
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False


def _identity(folder: os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
