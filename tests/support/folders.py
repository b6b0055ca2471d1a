"""Run folders made from logs built byte by byte, and every state they pass through."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from shmlog.flusher import closing
from shmlog.flusher.sealer import Sealer, remove_wal
from shmlog.flusher.sinks import open_sinks
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.folder.logsettings import settings_of
from shmlog.records.ledger import Ledger
from shmlog.records.merge import merge
from tests.support.frames import Happening, Log, Record

OWNER = {"pid": 41, "rank": 3, "local_rank": 1, "worker": None, "host": "h", "started_ns": 1, "process": "p"}


class Folder:
    """A run folder, and what should be read from it."""

    def __init__(self, path: Path, sinks: tuple[str, ...] = ("parquet",)) -> None:
        self.layout = RunLayout(path)
        self.layout.metrics.mkdir(parents=True)
        self.layout.wal.mkdir()
        self.records: list[Record] = []
        self.happenings: list[Happening] = []
        self.described: dict[str, Any] = {
            "schema": 1, "run_id": path.name, "experiment": path.parent.name, "status": "running",
            "sinks": list(sinks), "host": "elsewhere", "boot_id": "another", "segment": None, "complete": False,
        }  # fmt: skip
        self.describe()

    @property
    def dir(self) -> Path:
        return self.layout.dir

    def describe(self, **changes: Any) -> None:
        """Write run.yaml."""
        self.described |= changes
        runfile.write_sealed(self.layout.run_yaml, self.described)

    def add(self, log: Log) -> None:
        """Put a log into the folder."""
        self.layout.log(log.number).write_bytes(log.of_run(self.described["run_id"]))
        self.records += log.records
        self.happenings += log.happenings

    def seal(self, below: int) -> None:
        """Seal the logs below a number, as the flusher does."""
        sealer = self.open_sealer()
        seal_one_by_one(sealer, below)
        sealer.close()

    def open_sealer(self) -> Sealer:
        ledger = Ledger.load(self.layout)
        sinks = open_sinks(
            self.layout, ledger, self.described["sinks"], progress=lambda: None, report=lambda message: None,
            text_bytes_max=settings_of(self.described.get("structured_log")).rotate_bytes,
        )  # fmt: skip
        return Sealer(self.layout, ledger, sinks, lambda: None, lambda message: None)

    def complete(self) -> None:
        """Seal all and close the run, as the flusher does."""
        sealer = self.open_sealer()
        seal_one_by_one(sealer, max(self.layout.logs(), default=-1) + 1)
        sealer.close()
        ledger = sealer.ledger
        self.describe(
            complete=True, status="success", producers=ledger.producers(), counts=ledger.counts(),
            dropped=ledger.dropped(), offered=ledger.offered(), kept_logs=ledger.kept_logs,
            files=closing.written_files(self.layout, ledger),
        )  # fmt: skip
        remove_wal(self.layout, ledger.kept_logs)

    def merge(self) -> None:
        """Merge all parts."""
        if len(self.layout.parts()) > 1:
            merge(self.layout, run_id=self.dir.name, parts=self.layout.parts(), progress=lambda: None)


def seal_one_by_one(sealer: Sealer, below: int) -> None:
    """Seal log by log, so that the steps of one are not mixed with those of the next."""
    for number in range(sealer.next_log, below):
        sealer.catch_up(number + 1, wait=True)


def simple_log(number: int = 0, rows: int = 20) -> Log:
    """Return a log of one lane with metrics of all kinds, events and a gap."""
    log = Log(number)
    lane = log.lane(0)
    lane.owner(OWNER)
    fill(log, rows)
    return log


def fill(log: Log, rows: int = 20) -> None:
    """Add records to a log, in two frames."""
    lane = log.lane(0)
    for step in range(rows):
        lane.row({"loss": step / 4, "n": step, "good": step % 2 == 0, "note": f"a text of step {step}"}, step, step)
    log.frame(now=rows)
    lane.event("checked", {"a": [1, None, "ü"]}, rows)
    lane.gap([lane.gapped[0] + 5, 0, 0, 0, 0, 0], rows)
    lane.metric("loss", float("nan"), rows, rows)
    log.frame(now=rows + 1)


@contextmanager
def states_of(folder: Path, copies: Path) -> Iterator[list[Path]]:
    """Copy ``folder`` before each step that changes a file in it, and at the end.

    What a kill could leave is among the copies, which are in the list afterwards.
    """
    states: list[Path] = []
    one_step = threading.Lock()  # parts are written in several threads

    def copy() -> None:
        states.append(copies / str(len(states)) / folder.name)
        shutil.copytree(folder, states[-1])

    def stepping(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            with one_step:
                copy()
                return function(*args, **options)

        return step

    # Only by name: copytree must not copy itself.
    names = ("replace", "write", "ftruncate", "fsync")
    patches = [mock.patch.object(os, name, stepping(getattr(os, name))) for name in names]
    patches.append(mock.patch.object(Path, "unlink", stepping(Path.unlink)))
    for patch in patches:
        patch.start()
    try:
        yield states
    finally:
        for patch in patches:
            patch.stop()
        copy()
