"""Sinks of any kind are told each batch once, and the books come after all of them, whatever fails meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shmlog.flusher.sealer import Sealer
from shmlog.flusher.sinks import Mark, Sink, open_sinks
from shmlog.folder.extent import Extent
from shmlog.records.decode import Batch
from shmlog.records.ledger import Ledger
from tests.support.folders import Folder, fill, simple_log


class Notes(Sink):
    """Notes what it is told, and fails when ``fail`` says so."""

    def __init__(self, name: str, fail: Callable[[str], None], told: list[str]) -> None:
        self._name = name
        self._fail = fail
        self._told = told
        self._rows = 0

    def take(self, batch: Batch) -> None:
        self._rows += batch.metrics.num_rows

    def retry(self) -> None:
        self._fail(f"{self._name} retry")

    def mark(self, log: int) -> Mark:
        self._fail(f"{self._name} mark")
        self._told.append(f"{self._name} marks log {log} after {self._rows} rows")
        return Mark(log, {self._name: Extent(self._rows, log)})

    def commit(self, mark: Mark) -> None:
        self._fail(f"{self._name} commit")
        self._told.append(f"{self._name} commits log {mark.log}")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "run")
    first = simple_log()
    second = first.next()
    fill(second)
    made.add(first)
    made.add(second)
    return made


def test_sinks_that_cannot_all_be_opened_leave_none_open(tmp_path: Path) -> None:
    layout = Folder(tmp_path / "run").layout
    layout.run_log.unlink(missing_ok=True)
    layout.run_log.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(OSError, match=r"run\.log"):
            open_sinks(layout, Ledger.load(layout), ["parquet"], progress=lambda: None, report=print)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("step", ["retry", "mark", "commit"])
@pytest.mark.parametrize("who", ["a", "b"])
def test_an_error_of_one_sink_has_no_other_told_twice(folder: Folder, who: str, step: str) -> None:
    failures = [OSError(errno.EIO, "once")]

    def fail(what: str) -> None:
        if what == f"{who} {step}" and failures:
            raise failures.pop()

    told: list[str] = []
    ledger = Ledger.load(folder.layout)
    sinks = [Notes(name, fail, told) for name in "ab"]
    sealer = Sealer(folder.layout, ledger, sinks, lambda: None, lambda message: None)
    with pytest.raises(OSError, match="once"):
        sealer.catch_up(1, wait=True)
    assert not folder.layout.sealed_json.exists(), "the books come after all sinks"
    sealer.catch_up(2, wait=True)
    rows = [len(folder.records) // 2, len(folder.records)]  # after each log
    marks = [text for text in told if "marks" in text]
    assert sorted(marks) == [f"{name} marks log {log} after {rows[log]} rows" for name in "ab" for log in (0, 1)]
    assert Ledger.load(folder.layout).next_log == 2
    assert ledger.extents["a"] == ledger.extents["b"] == Extent(rows[1], 1)
