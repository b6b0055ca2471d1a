"""The sinks for the records of a log, each of which gets every record exactly once.

A sink takes each batch once. When a log is closed, the sink marks that point; when the log is to be sealed, the sink
makes everything up to the mark durable, and then the books record it. What is not in the books does not count:
the next sealer makes new sinks, which return to the state in the books, and gives them the same batches again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from shmlog.base.durable import fsync_dir
from shmlog.errors import CorruptDataError, UnreadableError
from shmlog.flusher.appendfile import RedoError
from shmlog.flusher.textfiles import TextFiles
from shmlog.folder import runfile
from shmlog.folder.description import run_id_of
from shmlog.folder.extent import Extent
from shmlog.folder.large import read_large
from shmlog.folder.layout import EVENTS, RUN_LOG, RunLayout
from shmlog.records import footer, parts
from shmlog.records.decode import Batch
from shmlog.records.ledger import Ledger, extents_in
from shmlog.records.lines import event_data, event_lines, human_lines

WRITERS = 2
"""Threads that write parts: one writes while another sorts. As many logs may wait for their sinks."""


class Mark(NamedTuple):
    """The end of a log in a sink."""

    log: int
    extents: Mapping[str, Extent] = {}
    """The extents of the sink's files, by name, for the books, once the log is sealed."""


class Sink:
    """A place for records. Sinks override the steps that they need."""

    def take(self, batch: Batch) -> None:
        """Take a batch of the open log. Data that can't be written now is kept for later, and reported."""

    def retry(self) -> None:
        """Write the kept data; raises OSError, and the sink takes nothing more until it returns."""

    def mark(self, log: int) -> Mark:
        """Mark the end of log ``log``. If it raises OSError, it is called again."""
        return Mark(log)

    def is_ready(self, mark: Mark) -> bool:
        """Whether `commit` would not wait for unfinished work."""
        return True

    def commit(self, mark: Mark) -> None:
        """Make everything up to a mark durable. May be called again, after an OSError and after it has returned."""

    def close(self) -> None:
        """Close the files. Records that are not in the books stay in their log."""


