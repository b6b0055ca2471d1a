"""Run folders to be damaged, and all that can be read from one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import shmlog
from shmlog.folder import runfile
from shmlog.folder.large import large_name
from tests.support.folders import OWNER, Folder, fill
from tests.support.frames import Log


def rows_of(table: Any) -> list[str]:
    """Return the rows as texts, which are equal where values are NaN."""
    return [repr(row) for row in table.to_pylist()]


def is_checksum(key: str) -> bool:
    """Whether this is the key of the checksum, perhaps damaged: then what it is of is whole."""
    return key.startswith("crc32") or key.endswith("above")


CALLS: dict[str, Callable[[shmlog.StoredRun], Any]] = {
    "metrics": lambda stored: rows_of(stored.metrics()),
    "one metric": lambda stored: rows_of(stored.metrics("loss")),
    "names": lambda stored: stored.names(),
    "events": lambda stored: stored.events(),
    "metric events": lambda stored: stored.events("metrics"),
    "producers": lambda stored: (stored.producers, stored.counts, stored.dropped),
    "config": lambda stored: stored.config,
    "metadata": lambda stored: {k: v for k, v in stored.metadata.items() if not is_checksum(str(k))},
    "status": lambda stored: stored.status,
}


class Answer(NamedTuple):
    """What a call gave: a value, or the error that it raised; and what it warned of."""

    value: Any
    error: str | None
    told: list[str]


def read_all(run_dir: Path) -> dict[str, Answer]:
    """Return what each of `CALLS` gives for a run."""
    return {name: ask(run_dir, name) for name in CALLS}


def ask(run_dir: Path, name: str) -> Answer:
    """Return what one of `CALLS` gives for a run."""
    return answer(run_dir, CALLS[name])


def answer(run_dir: Path, call: Callable[[Any], Any]) -> Answer:
    """Return what a call gives for a run."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            return Answer(call(shmlog.load(run_dir)), None, [str(warning.message) for warning in warned])
        except shmlog.ShmlogError as error:
            return Answer(None, str(error), [])


def make_folder(path: Path, sinks: tuple[str, ...], *, complete: bool) -> Path:
    """Return a run folder with every kind of record and file."""
    folder = Folder(path, sinks)
    runfile.write(folder.layout.config_yaml, {"lr": 0.1, "layers": [1, 2], "name": "ü"})
    folder.layout.large.mkdir()
    log = Log()
    log.lane(0).owner(OWNER)
    log.lane(1).owner({**OWNER, "pid": 42, "rank": None})
    for number in range(4):
        _fill(folder, log, number)
        folder.add(log)
        log = log.next()
    folder.seal(2)
    if complete:
        folder.complete()
        folder.merge()
    return folder.dir


def _fill(folder: Folder, log: Log, number: int) -> None:
    fill(log, 6)
    other = log.lane(1)
    for step in range(5):
        other.metric("accuracy", step / 7, step, step)
        other.event("mark", {"of": "another", "step": step, "value": step / 3}, step)
    text = f"text {number} " * 30
    name = large_file(folder, text.encode())
    other.file_metric("report", name, text, 1, 9)
    data = b'{"large":"' + b"y" * 200 + b'"}'
    other.file_event("big", large_file(folder, data), len(data), 10)
    log.frame(now=50 + number)


def large_file(folder: Folder, data: bytes) -> str:
    """Put a payload into a file of its own; return the path that a record names."""
    name = f"large/{large_name(data)}"
    (folder.dir / name).write_bytes(data)
    return name
