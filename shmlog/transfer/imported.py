"""A run that an importer reads from a source, before it becomes a run folder."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shmlog.base.times import time_in_range, timestamp
from shmlog.errors import RefusedError
from shmlog.folder.description import Description
from shmlog.folder.files import LOCAL
from shmlog.folder.names import check_experiment
from shmlog.reader.foreign import lacks_zone, step_of, time_us
from shmlog.records.schema import METRICS
from shmlog.records.values import INT32, INT64, VALUE_COLUMNS, cells_of, is_text

OWNER = ("rank", "local_rank", "worker", "pid")
"""The columns of metrics that say who logged a record."""

_TEXTS_KEPT = 5
_NAME_BYTES_MAX = 1024  # as SHMLOG_NAME_BYTES_MAX of csrc/core/format.h


@dataclass
class Rows:
    """Metric records, column by column; ``lane`` is that of the next ones: each attempt has one."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {column.name: [] for column in METRICS})
    lane: int = 0

    def __len__(self) -> int:
        return len(self.columns["step"])

    def add(self, name: str, step: int, value: Any, ts_us: int, owner: dict[str, Any] | None = None) -> str | None:
        """Add a record; return why it was refused, or None."""
        cells = cells_of(value)
        if cells is None:
            return f"{name!r} is {_shown(value)}, which is no value of a metric"
        if not is_text(name):
            return f"name {name!r} is not valid text"
        if not 0 < len(name.encode()) <= _NAME_BYTES_MAX:
            return f"name {name[:40]!r} has {len(name.encode())} bytes, not 1 to {_NAME_BYTES_MAX}"
        if type(step) is not int or step not in INT64:
            return f"{name!r} has step {_shown(step)}"
        columns = self.columns
        for column, cell in zip(VALUE_COLUMNS, cells, strict=True):
            columns[column].append(cell)
        columns["step"].append(step)
        columns["name"].append(name)
        columns["lane"].append(self.lane)
        columns["ts"].append(ts_us if time_in_range(ts_us) else 0)
        for column in OWNER:
            columns[column].append((owner or {}).get(column))
        return None

    def table(self) -> pa.Table:
        """Return the records as a table of schema `METRICS`, in the order they were added."""
        self.columns["pid"] = [-1 if pid is None else pid for pid in self.columns["pid"]]
        self.columns["seq"] = numbers_in(np.array(self.columns["lane"], np.int64)).tolist()
        arrays = [_array(self.columns[column.name], column.type) for column in METRICS]
        return pa.Table.from_arrays(arrays, schema=METRICS)


def numbers_in(lanes: NDArray[np.signedinteger[Any]]) -> NDArray[np.int64]:
    """Return the number of each record among those of its lane, from 0 on, in their order."""
    order = np.argsort(lanes, kind="stable")
    begins = np.flatnonzero(np.diff(lanes[order], prepend=-1))
    numbers = np.empty(len(lanes), np.int64)
    numbers[order] = np.arange(len(lanes)) - np.repeat(begins, np.diff(begins, append=len(lanes)))
    return numbers


def _array(values: list[Any], kind: pa.DataType) -> Any:
    if not pa.types.is_dictionary(kind):
        return pa.array(values, kind)
    return pa.array(values, kind.value_type).dictionary_encode().cast(kind)


