"""From the write-ahead log to the sinks: events.jsonl, run.log, config.yaml and Parquet parts.

Logs are read in order. Sinks take the records of the open log as they come; when a
log is closed, they make its records durable, the books are committed (the
one moment at which the log becomes sealed), and the log is deleted. After a kill
anywhere, the next sealer makes new sinks, which return to the state in the books, and
reads the log again, with the same result.

Sinks may still work on a closed log while the next one is decoded; logs are committed in their order.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

from shmlog.base.durable import fsync_dir
from shmlog.errors import CorruptDataError, UnreadableError
from shmlog.flusher.appendfile import RedoError
from shmlog.flusher.sinks import WRITERS, Mark, Sink
from shmlog.folder.description import run_id_of
from shmlog.folder.extent import Extent
from shmlog.folder.files import refuse_holes
from shmlog.folder.layout import RunLayout, fsync_run
from shmlog.records import wal
from shmlog.records.decode import Batch, Decoder
from shmlog.records.ledger import Ledger

# Small enough that the results stay in the caches and in memory that was used
# before: fresh pages cost several times the work done on them.
CHUNK_BYTES = 4 << 20


@dataclass
class _OpenLog:
    """A log that is being read."""

    number: int
    offset: int = 0
    batches: list[Batch] = field(default_factory=list)
    holds_foreign: bool = False
    marks: list[Mark] = field(default_factory=list)  # at its end, from the sinks that have marked it


@dataclass
class _ClosedLog:
    """A log that has been read to its end but is not committed yet."""

    number: int
    batches: list[Batch]
    holds_foreign: bool
    marks: list[Mark]  # of all sinks
    offered: Mapping[int, int]  # by lane, up to its end, as the drain has counted


class Sealer:
    """Seals the logs of one run.

    Every method may raise OSError and be called again. After a `RedoError`, and after any other exception, a
    new sealer, with new books and sinks, has to do again what is not committed, from the first unsealed log on.

    A log with a record that is neither in the files nor counted as dropped is not deleted but moved to ``kept/``. So
    is a log with frames of another run, since they may be nowhere else.
    """

    def __init__(
        self, layout: RunLayout, ledger: Ledger, sinks: Sequence[Sink], progress: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.layout = layout
        self.ledger = ledger
        self._run_id = run_id_of(layout)
        self._sinks = sinks
        self._progress = progress
        self._report = report
        self._closed: deque[_ClosedLog] = deque()
        self._names_are_synced = False
        # One for all logs: it keeps the state that a first frame repeats, in case that is damaged.
        self._decoder = Decoder(layout.dir, takes_all=True)
        self._open = _OpenLog(ledger.next_log)
        self._buffer = bytearray(CHUNK_BYTES)  # reused: decoded data does not refer to it

    @property
    def next_log(self) -> int:
        """All logs below this one are sealed."""
        return self.ledger.next_log

    @property
    def reading(self) -> int:
        """The number of the log that is being read; those below it are read."""
        return self._open.number

    @property
    def is_busy(self) -> bool:
        """Whether sinks still work on logs that were read."""
        return bool(self._closed)

    def commit_done(self) -> None:
        """Commit the logs that all sinks have meanwhile written."""
        self._commit(at_most=WRITERS)

    def catch_up(self, closed_below: int, *, wait: bool = False, offered: Mapping[int, int] | None = None) -> None:
        """Read the present records of the logs, and seal the logs below ``closed_below``.

        With ``wait`` they are sealed when it returns; otherwise sinks may still work on
        some, which the next call commits. ``offered`` is the drain's count of the records offered to
        each lane until the end of the last log, which no later log repeats.
        """
        for sink in self._sinks:
            sink.retry()
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
        """Read the new frames. A torn end counts only in a closed log."""
        path = self.layout.log(self._open.number)
        try:
            file = self.layout.files.open(path)
        except FileNotFoundError:
            if not is_closed:
                return  # it does not exist yet
            os.stat(self.layout.wal)  # raises if the folder is gone, perhaps only for a while
            self._report(f"{path}: is missing")
            return
        except UnreadableError as error:  # a pipe, a folder or a link, which the drain has skipped
            if is_closed:
                self._open.holds_foreign = True
                self._report(f"{error}; put aside in {self.layout.kept}")
            return
        with file:
            refuse_holes(file, path)
            size = CHUNK_BYTES
            while size:
                size = self._read_chunk(file, size, is_closed)

    def _read_chunk(self, file: BufferedReader, size: int, is_closed: bool) -> int:
        """Read the whole frames of the next ``size`` bytes; return the size of the next chunk."""
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
        for piece in wal.scan(data, path=Path(file.name), log=log.number, run_id=self._run_id, goes_on=goes_on):
            if isinstance(piece, wal.Frame | wal.Foreign):
                end = start + piece.offset + piece.length
            if isinstance(piece, wal.Frame):
                frames.append(piece)
            else:
                self._skip(piece, start, is_reported=not goes_on)
        if frames:
            self._take(frames)
        has_grown, log.offset = end > log.offset, end
        if is_end:
            return 0
        return CHUNK_BYTES if has_grown else size * 2  # the next frame is larger than the chunk

    def _skip(self, damage: wal.Damage, start: int, *, is_reported: bool) -> None:
        """Skip bytes that are not a frame of this log; raises CorruptDataError if another version has to seal it."""
        where = f"{damage.path}: {damage.reason} at byte {start + damage.offset}"
        if isinstance(damage, wal.OtherVersion):
            raise CorruptDataError(f"{damage.path}: {damage.reason}: recover the run with it, or move the log away")
        if isinstance(damage, wal.Foreign):
            self._open.holds_foreign = True
            self._report(f"{where}; left out, and the log is kept in {self.layout.kept}")
        elif is_reported:
            self._report(where)

    def _take(self, frames: list[wal.Frame]) -> None:
        try:
            batch = self._decoder.decode(frames)
        except OSError as error:  # the decoder has read a part of the frames
            raise RedoError(error.errno, error.strerror, error.filename) from error
        self._open.batches.append(batch)
        for damage in batch.damage:
            self._report(f"{damage.path}: {damage.reason}")
        for sink in self._sinks:
            sink.take(batch)

    # ---- sealing a log ----

    def _close_log(self, offered: Mapping[int, int] | None) -> None:
        log = self._open
        offered = self._offered_before(log.number + 1) if offered is None else offered
        for sink in self._sinks[len(log.marks) :]:  # after an error, only sinks that have not marked it yet
            log.marks.append(sink.mark(log.number))
        self._closed.append(_ClosedLog(log.number, log.batches, log.holds_foreign, log.marks, offered))
        self._open = _OpenLog(log.number + 1)

    def _offered_before(self, number: int) -> Mapping[int, int]:
        """Return the records offered, by lane, before log ``number``, from its first frame."""
        try:
            first = wal.first_piece(self.layout.log(number), number, self._run_id)
        except (FileNotFoundError, UnreadableError):
            return {}
        if not isinstance(first, wal.Frame):
            return {}
        return dict(zip(first.lanes["lane"].tolist(), first.lanes["seq"].tolist(), strict=True))

    def _commit(self, at_most: int) -> None:
        """Commit logs in their order: all that the sinks have written, and more until at most ``at_most`` wait."""
        done = 0
        while done < len(self._closed):
            log = self._closed[done]
            marked = list(zip(self._sinks, log.marks, strict=True))
            if len(self._closed) - done <= at_most and not all(sink.is_ready(mark) for sink, mark in marked):
                break
            for sink, mark in marked:
                sink.commit(mark)
            done += 1
        if done:
            self._commit_first(done)

    def _commit_first(self, count: int) -> None:
        """Commit the first ``count`` logs, which are durable in all sinks, together."""
        if not self._names_are_synced:
            fsync_run(self.layout)  # else the files are durable, but their names are not
            self._names_are_synced = True
        logs = [self._closed[i] for i in range(count)]
        for log in logs:
            for batch in log.batches:
                self.ledger.add_batch(batch)
            log.batches = []  # booked: if the commit fails, the next one books nothing twice
            self._account_for(log)
        extents: dict[str, Extent] = {}
        for mark in logs[-1].marks:
            extents |= mark.extents
        self.ledger.commit(logs[-1].number + 1, extents)
        for _ in logs:
            self._closed.popleft()
        for number in self.layout.logs():
            if number < self.ledger.next_log:  # logs of an earlier sealer may be among them
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

    def close(self) -> None:
        """Close the sinks. Unsealed records stay in their logs."""
        for sink in self._sinks:
            sink.close()


def remove_log(layout: RunLayout, number: int, run_id: str, kept_logs: Collection[int]) -> None:
    """Remove a sealed log, or move it to ``kept/`` if it holds records that are nowhere else.

    A log of another run among the sealed ones is also moved, since it was never read.
    """
    try:
        is_foreign = isinstance(wal.first_piece(layout.log(number), number, run_id), wal.Foreign)
    except (FileNotFoundError, UnreadableError):
        is_foreign = False
    if number not in kept_logs and not is_foreign:
        layout.log(number).unlink(missing_ok=True)
        return
    layout.kept.mkdir(exist_ok=True)
    os.rename(layout.log(number), layout.free_kept_log(number))
    fsync_dir(layout.kept)
    fsync_dir(layout.dir)


def remove_wal(layout: RunLayout, kept_logs: Collection[int]) -> None:
    """Remove the logs of a complete run, except those to be kept, and the books last."""
    run_id = run_id_of(layout)
    for number in layout.logs():
        remove_log(layout, number, run_id, kept_logs)
    for path in (layout.flusher_log, layout.recovered, layout.sealed_json):
        path.unlink(missing_ok=True)
    try:
        os.rmdir(layout.wal)
    except FileNotFoundError:
        pass  # an earlier try has removed it
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return  # other files lie there; the folder stays
    fsync_dir(layout.dir)
