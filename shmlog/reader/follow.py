"""Follow a run: what it holds, then each new record once."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute

from shmlog.errors import UnreadableError
from shmlog.folder import runfile
from shmlog.folder.description import run_id_of
from shmlog.folder.layout import RunLayout
from shmlog.reader.event_lines import Event, metric_lines, metrics_of, newest
from shmlog.reader.stored import load
from shmlog.reader.wanted import Wanted
from shmlog.records import wal
from shmlog.records.decode import Decoder
from shmlog.records.lanes import Lane, lane_keys
from shmlog.records.lines import event_lines
from shmlog.records.schema import OF_NODES

_CHECK_S = 1.0

pc: Any = pyarrow.compute  # its stubs reject most calls that are valid


class Follower:
    """The lines of a run as it grows, each exactly once.

    New records are read from the write-ahead log, so that a poll costs what they
    cost and not what the run holds. The whole run is read again only if a log was
    sealed and deleted before this reader reached it. The sequence numbers of the
    lanes say which records were shown already.
    """

    def __init__(self, run_dir: Path, wanted: Wanted | None = None) -> None:
        self._layout = RunLayout(run_dir)
        self._wanted = wanted or Wanted()
        # Highest sequence number by lane, separate for metrics and events, because
        # they are read one after the other.
        self._metrics_shown: dict[Lane, int] = {}
        self._events_shown: dict[Lane, int] = {}
        self._log = 0
        self._file: BinaryIO | None = None
        self._offset = 0
        self._decoder = Decoder(self._layout.dir, files=self._layout.files)
        self._next_check = 0.0
        self._run_id = run_id_of(self._layout)
        self.stored = load(run_dir)

    def history(self, count: int) -> list[Event]:
        """Return the last ``count`` lines; all lines up to now count as shown."""
        return self._everything(count)

    def poll(self) -> list[Event]:
        """Return the lines that are new since the last call."""
        lines: list[Event] = []
        while True:
            is_finished = self._layout.files.exists(self._layout.log(self._log + 1))
            if self._file is None and not self._open():
                return lines + (self._everything() if self._layout.logs() else [])
            lines += self._read()
            if not is_finished:
                return lines
            self._close()
            self._log += 1

    def rest(self) -> list[Event]:
        """Return all lines of an ended run that were not shown."""
        self._close()
        return self._everything()

    def ended(self) -> bool:
        """Whether the run has ended; looks at most once a second, and says no in between."""
        if time.monotonic() < self._next_check:
            return False
        self._next_check = time.monotonic() + _CHECK_S
        if self.stored.status in ("pending", "running"):
            return False
        return bool(self.stored.described.complete) or not self.stored.live

    def _everything(self, last: int | None = None) -> list[Event]:
        """Read the whole run, and return the lines that were not shown, or the last of them."""
        self._log = self._next_log()  # first, so that no log is missed while the rest is read
        fresh, ends = self.stored.reduce(lambda pieces: self._gather(pieces, last))
        events = [event for event in self.stored.events() if _is_numbered(event)]
        lines = metric_lines(fresh, last) + self._chosen(event for event in events if self._is_new(event))
        lines.sort(key=lambda line: str(line.get("timestamp")))
        for lane, seq in ends.items():
            _raise(self._metrics_shown, lane, seq)
        self._count_as_shown(events)
        return lines if last is None else lines[len(lines) - min(last, len(lines)) :]

    def _gather(self, pieces: Iterable[pa.Table], last: int | None) -> tuple[pa.Table, dict[Lane, int]]:
        """Return the metrics that are wanted and not shown, or those of the last calls, and where each lane ends."""
        kept, ends = OF_NODES.empty_table(), dict[Lane, int]()
        oldest: Any = None  # the time of the oldest call that is kept
        for piece in pieces:
            for end in piece.group_by(["node", "lane"]).aggregate([("seq", "max")]).to_pylist():
                _raise(ends, Lane(end["node"], end["lane"]), end["seq_max"])
            fresh = self._wanted.rows(self._unshown(piece))
            if last is None:
                kept = pa.concat_tables([kept, fresh])
                continue
            fresh = fresh if oldest is None else fresh.filter(pc.greater_equal(fresh["ts"], oldest))
            kept = newest(pa.concat_tables([kept, newest(fresh, last)]), last).combine_chunks()
            is_full = kept.num_rows and kept.group_by(["ts", "node", "lane", "step"]).aggregate([]).num_rows >= last
            oldest = pc.min(kept["ts"]) if is_full else None
        return kept.unify_dictionaries(), ends

    def _chosen(self, lines: Iterable[Event]) -> list[Event]:
        """Return what is wanted of lines."""
        return [line for line in map(self._wanted.line, lines) if line is not None]

    def _next_log(self) -> int:
        """Return the number of the oldest log that is not sealed."""
        try:
            return int(runfile.read(self._layout.sealed_json, self._layout.files)["next_log"])
        except (UnreadableError, KeyError, OSError, TypeError, ValueError):
            return min(self._layout.logs(), default=0)

    def _unshown(self, table: pa.Table) -> pa.Table:
        """Return the metrics that were not shown."""
        if not self._metrics_shown:
            return table
        keys, index = np.unique(lane_keys(table), return_inverse=True)
        shown = np.array([self._metrics_shown.get(Lane.of_key(key), -1) for key in keys.tolist()], np.int64)
        return table.filter(pa.array(table["seq"].to_numpy() > shown[index]))

    def _count_as_shown(self, lines: Iterable[Event]) -> None:
        for line in lines:
            _raise(self._shown_like(line), Lane.of_line(line), _last_seq(line))

    def _shown_like(self, line: Event) -> dict[Lane, int]:
        return self._events_shown if metrics_of(line) is None else self._metrics_shown

    def _is_new(self, line: Event) -> bool:
        return bool(line["seq"] > self._shown_like(line).get(Lane.of_line(line), -1))

    def _open(self) -> bool:
        try:
            self._file = self._layout.files.open(self._layout.log(self._log))
        except (FileNotFoundError, UnreadableError):
            return False
        self._offset = 0
        self._decoder = Decoder(self._layout.dir, files=self._layout.files)
        return True

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _read(self) -> list[Event]:
        """Return the new lines of the whole frames behind the offset."""
        assert self._file is not None
        self._file.seek(self._offset)
        data = self._file.read()
        frames, start = [], self._offset
        for item in wal.scan(data, path=self._layout.log(self._log), log=self._log, run_id=self._run_id):
            if isinstance(item, wal.Frame):
                frames.append(item)
            elif item.reason == wal.TORN_TAIL:
                break  # the flusher is writing this frame
            self._offset = start + item.offset + item.length
        if not frames:
            return []
        chunks = event_lines(self._decoder.decode(frames), metrics=True)
        return self._new(json.loads(line) for chunk in chunks for line in chunk.splitlines())

    def _new(self, lines: Iterable[Event]) -> list[Event]:
        """Return the lines that were not shown, and count them as shown."""
        new = [line for line in lines if self._is_new(line)]
        self._count_as_shown(new)
        return self._chosen(new)


def _raise(highest: dict[Lane, int], lane: Lane, seq: int) -> None:
    highest[lane] = max(seq, highest.get(lane, -1))


def _last_seq(line: Event) -> int:
    """Return the number of a line's last record; the metrics of one call are one line."""
    metrics = metrics_of(line)
    return int(line["seq"]) + (1 if metrics is None else len(metrics)) - 1


def _is_numbered(line: Event) -> bool:
    """Whether a line of events.jsonl is one of shmlog; `shmlog verify` names the others."""
    return isinstance(line.get("lane"), int) and isinstance(line.get("seq"), int)
