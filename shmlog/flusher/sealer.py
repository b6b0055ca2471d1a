"""From the write-ahead log to events.jsonl, run.log and Parquet parts.

Logs are taken in order. Events of the open log are written as they come; when a
log is closed, its metrics become a part, the books are committed (that is the
one moment at which the log counts as sealed), and the log is deleted. Killed
anywhere, the next sealer cuts the text files back to what the books say and
does the log again, with the same result.

Parts are sorted and written by threads, so that the next log is decoded
meanwhile; they are committed in the order of their logs.
"""

from __future__ import annotations

import errno
import json
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any

import pyarrow as pa

from shmlog.base.durable import fsync_dir
from shmlog.errors import CorruptDataError
from shmlog.flusher.appendfile import AppendFile, RedoError
from shmlog.flusher.eventfiles import EventFiles
from shmlog.folder import runfile
from shmlog.folder.extent import Extent
from shmlog.folder.large import read_large
from shmlog.folder.layout import RunLayout, fsync_run
from shmlog.folder.regular import open_regular, refuse_holes
from shmlog.records import footer, parts, wal
from shmlog.records.decode import Batch, Decoder
from shmlog.records.ledger import Ledger
from shmlog.records.lines import event_data, event_lines, human_lines

# Small enough that what is computed from it stays in the caches and in memory
# that was used before: fresh pages cost several times the work done on them.
CHUNK_BYTES = 4 << 20
WRITERS = 2  # a part is written while the next one is sorted


@dataclass
class _OpenLog:
    """A log that is being read."""

    number: int
    offset: int = 0
    batches: list[Batch] = field(default_factory=list)
    holds_foreign: bool = False


@dataclass
class _ClosedLog:
    """A log that has been read to its end, and the part that is being made of it."""

    number: int
    batches: list[Batch]
    holds_foreign: bool
    events: tuple[Extent, ...]
    run_log: Extent
    offered: Mapping[int, int]  # by lane, up to its end, as the drain tells
    part: Future[None] | None


