"""events.jsonl or run.log and, if its size is limited, its continuations.

The name of a file never changes and its lines never move: events.jsonl has the
oldest lines, then come events.1.jsonl, events.2.jsonl and so on. So the books can record
how much of each file counts, and a sealer that is killed anywhere leaves nothing to repair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from shmlog.base.durable import fsync_dir
from shmlog.flusher.appendfile import AppendFile
from shmlog.folder.extent import Extent
from shmlog.folder.layout import RunLayout, TextSeries


class TextFiles:
    """Append lines after the extents in the books, as `AppendFile` does to one file.

    No file grows beyond ``bytes_max``, unless a single line is longer.
    """

    def __init__(
        self, layout: RunLayout, series: TextSeries, committed: Sequence[Extent], bytes_max: int | None
    ) -> None:
        self._dir = layout.dir
        self._series = series
        self._bytes_max = bytes_max
        self._full = list(committed[:-1])  # extents that are durable and no longer change
        for number, path in layout.text_files(series).items():
            if number >= len(committed):
                path.unlink()  # begun by a sealer that was killed before it was booked
        self._files = [AppendFile(layout.dir / series.name(len(committed) - 1), committed[-1])]
        self._waiting: deque[bytes] = deque()
        self._has_new_name = False

    @property
    def extents(self) -> dict[str, Extent]:
        """The size and the checksum of each file, by name, in order."""
        extents = (*self._full, *(file.extent for file in self._files))
        return {self._series.name(number): extent for number, extent in enumerate(extents)}

    def append(self, lines: bytes) -> None:
        """Write whole lines after waiting ones. Raises OSError; then they wait too."""
        if lines:
            self._waiting.append(lines)
        self.retry()

    def retry(self) -> None:
        """Write waiting lines."""
        self._files[-1].retry()
        while self._waiting:
            lines = self._waiting[0]
            room = self._room_for(lines)
            if not room:
                self._begin_next()
                continue
            if room < len(lines):
                self._waiting[0] = lines[room:]
            else:
                self._waiting.popleft()
            self._files[-1].append(lines[:room])

    def _room_for(self, lines: bytes) -> int:
        """Return how many bytes of ``lines``, in whole lines, go into the last file."""
        if self._bytes_max is None:
            return len(lines)
        size = self._files[-1].size
        free = max(0, self._bytes_max - size)
        if len(lines) <= free:
            return len(lines)
        fitting = lines.rfind(b"\n", 0, free) + 1
        return fitting if fitting or size else lines.index(b"\n") + 1

    def _begin_next(self) -> None:
        number = len(self._full) + len(self._files)
        self._files.append(AppendFile(self._dir / self._series.name(number), Extent()))
        self._has_new_name = True

    def sync(self) -> None:
        """Write waiting lines, and make all lines durable. Raises SyncError as `AppendFile` does."""
        self.retry()
        for file in self._files:
            file.sync()
        if self._has_new_name:
            fsync_dir(self._dir)
            self._has_new_name = False
        while len(self._files) > 1:
            file = self._files.pop(0)
            self._full.append(file.extent)
            file.close()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
