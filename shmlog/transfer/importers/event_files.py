"""Folders of TensorBoard event files, as torch's SummaryWriter, tensorboardX and TensorFlow write them.

A folder with event files is a run. Writers put what `add_scalars` and `add_hparams` are given into folders below it,
which join the run; all other folders below it that have event files are runs of their own. Several files, one after
the other, are attempts of a run, and so is what follows `purge_step`. TensorBoard's own package decodes the events.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shmlog.base.extras import import_extra
from shmlog.base.times import timestamp
from shmlog.errors import RefusedError
from shmlog.folder.description import Description, begun_attempt
from shmlog.transfer.imported import ImportedRun
from shmlog.transfer.importers.event_values import Values, time_of
from shmlog.transfer.importers.exported_table import add_description

_MARK = "tfevents"  # TensorBoard takes each file with this in its name for an event file


def read(path: Path) -> ImportedRun:
    """Return the run that an event file, or the event files of a folder, describe.

    Raises
    ------
    RefusedError
        If the folder has no event file.
    MissingExtraError
        If the package tensorboard is missing.
    """
    import_extra("tensorboard.compat.proto.event_pb2", "event files")
    folder = path if path.is_dir() else path.parent
    run = ImportedRun(experiment=folder.parent.name)
    run.described.name = folder.name
    paths = _event_files(path) if path.is_dir() else {"events": path}
    if not paths:
        raise RefusedError(f"{path}: there is no event file in it")
    main = _Folder("")
    main.read(paths)
    reading = _Reading(run, main)
    if path.is_dir():
        reading.add_folders_below(path)
    reading.close(path)
    return run


def _event_files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir()) if _MARK in path.name}


@dataclass
class _Part:
    """What one writer has written: a file, or what follows a restart in it; ``row``, ``event``: its first ones."""

    row: int
    event: int
    begin_us: int
    end_us: int
    is_restart: bool = False


class _Folder(Values):
    """The event files of a folder, whose name is relative to that of the run."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.files: dict[str, Path] = {}
        self.parts: list[_Part] = []

    def read(self, paths: dict[str, Path]) -> None:
        """Read event files; if it turns out that the folder is a run of its own, `is_run`, not to the end."""
        for name, path in paths.items():
            where = f"{self.name}/{path.name}".removeprefix("/")
            if path.is_symlink() or not path.is_file():
                self.problems.add("files left out", f"{where}: not a regular file; left out")
                continue
            self.files[f"{self.name}/{name}".removeprefix("/")] = path
            self._read_file(where, path)

    def _read_file(self, where: str, path: Path) -> None:
        part: _Part | None = None
        for event in self._events(where, path):
            ts_us = time_of(event)
            if part is None or event.session_log.status == event.session_log.START:
                part = self._begin(part, ts_us or 0, is_restart=event.HasField("session_log"))
            if ts_us is None:
                self.problems.add("times", f"{where}: {event.wall_time} is not a time; 1970 instead")
            part.end_us = max(part.end_us, ts_us or 0)
            self.add(where, event, ts_us or 0)
            if self.name and self.is_run():
                return

    def _begin(self, part: _Part | None, begin_us: int, *, is_restart: bool) -> _Part:
        """Begin a part; one that holds nothing so far becomes that of the restart."""
        new = _Part(len(self.rows), len(self.events), begin_us, begin_us, is_restart)
        if part is not None and (part.row, part.event) == (new.row, new.event):
            self.parts.remove(part)
        self.parts.append(new)
        return new

    def _events(self, where: str, path: Path) -> Iterator[Any]:
        """Yield the events of a file up to its end, or up to where it is damaged."""
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.tensorflow_stub import errors
        from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

        reader = PyRecordReader_New(os.fspath(path))
        count = 0
        while True:
            try:
                reader.GetNext()
                yield Event.FromString(reader.record())
            except errors.OutOfRangeError:
                if count == 0:
                    self.problems.add("events", f"{where}: holds no event")
                return
            except DecodeError:
                self.problems.add("events", f"{where}: event {count} can't be decoded; left out")
            except (errors.DataLossError, OverflowError) as error:
                why = str(error).removeprefix(f"{path} ") or type(error).__name__
                self.problems.add("events", f"{where}: damaged after {count} events; the rest is left out ({why})")
                return
            count += 1

    # ---- folders below that of the run ----

    def is_run(self) -> bool:
        """Whether it holds what neither `add_scalars` nor `add_hparams` has put there."""
        if self.events or self.artifacts or self.export:
            return True
        if self.has_session:
            return any(count > 1 for count in self.names.values())
        return len(self.names) > 1 or any(self.key_of(tag) is None for tag in self.names)

    def key_of(self, tag: str) -> str | None:
        """Return the key of ``add_scalars(tag, {key: …})`` that has made the folder; None if none has.

        torch makes the folder ``main_tag`` with ``_`` for each ``/``, then ``_`` and the key; tensorboardX
        ``main_tag/key``.
        """
        begin, slash_or_line = self.name[: len(tag)], self.name[len(tag) : len(tag) + 1]
        is_it = begin.replace("/", "_") == tag.replace("/", "_") and slash_or_line in ("/", "_")
        return self.name[len(tag) + 1 :] or None if is_it else None

    # ---- attempts ----

    def begins_of_attempts(self) -> list[int]:
        """Return when each attempt has begun: files whose times overlap are of one attempt."""
        begins: list[int] = []
        end = 0
        for part in sorted(self.filled(), key=lambda part: part.begin_us):
            if not begins or part.is_restart or part.begin_us >= end:
                begins.append(part.begin_us)
            end = max(end, part.end_us)
        return begins

    def filled(self) -> list[_Part]:
        """Return the parts that hold anything."""
        return [part for part, row, event in self._spans() if (part.row, part.event) != (row, event)]

    def assign(self, begins: list[int]) -> None:
        """Give each record and event the lane of its attempt."""
        lanes = self.rows.columns["lane"]
        for part, row, event in self._spans():
            lane = max(0, bisect_right(begins, part.begin_us) - 1)
            lanes[part.row : row] = [lane] * (row - part.row)
            for one in self.events[part.event : event]:
                one["lane"] = lane

    def _spans(self) -> Iterator[tuple[_Part, int, int]]:
        """Yield each part and what follows its last record and event."""
        end = len(self.rows), len(self.events)
        for part in reversed(self.parts):
            yield part, *end
            end = part.row, part.event


