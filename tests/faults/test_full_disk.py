"""A disk that is really full, and one that fails under producers: FAULTS P4, rows 44, 47, 48 and 50.

Producers go on (P7, I9), drops are exact and say why (I4), nothing that is durable is
touched, and it goes on by itself, without another flusher, within 5 s.
"""

from __future__ import annotations

import errno
import importlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import shmlog
from shmlog import _core
from shmlog.flusher import __main__ as flusher_main
from shmlog.flusher.recover import recover
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import SegmentRef
from shmlog.segment import shm
from tests.faults.syscalls import FAIL, Background, Fault, Point, build, fork_traced, read_log
from tests.support.books import assert_books_balance, assert_in_order
from tests.support.processes import flusher_pid, is_flusher_gone, wait_for_end, wait_for_flusher, wait_until
from tests.support.tools import need

ROOT = Path(__file__).parents[2]
HEALED_S = 5.0

FULL = """
import os, sys, time
from pathlib import Path
import shmlog
from tests.support.books import assert_books_balance, assert_in_order
from tests.support.processes import flusher_pid, wait_for_end, wait_for_flusher, wait_until

disk = Path(sys.argv[1])
ballast = disk / "ballast"
run = shmlog.init("full", root=disk / "runs", lane_records=4096, max_wait=2, sinks=("parquet", "jsonl"))
metric = run.metric("x")
n = 0
def log(count):
    global n
    longest = 0.0
    for n in range(n, n + count):
        begun = time.perf_counter()
        metric(float(n), n)
        longest = max(longest, time.perf_counter() - begun)
    n += 1
    return longest
log(5000)
assert run.flush(durable=True)
pid = wait_for_flusher(run.dir)
durable = {path: path.read_bytes() for path in run.dir.rglob("*.wal")}

with open(ballast, "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
for _ in range(50):
    log(1000)
assert run.stats["dropped"]["disk"], f"I4: drops that do not name the disk: {run.stats['dropped']}"
waits = run.stats["waits"]
longest = log(50_000)
assert run.stats["waits"] - waits <= 1, "I9: one wait for as long as nothing moves"
assert longest < 5, f"I9: a call took {longest} s"
assert run.flush(timeout=1) is False
for path, data in durable.items():
    if path.exists():
        assert path.read_bytes()[:len(data)] == data, f"P4: {path} was changed"
assert flusher_pid(run.dir) == pid, "the flusher outlives a full disk"

ballast.unlink()
wait_until(lambda: run.flush(timeout=1), "records to get through again", timeout=5)
for _ in range(5):  # of a lane's room at most: after ten seconds calls wait for little of the time
    log(1000)
    assert run.flush(timeout=30)
dropped = run.stats["dropped"]
assert flusher_pid(run.dir) == pid, "P4: it resumes without another flusher"
assert run.finish()
wait_for_end(run.dir)
stored = assert_books_balance(run.dir, offered=n)
assert stored.dropped == {reason: count for reason, count in dropped.items() if count}
assert set(stored.dropped) == {"disk"}, stored.dropped
assert stored.status == "success"
gaps = stored.events("gap")
assert sum(gap["data"]["dropped"]["disk"] for gap in gaps) == dropped["disk"]
steps = stored.metrics("x")["step"].to_pylist()
assert sorted(steps)[:5000] == list(range(5000)), "what was durable is there"
assert sorted(steps)[-5000:] == list(range(n - 5000, n)), "what came after is there"
print("done")
"""


def on_small_disk(script: str, megabytes: int, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script with a tmpfs of that size in a mount namespace of its own."""
    need("unshare", "mount")
    if os.geteuid() != 0:
        pytest.fail("needs root, to mount a small disk")
    disk = cwd / "disk"
    disk.mkdir()
    path = cwd / "full.py"
    path.write_text(script)
    command = f'mount -t tmpfs -o size={megabytes}m none "$0" && exec "$@"'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*(p for p in sys.path if p), str(ROOT)])}
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", command, str(disk), sys.executable, str(path), str(disk)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_disk_that_is_full_and_gets_space_again(tmp_path: Path) -> None:
    """FAULTS 47, with the kernel's own ENOSPC."""
    done = on_small_disk(FULL, 8, tmp_path)
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr


def log_beyond_limit(root: Path, count: int, sink: str) -> shmlog.Run:
    """Log under a flusher whose files may have 4 MiB; return the run, which was ended."""
    with shmlog.init("limited", root=root, max_wait=5.0, sinks=(sink,)) as run:
        pid = wait_for_flusher(run.dir)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
        metric = run.metric("x")
        for step in range(count):
            metric(float(step), step)
        assert run.flush()
        assert flusher_pid(run.dir) == pid
    return run


def test_a_limit_on_the_size_of_files_makes_more_logs(tmp_path: Path) -> None:
    """FAULTS 44: a write is short, the next one fails with EFBIG."""
    run = log_beyond_limit(tmp_path, 300_000, "parquet")
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=300_000)
    assert stored.dropped == {}
    assert_in_order(stored, ["x"])


