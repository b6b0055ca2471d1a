"""A file that only grows, and whose length is known even if its writes fail."""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from pathlib import Path

from shmlog.base.durable import open_to_write
from shmlog.folder.extent import Extent, crc32


class RedoError(OSError):
    """Work that is not committed has to be done again from the logs: it is not known how much of it is on disk."""


class SyncError(RedoError):
    """An fsync has failed: the data may be lost, and another fsync would not report it."""


class AppendFile:
    """Append to ``path`` after the extent ``committed``; bytes beyond it are cut off.

    Data that a full disk has refused is kept and written first the next time. After a
    `SyncError` the file has to be opened anew, at its last durable size.
    """

    def __init__(self, path: Path, committed: Extent) -> None:
        self.path = path
        self._crc32 = committed.crc32
        self._fd = open_to_write(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            if os.fstat(self._fd).st_size > committed.bytes:
                os.ftruncate(self._fd, committed.bytes)
            self.size = os.fstat(self._fd).st_size
            is_torn = 0 < self.size < committed.bytes and os.pread(self._fd, 1, self.size - 1) != b"\n"
        except OSError:
            os.close(self._fd)
            raise
        self._synced_size = -1
        self._intact = sys.maxsize  # the bytes before the first place at which another process has cut the file
        # Another process may have cut the file within a line, which must not take the next one with it.
        self._waiting: deque[memoryview] = deque([memoryview(b"\n")] if is_torn else [])

    @property
    def extent(self) -> Extent:
        """The size and the checksum of the file."""
        return Extent(self.size, self._crc32)

    @property
    def extents(self) -> dict[str, Extent]:
        """The same, by the file's name."""
        return {self.path.name: self.extent}

    def append(self, data: bytes) -> None:
        """Write ``data`` after waiting data. Raises OSError; then ``data`` waits too."""
        if data:
            self._waiting.append(memoryview(data))
        self.retry()

    def retry(self) -> None:
        """Write waiting data."""
        while self._waiting:
            written = os.write(self._fd, self._waiting[0])
            begin = os.lseek(self._fd, 0, os.SEEK_CUR) - written
            if begin < self.size:
                self._intact = min(begin, self._intact)
            self.size += written
            self._crc32 = crc32(self._waiting[0][:written], self._crc32)
            self._waiting[0] = self._waiting[0][written:]
            if not self._waiting[0]:
                self._waiting.popleft()

    def sync(self) -> None:
        """Write waiting data, and fsync if there is anything new.

        Raises
        ------
        SyncError
            If the fsync fails.
        RedoError
            If another process has removed, replaced, cut or appended to the file: our data may be in no file, or in
            another place.
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
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError as error:
            raise RedoError(error.errno, "was removed while it was written", str(self.path)) from error
        is_ours, size = os.path.samestat(status, os.fstat(self._fd)), min(status.st_size, self._intact)
        if is_ours and size < self.size:
            os.ftruncate(self._fd, size)  # what we have written behind a cut is written again
        # If another process wrote to it, it is not known which of our lines are left: written again, they could double.
        if not is_ours or size != self.size:
            raise RedoError(errno.ESTALE, "was changed by somebody else while it was written", str(self.path))

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
