"""events.jsonl and, when it may not grow beyond a size, the files that it goes on in.

The name of a file never changes and what is in it never moves: events.jsonl has the
oldest lines, then come events.1.jsonl, events.2.jsonl and so on. So the books can say of
each how much of it counts, and a sealer that is killed anywhere leaves nothing to sort out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from shmlog.base.durable import fsync_dir
from shmlog.flusher.appendfile import AppendFile
from shmlog.folder.extent import Extent
from shmlog.folder.layout import RunLayout, event_file_name


class EventFiles:
    """Append lines behind what the books know of, as `AppendFile` does to one file.

    No file grows beyond ``bytes_max``, but by a single line that is longer.
    """

    def __init__(self, layout: RunLayout, known: Sequence[Extent], bytes_max: int | None) -> None:
        self._layout = layout
        self._bytes_max = bytes_max
        self._full = list(known[:-1])  # what is durable and changes no more
        for number, path in layout.event_files().items():
            if number >= len(known):
                path.unlink()  # begun by a sealer that did not come to book it
        self._files = [AppendFile(layout.event_file(len(known) - 1), known[-1])]
        self._coming: deque[bytes] = deque()
        self._has_new_name = False

    @property
    def extents(self) -> dict[str, Extent]:
        """What has been written into each file, and its checksum, by name, in order."""
        extents = (*self._full, *(file.extent for file in self._files))
        return {event_file_name(number): extent for number, extent in enumerate(extents)}

    def append(self, lines: bytes) -> None:
        """Write whole lines behind what waits. Raises OSError; then they wait too."""
        if lines:
            self._coming.append(lines)
        self.retry()

    def retry(self) -> None:
        """Write what waits."""
        self._files[-1].retry()
        while self._coming:
            lines = self._coming[0]
            room = self._room_for(lines)
            if not room:
                self._begin_next()
                continue
            if room < len(lines):
                self._coming[0] = lines[room:]
            else:
                self._coming.popleft()
            self._files[-1].append(lines[:room])

    def _room_for(self, lines: bytes) -> int:
        """Return how much of ``lines`` goes into the last file: whole lines."""
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
        self._files.append(AppendFile(self._layout.event_file(number), Extent()))
        self._has_new_name = True

    def sync(self) -> None:
        """Write what waits, and make all of it durable. Raises SyncError as `AppendFile` does."""
        self.retry()
        for file in self._files:
            file.sync()
        if self._has_new_name:
            fsync_dir(self._layout.dir)
            self._has_new_name = False
        while len(self._files) > 1:
            file = self._files.pop(0)
            self._full.append(file.extent)
            file.close()

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