def test_a_limit_that_events_exceed_leaves_the_rest_to_recover(tmp_path: Path) -> None:
    """FAULTS 44: it can't heal in that flusher, which gives up when the run is over."""
    run = log_beyond_limit(tmp_path, 25_000, "jsonl")
    wait_until(lambda: is_flusher_gone(run.dir), "the flusher to give up")
    assert recover(run.dir).changed
    stored = assert_books_balance(run.dir, offered=25_000)
    assert stored.status == "success"
    assert_in_order(stored, ["x"])


def test_a_run_folder_that_is_away_for_a_while(tmp_path: Path) -> None:
    """FAULTS 50: nothing is taken for sealed of what could not be found."""
    run = shmlog.init("away", root=tmp_path)
    metric = run.metric("x")
    for step in range(10_000):
        metric(float(step), step)
    assert run.flush()
    away = tmp_path / "elsewhere"
    pid = wait_for_flusher(run.dir)
    run.dir.rename(away)
    for step in range(10_000, 20_000):
        metric(float(step), step)
    assert run.flush(), "the drain has the folder open"
    run._segment.request_finish(1, True)  # has it close the log, and look for it
    time.sleep(1.5)
    away.rename(run.dir)
    assert flusher_pid(run.dir) == pid
    run.finish()  # on a busy machine it may give up before the flusher has looked again, and loses nothing by that
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=20_000)
    assert_in_order(stored, ["x"])


def test_a_run_folder_that_is_gone_ends_its_flusher_and_nobody_else(tmp_path: Path) -> None:
    """FAULTS 50: the directory is deleted while running."""
    run = shmlog.init("gone", root=tmp_path, lane_records=4096, max_wait=0.05)
    assert run.flush()
    pid = wait_for_flusher(run.dir)
    segment = SegmentRef(runfile.read(run.dir / "run.yaml")["segment"]["name"], Path(run.stats["segment"]))
    shutil.rmtree(run.dir)
    for step in range(20_000):
        run.log("x", float(step), step=step)
    assert run.finish() is False
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the flusher to give up")
    shm.unlink(segment)  # what 'shmlog gc' does


class Failing:
    """A live run whose flusher meets a fault, which this process is a producer of."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, **options: object) -> None:
        self.log = folder / "calls"
        waiting, telling = os.pipe()

        def be_flusher() -> None:
            run_dir = Path(os.fsdecode(os.read(waiting, 4096)))
            log = os.open(RunLayout(run_dir).flusher_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.dup2(log, 2)
            flusher_main.main(run_dir)

        self.child = fork_traced(build(folder), be_flusher)

        def start(layout: RunLayout, segment: _core.Segment) -> None:
            monkeypatch.undo()
            lock = segment.mark_starting()
            self._thread = Background(lambda: self._follow(layout, fault, lambda: segment.mark_started(lock)))
            os.write(telling, os.fsencode(layout.dir))

        monkeypatch.setattr(importlib.import_module("shmlog.run.start"), "start_flusher", start)
        self.run = shmlog.init("failing", root=folder / "runs", **options)  # type: ignore[arg-type]

    def _follow(self, layout: RunLayout, fault: Fault, is_over: Callable[[], None]) -> None:
        try:
            self.code = self.child.follow(fault, folder=layout.dir, shared=None, log=self.log)
        finally:
            is_over()

    def end(self) -> None:
        """Finish the run, which may give up a flusher that is traced and fails, and wait for the flusher's end."""
        self.run.finish()
        self._thread.join()
        assert self.code == 0, f"P4: the flusher has ended with {self.code}"