def _shown(value: object) -> str:
    if isinstance(value, int) and value not in INT64:
        return f"an int of {value.bit_length()} bits and a sign"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def owner_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a record that say who logged it, as far as they are whole numbers of 32 bits."""
    owner = {name: step_of(record.get(name)) for name in OWNER}
    return {name: number for name, number in owner.items() if number is not None and number in INT32}


@dataclass
class ImportedRun:
    """A run as its source describes it.

    Attributes
    ----------
    experiment : str
        The source's experiment or a part of its name; `fit_name` makes it fit for a folder.
    metrics : Rows or Table
        The records, in order.
    described : Description
        Fields of run.yaml.
    events : list of dict
        ``timestamp`` in µs, ``event_type``, ``data``, and who logged it, as far as the source says.
    of_experiment : dict
        What people have said of the experiment: ``display_name``, ``description``, ``tags``, as far as they have.
    artifacts : dict of str to Path or bytes
        Files to copy, or their content, by their path below artifacts/.
    files : dict of str to Path
        The files that were read; they and the files among ``artifacts`` make the run's identity.
    attempts : list of dict
        The attempts of the run, as run.yaml lists them, if there are several: each has a lane of the records.
    identity : str
        What the run is known by in place of its files, where these hold other runs, too.
    further : list of str
        The other runs that the source holds, each a path to import by itself.
    status : str or None
        The source's own word.
    problems : Problems
        What of the source is not in the run, or not as it was.
    notes : Problems
        How the importer has read what the source leaves open; nothing is missing because of it.
    """

    experiment: str
    metrics: Rows | pa.Table = field(default_factory=Rows)
    described: Description = field(default_factory=Description)
    params: dict[str, Any] = field(default_factory=dict)
    annotations: dict[str, Any] = field(default_factory=dict)
    of_experiment: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    artifacts: dict[str, Path | bytes | memoryview] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    identity: str = ""
    further: list[str] = field(default_factory=list)
    status: str | None = None
    problems: Problems = field(default_factory=lambda: Problems())
    notes: Problems = field(default_factory=lambda: Problems())

    def lasted(self, begin_us: int, end_us: int) -> None:
        """Say when the run was made and has begun, and when it ended."""
        self.described.created_at = self.described.started_at = timestamp(begin_us)
        self.described.ended_at = timestamp(end_us)

    def table(self) -> pa.Table:
        """Return the records as a table of schema `METRICS`; after that, none can be added."""
        if isinstance(self.metrics, Rows):
            self.metrics = self.metrics.table()
        return self.metrics

    @property
    def records(self) -> int:
        """How many records there are."""
        return len(self.metrics) if isinstance(self.metrics, Rows) else int(self.metrics.num_rows)

    def add(self, where: str, name: str, step: int, value: Any, ts_us: int, owner: dict[str, Any]) -> None:
        """Add a record, or note why it was refused."""
        assert isinstance(self.metrics, Rows)
        fault = self.metrics.add(name, step, value, ts_us, owner)
        if fault:
            self.problems.add("records left out", f"{where}: {fault}")

    def step(self, where: str, value: Any, following: int) -> int | None:
        """Return a step, by default the following number, which is noted; None, which is reported, if it is invalid."""
        if value is None:
            self.notes.add("records without a step", f"{where}: no step; it is numbered {following}")
            return following
        step = step_of(value)
        if step is None:
            self.problems.add("invalid steps", f"{where}: step {value!r} is not an integer; left out")
        return step

    def time(self, where: str, value: Any, instead_us: int = 0) -> int:
        """Return a time in µs since 1970; if it is invalid, which is reported, or None the one ``instead_us``."""
        ts_us = time_us(value)
        if ts_us is None:
            fault = "no time" if value is None else f"{value!r} is not a time"
            instead = "that of the record before" if instead_us else "1970"
            self.problems.add("times", f"{where}: {fault}; {instead} instead")
            return instead_us
        if lacks_zone(value):
            self.notes.add("times without a zone", f"{where}: {value} has no zone; read as UTC")
        return ts_us

    def read(self, name: str, path: Path, limit: int | None = None) -> bytes:
        """Return the bytes of a file that belongs to the source; see `_read_file`."""
        data = _read_file(path, limit)
        self.files[name] = path
        return data


class Problems:
    """What an import reports: the first few of each sort, and how many there are."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._texts: dict[str, list[str]] = {}

    def add(self, sort: str, text: str, count: int = 1) -> None:
        """Count a report of some sort, and keep its text if it is among the first."""
        self._count[sort] += count
        texts = self._texts.setdefault(sort, [])
        if len(texts) < _TEXTS_KEPT:
            texts.append(text)

    def __iter__(self) -> Iterator[str]:
        for sort, texts in self._texts.items():
            yield from texts
            if self._count[sort] > len(texts):
                yield f"{sort}: {self._count[sort]} in all"


def _read_file(path: Path, limit: int | None) -> bytes:
    """Return the bytes of a regular file; no link is followed.

    Raises
    ------
    CorruptDataError
        If it is not a regular file, or larger than ``limit``.
    OSError
        If it can't be read.
    """
    with LOCAL.open(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise RefusedError(f"{path}: {size} bytes, more than the {limit} that are read")
        return file.read(size)


def files_below(folder: Path, problems: Problems) -> dict[str, Path]:
    """Return the regular files below a folder by their path in it; links and the like are noted as problems."""
    files = {}
    for place, folders, names in os.walk(folder):
        for name in sorted([*names, *(folder for folder in folders if Path(place, folder).is_symlink())]):
            path = Path(place, name)
            relative = path.relative_to(folder).as_posix()
            if stat.S_ISREG(path.lstat().st_mode) and is_text(relative):
                files[relative] = path
            else:
                problems.add("files left out", f"{path}: not a regular file; left out")
    return files


def fit_name(text: object, instead: str = "imported") -> str:
    """Return a text as a name that an experiment may have: as it is, or with ``_`` for what none can have."""
    with suppress(ValueError):
        return check_experiment(str(text or "").strip())
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(text or "")).strip("_")[:64] or instead
