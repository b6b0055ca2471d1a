"""Follow a run: what it holds, then each record that comes, once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

import shmlog
from shmlog.cli.lines import Line, metric_lines
from shmlog.errors import CorruptDataError
from shmlog.storage import jsonl, runfile, wal
from shmlog.storage.layout import RunLayout

_CHECK_S = 1.0


class Follower:
    """The lines of a run as it grows, each exactly once.

    New records are read from the write-ahead log, which costs what they cost
    and not what the run holds. Everything is read again only when a log was
    sealed and deleted before this reader came to it. The sequence numbers of
    the lanes tell what was shown already.
    """

    def __init__(self, run_dir: Path) -> None:
        self._layout = RunLayout(run_dir)
        self._shown: dict[int, int] = {}
        self._log = 0
        self._file: BinaryIO | None = None
        self._offset = 0
        self._decoder = wal.Decoder(self._layout.dir)
        self._next_check = 0.0
        self.stored = shmlog.load(run_dir)

    def history(self, count: int) -> list[Line]:
        """Return the last ``count`` lines of now; all that came before count as shown."""
        return self._everything(count)

    def poll(self) -> list[Line]:
        """Return the lines that came since."""
        lines: list[Line] = []
        while True:
            finished = self._layout.log(self._log + 1).exists()
            if self._file is None and not self._open():
                return lines + (self._everything() if self._layout.logs() else [])
            lines += self._read()
            if not finished:
                return lines
            self._close()
            self._log += 1

    def rest(self) -> list[Line]:
        """Return all lines that were not shown, of a run that has ended."""
        self._close()
        return self._everything()

    def ended(self) -> bool:
        """Whether nothing will come any more; looks at most once a second."""
        if time.monotonic() < self._next_check:
            return False
        self._next_check = time.monotonic() + _CHECK_S
        self.stored = shmlog.load(self._layout.dir)
        if self.stored.status in ("pending", "running"):
            return False
        return bool(self.stored.metadata.get("complete")) or not self.stored.live

    def _everything(self, last: int | None = None) -> list[Line]:
        """Read the whole run, and return the lines that were not shown, or the last of them."""
        self._log = self._next_log()  # first, so that no log is missed between this and the rest
        self.stored = shmlog.load(self._layout.dir)
        table, events = self.stored.metrics(), self.stored.events()
        fresh = self._unshown(table)
        lines = metric_lines(fresh, last) + [event for event in events if self._is_new(event)]
        lines.sort(key=lambda line: str(line["timestamp"]))
        self._count_as_shown(table, events)
        return lines if last is None else lines[len(lines) - min(last, len(lines)) :]

    def _next_log(self) -> int:
        """Return the number of the oldest log that is not sealed."""
        try:
            return int(runfile.read(self._layout.sealed_json)["next_log"])
        except (CorruptDataError, KeyError, OSError, TypeError, ValueError):
            return min(self._layout.logs(), default=0)

    def _unshown(self, table: pa.Table) -> pa.Table:
        if not self._shown:
            return table
        lanes, index = np.unique(table["lane"].to_numpy(), return_inverse=True)
        shown = np.array([self._shown.get(int(lane), -1) for lane in lanes], np.int64)
        return table.filter(pa.array(table["seq"].to_numpy() > shown[index]))

    def _is_new(self, line: Line) -> bool:
        return bool(line["seq"] > self._shown.get(line["lane"], -1))

    def _count_as_shown(self, table: pa.Table, events: Iterable[Line]) -> None:
        ends = table.group_by("lane").aggregate([("seq", "max")]).to_pylist()
        for lane, seq in [(e["lane"], e["seq_max"]) for e in ends] + [(e["lane"], e["seq"]) for e in events]:
            self._shown[lane] = max(seq, self._shown.get(lane, -1))

    def _open(self) -> bool:
        try:
            self._file = self._layout.log(self._log).open("rb")
        except FileNotFoundError:
            return False
        self._offset = 0
        self._decoder = wal.Decoder(self._layout.dir)
        return True

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _read(self) -> list[Line]:
        """Return the new lines of the whole frames behind the offset."""
        assert self._file is not None
        self._file.seek(self._offset)
        data = self._file.read()
        frames, start = [], self._offset
        for found in wal.scan(data, path=self._layout.log(self._log), log=self._log):
            if isinstance(found, wal.Frame):
                frames.append(found)
            elif found.reason == "torn tail":
                break  # the flusher is writing this frame
            self._offset = start + found.offset + found.length
        if not frames:
            return []
        text = jsonl.event_lines(self._decoder.decode(frames), metrics=True)
        return self._new(json.loads(line) for line in text.splitlines())

    def _new(self, lines: Iterable[Line]) -> list[Line]:
        """Return the lines that were not shown, and count them as shown."""
        new = [line for line in lines if self._is_new(line)]
        for line in new:
            self._shown[line["lane"]] = max(line["seq"], self._shown.get(line["lane"], -1))
        return new
