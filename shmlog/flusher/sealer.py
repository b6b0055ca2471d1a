"""From the write-ahead log to events.jsonl, run.log and Parquet parts.

Logs are taken in order. Events of the open log are written as they come; when a
log is closed, its metrics become a part, the books are committed (that is the
one moment at which the log counts as sealed), and the log is deleted. Killed
anywhere, the next sealer cuts the text files back to what the books say and
does the log again, with the same result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from shmlog.flusher.appendfile import AppendFile
from shmlog.storage import jsonl, parts, runfile, wal
from shmlog.storage.decode import Batch, Decoder
from shmlog.storage.layout import RunLayout, fsync_dir
from shmlog.storage.ledger import Ledger


class Sealer:
    """Works through the logs of one run. Every method may raise OSError and be called again."""

    def __init__(
        self, layout: RunLayout, sinks: Iterable[str], progress: Callable[[], None], report: Callable[[str], None]
    ) -> None:
        self.layout = layout
        self.ledger = Ledger.load(layout)
        self._sinks = frozenset(sinks)
        self._progress = progress
        self._report = report
        self._events = AppendFile(layout.events, self.ledger.events_bytes)
        self._run_log = AppendFile(layout.run_log, self.ledger.run_log_bytes)
        self._begin_log(self.ledger.next_log)

    def _begin_log(self, number: int) -> None:
        self._number = number
        self._offset = 0
        self._decoder = Decoder(self.layout.dir)
        self._tables: list[pa.Table] = []
        self._batches: list[Batch] = []

    @property
    def number(self) -> int:
        """The log that is being worked on; all before it are sealed."""
        return self._number

    def catch_up(self, closed_below: int) -> bool:
        """Take what the logs hold by now, and seal those below ``closed_below``.

        Returns whether there was anything to do.
        """
        done = self._read(closed=self._number < closed_below)
        while self._number < closed_below:
            self._seal()
            done = True
            self._read(closed=self._number < closed_below)
        return done

    # ---- reading a log ----

    def _read(self, *, closed: bool) -> bool:
        """Take the frames that were not taken yet. A torn end counts only in a closed log."""
        path = self.layout.log(self._number)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return False
        if size == self._offset:
            return False
        with open(path, "rb") as file:
            file.seek(self._offset)
            data = file.read()
        frames: list[wal.Frame] = []
        start = self._offset
        for found in wal.scan(data, path=path, log=self._number):
            if isinstance(found, wal.Frame):
                frames.append(found)
                self._offset = start + found.offset + found.length
            elif closed:
                self._report(f"{found.path}: {found.reason} at byte {start + found.offset}")
        if frames:
            self._take(self._decoder.decode(frames))
        return bool(frames)

    def _take(self, batch: Batch) -> None:
        self._tables.append(batch.metrics)
        self._batches.append(batch)
        for damage in batch.damage:
            self._report(f"{damage.path}: {damage.reason}")
        self._append(self._run_log, [jsonl.human_lines(batch)])
        self._append(self._events, jsonl.event_lines(batch, metrics="jsonl" in self._sinks))
        self._merge_config(batch)

    def _append(self, file: AppendFile, chunks: Iterable[bytes]) -> None:
        """Append all chunks, or have them wait in the file's object for its next sync()."""
        for chunk in chunks:
            try:
                file.append(chunk)
            except OSError as error:
                self._report(f"{file.path}: {error.strerror}; tried again later")
            self._progress()

    def _merge_config(self, batch: Batch) -> None:
        for event in batch.events:
            if event.event_type == "config":
                merge_config(self.layout, jsonl.event_data(event))

    # ---- sealing a log ----

    def _seal(self) -> None:
        number = self._number
        self._events.sync()
        self._run_log.sync()
        if "parquet" in self._sinks:
            self._write_part(number)
        self._book()
        self.ledger.commit(number + 1, self._events.size, self._run_log.size)
        self.layout.log(number).unlink(missing_ok=True)
        self._progress()
        self._begin_log(number + 1)

    def _write_part(self, number: int) -> None:
        tables = [table for table in self._tables if table.num_rows]
        if tables:
            table = pa.concat_tables(tables).unify_dictionaries()
            parts.write_part(
                self.layout.part(number), table, run_id=self.layout.run_id, first=number, last=number,
                progress=self._progress,
            )  # fmt: skip

    def _book(self) -> None:
        """Book the log's batches; they are forgotten, so that a second try books nothing twice."""
        for batch in self._batches:
            self.ledger.add_batch(batch)
        self._batches = []

    def close(self) -> None:
        """Close the files."""
        self._events.close()
        self._run_log.close()


def merge_config(layout: RunLayout, data: dict[str, Any]) -> None:
    """Put the parameters of a config event into config.yaml."""
    try:
        config = runfile.read(layout.config_yaml)
    except FileNotFoundError:
        config = {}
    merged = {**config, **data}
    if merged != config:
        runfile.write(layout.config_yaml, merged)


def remove_wal(layout: RunLayout) -> None:
    """Remove the logs of a run that is complete, the books last."""
    for number in layout.logs():
        layout.log(number).unlink(missing_ok=True)
    for path in (layout.flusher_log, layout.sealed_json):
        path.unlink(missing_ok=True)
    try:
        os.rmdir(layout.wal)
    except OSError:
        return  # something else lies there; it stays
    fsync_dir(layout.dir)