@pytest.mark.parametrize("error", [errno.EIO, errno.EROFS])
def test_producers_go_on_while_every_call_on_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    fault = Fault(FAIL, Point("writev", "wal/000000.wal", 2), error=error, sticky=True)
    failing = Failing(tmp_path, monkeypatch, fault, lane_records=4096, max_wait=0.05)
    run, child = failing.run, failing.child
    metric = run.metric("x")
    step = 0
    while not run.stats["dropped"]["disk"]:
        metric(float(step), step)
        step += 1
    waits = run.stats["waits"]
    for later in range(step, step + 100_000):
        metric(float(later), later)
    assert run.stats["waits"] - waits <= 1, "I9: one wait for as long as nothing moves"
    assert run.flush(timeout=1) is False
    child.heal()
    wait_until(lambda: run.flush(timeout=1), "records to get through again", HEALED_S)
    metric(-1.0, -1)
    dropped = run.stats["dropped"]["disk"]
    failing.end()
    stored = assert_books_balance(run.dir, offered=step + 100_001)
    assert stored.dropped == {"disk": dropped}


def test_finish_is_bounded_while_the_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: sealing that is tried again and again is no progress."""
    fault = Fault(FAIL, Point("openat", "metrics/node=0/part-000000.parquet.tmp", 1), error=errno.ENOSPC, sticky=True)
    failing = Failing(tmp_path, monkeypatch, fault)
    run = failing.run
    for step in range(1000):
        run.log("x", float(step), step=step)
    begun = time.monotonic()
    assert run.finish() is False
    assert time.monotonic() - begun < 60
    time.sleep(6)  # more tries than a flusher has for its own mistakes
    failing.child.heal()
    failing.end()
    assert assert_books_balance(run.dir, offered=1000).status == "success"


def test_a_failed_fsync_is_never_trusted_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 48: of the log. What it holds counts as durable when it is in a part."""
    fault = Fault(FAIL, Point("fsync", "wal/000000.wal", 1), error=errno.EIO)
    failing = Failing(tmp_path, monkeypatch, fault)
    run = failing.run
    for step in range(1000):
        run.log("x", float(step), step=step)
    wait_until(lambda: run.flush(durable=True), "records to be durable")
    calls = [call.point for call in read_log(failing.log)]
    assert failing.child.hits == 1
    assert Point("fsync", "wal/000000.wal", 2) not in calls, "P5: the second fsync of a log was trusted"
    assert Point("rename", "metrics/node=0/part-000000.parquet.tmp", 1) in calls, "P5: it was not sealed either"
    failing.end()
    assert_books_balance(run.dir, offered=1000)


def test_what_a_failed_fsync_of_events_has_lost_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 48: of events.jsonl, from the log."""
    fault = Fault(FAIL, Point("fsync", "events.jsonl", 1), error=errno.EIO)
    failing = Failing(tmp_path, monkeypatch, fault)
    run = failing.run
    for step in range(100):
        run.event("mark", {"step": step})
    failing.end()
    assert failing.child.hits == 1
    calls = [call.point for call in read_log(failing.log)]
    failed = calls.index(Point("fsync", "events.jsonl", 1))
    again = calls.index(Point("fsync", "events.jsonl", 2))
    between = {point.call for point in calls[failed:again] if point.path == "events.jsonl"}
    assert {"ftruncate", "write"} <= between, "P5: the second fsync was trusted"
    stored = assert_books_balance(run.dir, offered=0)
    assert [event["data"]["step"] for event in stored.events("mark")] == list(range(100))


def test_durable_means_all_logs_also_behind_a_change_of_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: what lies in a log that was closed meanwhile is fsynced too, or sealed."""
    fault = Fault(FAIL, Point("writev", "wal/000000.wal", 2), error=errno.EIO)
    failing = Failing(tmp_path, monkeypatch, fault)
    run = failing.run
    wait_until(lambda: run.flush(), "the first record")
    run.log("x", 1.0)
    wait_until(lambda: run.flush(durable=True), "records to be durable")
    calls = [call.point for call in read_log(failing.log)]
    first = {Point("fsync", "wal/000000.wal", 1), Point("unlink", "wal/000000.wal", 1)}
    assert first & set(calls), "P5: the log before the last was neither fsynced nor sealed"
    assert Point("fsync", "wal/000001.wal", 1) in calls
    failing.end()
    assert_books_balance(run.dir, offered=1)