def open_sinks(
    layout: RunLayout, ledger: Ledger, kinds: Collection[str], *, progress: Callable[[], None],
    report: Callable[[str], None], text_bytes_max: int | None = None, first_lanes: Collection[int] = (0,),
    at_work: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> list[Sink]:  # fmt: skip
    """Return the sinks of a run, in the state of its books.

    Parameters
    ----------
    kinds : collection of str
        The sinks for metrics: ``parquet``, ``jsonl``.
    progress : callable
        Called after each write.
    report : callable
        Takes a line for the flusher's log.
    text_bytes_max : int, optional
        The size of events.jsonl, and of run.log, at which it goes on in another file.
    first_lanes : collection of int
        The first lane of each attempt: that of the process which made it.
    at_work : callable
        Makes the context in which a part is written.
    """
    human = partial(human_lines, experiment=layout.experiment, makers=frozenset((lane, 1) for lane in first_lanes))
    lines = partial(event_lines, metrics="jsonl" in kinds, read_large=partial(_read_decoded, layout))
    with ExitStack() as opened:  # closes the first files if the next can't be opened
        events = TextFiles(layout, EVENTS, extents_in(ledger.extents, EVENTS), text_bytes_max)
        opened.callback(events.close)
        run_log = TextFiles(layout, RUN_LOG, extents_in(ledger.extents, RUN_LOG), text_bytes_max)
        opened.callback(run_log.close)
        sinks = [
            *([Parts(layout, progress, at_work)] if "parquet" in kinds else []),
            Config(layout, report),
            Text(layout.run_log, run_log, lambda batch: [human(batch)], progress, report),
            Text(layout.events, events, lines, progress, report),
        ]
        opened.pop_all()
    return sinks


def _read_decoded(layout: RunLayout, path: str) -> bytes:
    """Return a large text, which the decoder could still read."""
    try:
        return read_large(layout.dir, path)
    except OSError as error:  # the log has to be decoded again, which books the text as it is now
        raise RedoError(error.errno, error.strerror or str(error), path) from error


class Text(Sink):
    """A text file, or several in succession, to which lines are appended."""

    def __init__(
        self, path: Path, file: TextFiles, lines: Callable[[Batch], Iterable[bytes]],
        progress: Callable[[], None], report: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._path = path
        self._file = file
        self._lines = lines
        self._progress = progress
        self._report = report

    def take(self, batch: Batch) -> None:
        """Append the lines of a batch, or keep them in ``file`` until they can be written."""
        for chunk in self._lines(batch):
            try:
                self._file.append(chunk)
            except OSError as error:
                self._report(f"{self._path}: {error.strerror}; tried again later")
            self._progress()

    def retry(self) -> None:
        """Write the waiting lines."""
        self._file.retry()

    def mark(self, log: int) -> Mark:
        """Return the extent of each file, including all lines of the log."""
        self._file.retry()
        return Mark(log, self._file.extents)

    def commit(self, mark: Mark) -> None:
        """Make all lines durable, later ones too; raises `SyncError`."""
        self._file.sync()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Config(Sink):
    """config.yaml: the parameters of config events are merged into it, at once if the disk allows it."""

    def __init__(self, layout: RunLayout, report: Callable[[str], None]) -> None:
        self._layout = layout
        self._report = report
        self._waiting: dict[str, Any] = {}  # not in config.yaml yet

    def take(self, batch: Batch) -> None:
        """Take the parameters in a batch."""
        for event in batch.events:
            if event.event_type == "config":
                self._waiting |= self._whole_data(event_data(event))
        try:
            self._merge()
        except OSError as error:
            self._report(f"{self._layout.config_yaml}: {error.strerror}; tried again when the log is sealed")

    def _whole_data(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data of an event, read from its file if it was too large for the ring."""
        if data.keys() != {"file", "bytes"}:
            return data
        try:
            value = json.loads(read_large(self._layout.dir, str(data["file"])))
        except (OSError, ValueError):
            return data  # parameters of the user with these names
        return value if isinstance(value, dict) else data

    def commit(self, mark: Mark) -> None:
        """Write the waiting parameters."""
        self._merge()

    def _merge(self) -> None:
        if not self._waiting:
            return
        path = self._layout.config_yaml
        try:
            config = runfile.read(path)
        except FileNotFoundError:
            config = {}
        except UnreadableError as error:
            self._report(f"{error}; left as it is, the config events have the parameters")
            self._waiting = {}
            return
        merged = {**config, **self._waiting}
        if merged != config:
            runfile.write(path, merged)
        self._waiting = {}


@dataclass
class _Part:
    """The metrics of a log, and the future of writing their part."""

    tables: list[pa.Table] = field(default_factory=list)
    booked: int = 0
    writing: Future[None] | None = None


class Parts(Sink):
    """A Parquet file for each log that has metrics; threads sort and write it while the next log is decoded."""

    def __init__(
        self, layout: RunLayout, progress: Callable[[], None], at_work: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._layout = layout
        self._run_id = run_id_of(layout)
        self._progress = progress
        self._at_work = at_work
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="part")
        self._open = _Part()
        self._closed: dict[int, _Part] = {}  # by log

    def take(self, batch: Batch) -> None:
        """Take the metrics of a batch."""
        if batch.metrics.num_rows:
            self._open.tables.append(batch.metrics)
        self._open.booked += sum(count.metrics for count in batch.counts.values())

    def mark(self, log: int) -> Mark:
        """Begin to write the log's part."""
        if self._open.tables:
            self._start(log, self._open)
            self._closed[log] = self._open
        else:
            self._remove(log)
        self._open = _Part()
        return Mark(log)

    def _start(self, log: int, part: _Part) -> None:
        part.writing = self._writers.submit(self._write, log, part)

    def _remove(self, log: int) -> None:
        """Remove the part that an earlier sealer wrote, if a power failure has since emptied the log."""
        path = self._layout.part(log)
        if path.exists():
            path.unlink()
            fsync_dir(path.parent)

    def _write(self, log: int, part: _Part) -> None:
        path = self._layout.part(log)
        with self._at_work():
            table = pa.concat_tables(part.tables).unify_dictionaries()
            parts.write_part(
                path, table, run_id=self._run_id, first=log, last=log, progress=self._progress,
                read_large=partial(_read_decoded, self._layout),
            )  # fmt: skip
            rows = footer.read_facts(path).rows
            if rows != part.booked:
                raise CorruptDataError(f"{path}: {rows} rows were written, of {part.booked} metrics")

    def is_ready(self, mark: Mark) -> bool:
        """Whether the part is written, or writing it has failed."""
        part = self._closed.get(mark.log)
        return part is None or part.writing is None or part.writing.done()

    def commit(self, mark: Mark) -> None:
        """Wait until the part is written, durably; if that fails, begin it anew and raise."""
        part = self._closed.get(mark.log)
        if part is None or part.writing is None:
            return
        try:
            part.writing.result()
        except BaseException:
            self._start(mark.log, part)  # for the next try
            raise
        del self._closed[mark.log]

    def close(self) -> None:
        """Wait until no part is being written any more."""
        self._writers.shutdown()