class Sealer:
    """Works through the logs of one run.

    Every method may raise OSError and be called again. After a `RedoError`, and after any other exception, a
    new sealer has to do again what is not committed: it writes the text files from the logs, from where they
    were durable, and decodes from the first log that is not sealed.

    A log of which a record is neither in the files nor counted as dropped is not deleted: it goes to ``kept/``. So
    does one with frames of another run: nothing tells whether they are anywhere else.
    """

    def __init__(
        self, layout: RunLayout, sinks: Iterable[str], progress: Callable[[], None], report: Callable[[str], None],
        events_bytes_max: int | None = None, at_work: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:  # fmt: skip
        self.layout = layout
        self.ledger = Ledger.load(layout)
        self._run_id = runfile.run_id(layout)
        self._sinks = frozenset(sinks)
        self._progress = progress
        self._report = report
        self._at_work = at_work
        self._events = EventFiles(layout, self.ledger.events, events_bytes_max)
        self._run_log = AppendFile(layout.run_log, self.ledger.run_log)
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="part")
        self._closed: deque[_ClosedLog] = deque()
        self._config: dict[str, Any] = {}  # from config events, not in config.yaml yet
        self._names_are_synced = False
        # One for all logs: it knows what a first frame that is damaged does not tell again.
        self._decoder = Decoder(layout.dir, takes_all=True)
        self._open = _OpenLog(self.ledger.next_log)
        self._buffer = bytearray(CHUNK_BYTES)  # used again and again: nothing decoded refers to it

    @property
    def next_log(self) -> int:
        """All logs below this one are sealed."""
        return self.ledger.next_log

    @property
    def reading(self) -> int:
        """The log that is read now; those below it are read."""
        return self._open.number

    @property
    def is_busy(self) -> bool:
        """Whether parts are being written."""
        return bool(self._closed)

    def commit_done(self) -> None:
        """Commit the logs whose parts have been written meanwhile."""
        self._commit(at_most=WRITERS)

    def catch_up(self, closed_below: int, *, wait: bool = False, offered: Mapping[int, int] | None = None) -> None:
        """Take what the logs hold by now, and seal those below ``closed_below``.

        With ``wait`` they are sealed when it returns; otherwise some of their
        parts may still be under way, and the next call commits them. ``offered`` is what the drain has offered
        each lane until the end of the last log, which no later one tells.
        """
        self._events.retry()  # nothing more is read while they can't be written
        self._run_log.retry()
        while True:
            is_closed = self._open.number < closed_below
            self._read(is_closed)
            if not is_closed:
                break
            self._close_log(offered if self._open.number == closed_below - 1 else None)
            self._commit(at_most=WRITERS)
        self._commit(at_most=0 if wait else WRITERS)

    # ---- reading a log ----

    def _read(self, is_closed: bool) -> None:
        """Take the frames that were not taken yet. A torn end counts only in a closed log."""
        path = self.layout.log(self._open.number)
        try:
            file = open_regular(path)
        except FileNotFoundError:
            if not is_closed:
                return  # it is not made yet
            os.stat(self.layout.wal)  # has the folder gone, perhaps to come back?
            self._report(f"{path}: is missing")
            return
        with file:
            refuse_holes(file, path)
            size = CHUNK_BYTES
            while size:
                size = self._read_chunk(file, size, is_closed)

    def _read_chunk(self, file: BufferedReader, size: int, is_closed: bool) -> int:
        """Take the whole frames of the next ``size`` bytes. Returns how much to look at next."""
        log = self._open
        start = file.seek(log.offset)
        if size > len(self._buffer):
            self._buffer = bytearray(size)
        data = memoryview(self._buffer)[:size]
        data = data[: file.readinto(data)]
        is_end = len(data) < size
        end = log.offset
        frames: list[wal.Frame] = []
        goes_on = not (is_end and is_closed)
        for found in wal.scan(data, path=Path(file.name), log=log.number, run_id=self._run_id, goes_on=goes_on):
            if isinstance(found, wal.Frame | wal.Foreign):
                end = start + found.offset + found.length
            if isinstance(found, wal.Frame):
                frames.append(found)
            else:
                self._pass_over(found, start, is_told=not goes_on)
        if frames:
            self._take(frames)
        has_grown, log.offset = end > log.offset, end
        if is_end:
            return 0
        return CHUNK_BYTES if has_grown else size * 2  # a frame that is larger than that

    def _pass_over(self, damage: wal.Damage, start: int, *, is_told: bool) -> None:
        """Leave out what is no frame of this log; raises CorruptDataError if another version has to seal it."""
        where = f"{damage.path}: {damage.reason} at byte {start + damage.offset}"
        if isinstance(damage, wal.OtherVersion):
            raise CorruptDataError(f"{damage.path}: {damage.reason}: recover the run with that, or move the log away")
        if isinstance(damage, wal.Foreign):
            self._open.holds_foreign = True
            self._report(f"{where}; left out, and the log is kept in {self.layout.kept}")
        elif is_told:
            self._report(where)

    def _take(self, frames: list[wal.Frame]) -> None:
        try:
            batch = self._decoder.decode(frames)
        except OSError as error:  # the decoder has taken a part of the frames
            raise RedoError(error.errno, error.strerror, error.filename) from error
        self._open.batches.append(batch)
        for damage in batch.damage:
            self._report(f"{damage.path}: {damage.reason}")
        self._append(self._run_log, self.layout.run_log, [human_lines(batch)])
        lines = event_lines(batch, metrics="jsonl" in self._sinks, read_large=self._read_large)
        self._append(self._events, self.layout.events, lines)
        self._gather_config(batch)

    def _read_large(self, path: str) -> bytes:
        """Return a large text that could be read when it was decoded."""
        try:
            return read_large(self.layout.dir, path)
        except OSError as error:  # decoded again, it is booked as what it is
            raise RedoError(error.errno, error.strerror or str(error), path) from error

    def _append(self, file: AppendFile | EventFiles, path: Path, chunks: Iterable[bytes]) -> None:
        """Append all chunks, or have them wait in the file's object for its next sync()."""
        for chunk in chunks:
            try:
                file.append(chunk)
            except OSError as error:
                self._report(f"{path}: {error.strerror}; tried again later")
            self._progress()

    def _gather_config(self, batch: Batch) -> None:
        for event in batch.events:
            if event.event_type == "config":
                self._config |= self._whole_data(event_data(event))
        try:
            self._merge_config()
        except OSError as error:
            self._report(f"{self.layout.config_yaml}: {error.strerror}; tried again when the log is sealed")

    def _whole_data(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data of an event, read from its file if it was too large for the ring."""
        if data.keys() != {"file", "bytes"}:
            return data
        try:
            found = json.loads(read_large(self.layout.dir, str(data["file"])))
        except (OSError, ValueError):
            return data  # the user's own words
        return found if isinstance(found, dict) else data

    def _merge_config(self) -> None:
        """Put the parameters of config events into config.yaml."""
        if not self._config:
            return
        path = self.layout.config_yaml
        try:
            config = runfile.read(path)
        except FileNotFoundError:
            config = {}
        except CorruptDataError as error:
            self._report(f"{error}; left as it is, the config events have the parameters")
            self._config = {}
            return
        merged = {**config, **self._config}
        if merged != config:
            runfile.write(path, merged)
        self._config = {}

    # ---- sealing a log ----

    def _close_log(self, offered: Mapping[int, int] | None) -> None:
        log = self._open
        offered = self._offered_before(log.number + 1) if offered is None else offered
        self._events.retry()
        self._run_log.retry()
        self._closed.append(
            _ClosedLog(
                log.number, log.batches, log.holds_foreign, self._events.extents, self._run_log.extent, offered,
                self._start_part(log),
            )
        )  # fmt: skip
        self._open = _OpenLog(log.number + 1)

    def _offered_before(self, number: int) -> Mapping[int, int]:
        """Return what each lane was offered before log ``number``, whose first frame tells."""
        try:
            first = wal.first_piece(self.layout.log(number), number, self._run_id)
        except FileNotFoundError:
            return {}
        if not isinstance(first, wal.Frame):
            return {}
        return dict(zip(first.lanes["lane"].tolist(), first.lanes["seq"].tolist(), strict=True))

    def _start_part(self, log: _OpenLog | _ClosedLog) -> Future[None] | None:
        tables = [batch.metrics for batch in log.batches if batch.metrics.num_rows]
        if "parquet" not in self._sinks or not tables:
            self._remove_part(log.number)
            return None
        booked = sum(count.metrics for batch in log.batches for count in batch.counts.values())
        return self._writers.submit(self._write_part, log.number, tables, booked)

    def _remove_part(self, number: int) -> None:
        """Remove what an earlier sealer has made of a log that has lost its content since, with the power."""
        path = self.layout.part(number)
        if path.exists():
            path.unlink()
            fsync_dir(path.parent)

    def _write_part(self, number: int, tables: list[pa.Table], booked: int) -> None:
        path = self.layout.part(number)
        with self._at_work():
            table = pa.concat_tables(tables).unify_dictionaries()
            parts.write_part(
                path, table, run_id=self._run_id, first=number, last=number, progress=self._progress,
                read_large=self._read_large,
            )  # fmt: skip
            rows = footer.read_facts(path).rows
            if rows != booked:
                raise CorruptDataError(f"{path}: {rows} rows were written, of {booked} metrics")

    def _commit(self, at_most: int) -> None:
        """Commit logs in their order: all whose parts are done, and more until ``at_most`` wait."""
        done = 0
        while done < len(self._closed):
            log = self._closed[done]
            if len(self._closed) - done <= at_most and not _is_done(log.part):
                break
            self._finish_part(log)
            done += 1
        if done:
            self._commit_first(done)

    def _commit_first(self, count: int) -> None:
        """Commit the first logs, whose parts are durable, as one."""
        self._merge_config()
        self._events.sync()
        self._run_log.sync()
        if not self._names_are_synced:
            fsync_run(self.layout)  # else the files are durable, and nobody finds them
            self._names_are_synced = True
        logs = [self._closed[i] for i in range(count)]
        for log in logs:
            for batch in log.batches:
                self.ledger.add_batch(batch)
            log.batches = []  # booked: should the commit fail, the next one books nothing twice
            self._account_for(log)
        self.ledger.commit(logs[-1].number + 1, logs[-1].events, logs[-1].run_log)
        for _ in logs:
            self._closed.popleft()
        for number in self.layout.logs():
            if number < self.ledger.next_log:  # one of an earlier sealer may be among them
                remove_log(self.layout, number, self._run_id, self.ledger.kept_logs)
        self._progress()

    def _account_for(self, log: _ClosedLog) -> None:
        if log.holds_foreign:
            self.ledger.keep(log.number)
        for lane, count in self.ledger.account_for(log.number, log.offered).items():
            self._report(
                f"{self.layout.log(log.number)}: of lane {lane}, {count} records are neither in the files nor counted "
                f"as dropped; the log is kept in {self.layout.kept}"
            )

    def _finish_part(self, log: _ClosedLog) -> None:
        """Wait for the part of a log, and begin it anew if it could not be written."""
        if log.part is None:
            return
        try:
            log.part.result()
        except BaseException:
            log.part = self._start_part(log)  # for the next try
            raise
        log.part = None

    def close(self) -> None:
        """Close the files, when no part is being written any more. What is not sealed stays in its log."""
        self._writers.shutdown()
        self._events.close()
        self._run_log.close()


def _is_done(part: Future[None] | None) -> bool:
    return part is None or part.done()


def remove_log(layout: RunLayout, number: int, run_id: str, kept_logs: Collection[int]) -> None:
    """Remove a log that is sealed, or put it aside if it holds what nothing else does.

    So is one of another run that was put among those sealed: nobody has looked into it.
    """
    try:
        is_foreign = isinstance(wal.first_piece(layout.log(number), number, run_id), wal.Foreign)
    except (FileNotFoundError, CorruptDataError):
        is_foreign = False
    if number not in kept_logs and not is_foreign:
        layout.log(number).unlink(missing_ok=True)
        return
    layout.kept.mkdir(exist_ok=True)
    os.rename(layout.log(number), layout.free_kept_log(number))
    fsync_dir(layout.kept)
    fsync_dir(layout.dir)


def remove_wal(layout: RunLayout, kept_logs: Collection[int]) -> None:
    """Remove the logs of a run that is complete, but for those to be kept, the books last."""
    run_id = runfile.run_id(layout)
    for number in layout.logs():
        remove_log(layout, number, run_id, kept_logs)
    for path in (layout.flusher_log, layout.recovered, layout.sealed_json):
        path.unlink(missing_ok=True)
    try:
        os.rmdir(layout.wal)
    except FileNotFoundError:
        pass  # done by the last try
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return  # something else lies there; it stays
    fsync_dir(layout.dir)