class _Reading:
    """The run of a folder, to which those below are joined."""

    def __init__(self, run: ImportedRun, main: _Folder) -> None:
        self._run = run
        self._main = main
        self._folders = [main]

    def add_folders_below(self, path: Path) -> None:
        """Read the folders below that have event files; note those that are runs of their own."""
        sessions: list[_Folder] = []
        for place, folders, _ in os.walk(path):
            folders.sort()
            name = Path(place).relative_to(path).as_posix()
            paths = _event_files(Path(place)) if name != "." else {}
            if not paths:
                continue
            folder = _Folder(name)
            folder.read(paths)
            if folder.is_run():
                self._run.further.append(place)
                folders.clear()
            else:
                (sessions if folder.has_session else self._folders).append(folder)
        if len({json.dumps(folder.params, sort_keys=True) for folder in sessions}) > 1:
            self._run.further += [str(path / folder.name) for folder in sessions]
        else:
            self._folders += sessions

    def close(self, path: Path) -> None:
        """Make the run of all folders that belong to it."""
        run, begins = self._run, self._main.begins_of_attempts()
        if self._main.export is not None:
            self._add_description()
        for folder in self._folders:
            folder.assign(begins)
            self._join(folder)
            for text in folder.problems:
                run.problems.add(text, text)
        run.metrics = self._main.rows
        times = [one for one in run.metrics.columns["ts"] + [event["timestamp"] for event in run.events] if one]
        if times:
            known = {name: text for name, text in run.described.mapping.items() if text is not None}
            run.lasted(min(times), max(times))
            run.described = Description({**run.described.mapping, **known})
        if len(begins) > 1:
            self._list_attempts(begins)
        if not (run.records or run.events or run.params or run.artifacts or run.further):
            run.problems.add("events", f"{len(self._main.files)} event files, and no value in any")

    def _join(self, folder: _Folder) -> None:
        run, rows = self._run, self._main.rows.columns
        run.files |= folder.files
        run.events += folder.events
        run.artifacts |= folder.artifacts
        run.params = {**folder.params, **run.params}
        run.status = run.status or folder.status
        if folder is not self._main:
            names = {tag: self._name_of(folder, tag) for tag in folder.names}
            for column, values in folder.rows.columns.items():
                rows[column] += [names[tag] for tag in values] if column == "name" else values

    def _name_of(self, folder: _Folder, tag: str) -> str:
        """Return the name of a metric of a folder below: the run's own curves stay what they are."""
        if not folder.has_session:
            return f"{tag}/{folder.key_of(tag)}"
        if tag not in self._main.names:
            return tag
        self._run.notes.add("hparams", f"{tag!r} of add_hparams is named {folder.name}/{tag}: the run has a {tag!r}")
        return f"{folder.name}/{tag}"

    def _add_description(self) -> None:
        try:
            add_description(self._run, self._main.export)
        except ValueError as error:
            self._run.problems.add("description", f"the description of the run is damaged ({error})")

    def _list_attempts(self, begins: list[int]) -> None:
        ends = [0] * len(begins)
        for part in self._main.filled():
            lane = max(0, bisect_right(begins, part.begin_us) - 1)
            ends[lane] = max(ends[lane], part.end_us)
        for lane, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            attempt = begun_attempt(lane + 1, first_lane=lane, started_at=timestamp(begin), pid=None)
            self._run.attempts.append(attempt | {"ended_at": timestamp(end)})
