"""A file that only grows, and whose length is known however its writes fail."""

from __future__ import annotations

import errno
import os
from collections import deque
from pathlib import Path

from shmlog.base.durable import open_to_write
from shmlog.folder.extent import Extent, crc32


class RedoError(OSError):
    """What is not committed has to be done again from the logs: it is not known how much of it was done."""


class SyncError(RedoError):
    """An fsync has failed: what was to be made durable is lost, and another fsync would not tell."""


class AppendFile:
    """Append to ``path`` behind the extent ``known``; what follows it is cut off.

    What a full disk has refused is kept and goes first the next time. After a
    `SyncError` the file has to be opened anew, at its last size that was durable.
    """

    def __init__(self, path: Path, known: Extent) -> None:
        self.path = path
        self._crc32 = known.crc32
        self._fd = open_to_write(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            if os.fstat(self._fd).st_size > known.bytes:
                os.ftruncate(self._fd, known.bytes)
            self.size = os.fstat(self._fd).st_size
        except OSError:
            os.close(self._fd)
            raise
        self._synced_size = -1
        self._waiting: deque[memoryview] = deque()

    @property
    def extent(self) -> Extent:
        """What has been written, and its checksum."""
        return Extent(self.size, self._crc32)

    @property
    def extents(self) -> dict[str, Extent]:
        """The same, by the file's name."""
        return {self.path.name: self.extent}

    def append(self, data: bytes) -> None:
        """Write ``data`` behind what waits. Raises OSError; then it waits too."""
        if data:
            self._waiting.append(memoryview(data))
        self.retry()

    def retry(self) -> None:
        """Write what waits."""
        while self._waiting:
            written = os.write(self._fd, self._waiting[0])
            self.size += written
            self._crc32 = crc32(self._waiting[0][:written], self._crc32)
            self._waiting[0] = self._waiting[0][written:]
            if not self._waiting[0]:
                self._waiting.popleft()

    def sync(self) -> None:
        """Write what waits, and fsync if there is anything new.

        Raises
        ------
        SyncError
            If the fsync fails.
        RedoError
            If somebody else has removed, replaced or continued the file: what was written may be in no file, or not
            where it is taken to be.
        """
        self.retry()
        self._check_place()
        if self.size != self._synced_size:
            size = self.size
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise SyncError(error.errno, error.strerror, str(self.path)) from error
            self._synced_size = size

    def _check_place(self) -> None:
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError as error:
            raise RedoError(error.errno, "was removed while it was written", str(self.path)) from error
        # Of one that was cut it is not known which of our lines are left: written again, they could stand twice.
        if not os.path.samestat(there, os.fstat(self._fd)) or there.st_size > self.size:
            raise RedoError(errno.ESTALE, "was changed by somebody else while it was written", str(self.path))

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
