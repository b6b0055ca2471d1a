"""A file that only grows, and whose length is known however its writes fail."""

from __future__ import annotations

import os
from pathlib import Path


class AppendFile:
    """Append to ``path`` behind its first ``size`` bytes; what follows them is cut off.

    What a full disk has refused is kept and goes first the next time.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        if os.fstat(self._fd).st_size > size:
            os.ftruncate(self._fd, size)
        self.size = os.fstat(self._fd).st_size
        self._synced_size = -1
        self._waiting = b""

    def append(self, data: bytes) -> None:
        """Write ``data`` behind what waits. Raises OSError; then it waits too."""
        self._waiting = self._waiting + data if self._waiting else data
        self.retry()

    def retry(self) -> None:
        """Write what waits."""
        waiting = memoryview(self._waiting)
        try:
            while waiting:
                written = os.write(self._fd, waiting)
                self.size += written
                waiting = waiting[written:]
        finally:
            self._waiting = bytes(waiting)

    def sync(self) -> None:
        """Write what waits, and fsync if there is anything new."""
        self.retry()
        if self.size != self._synced_size:
            size = self.size
            os.fsync(self._fd)
            self._synced_size = size

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
