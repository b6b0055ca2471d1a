"""Flushers of a prepared run that meet a fault, many of them; the work of a pool of processes."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa

from shmlog.errors import SegmentError
from shmlog.flusher import __main__ as flusher_main
from shmlog.flusher import closing, merger, sealer  # noqa: F401  what a flusher imports late is imported here once
from shmlog.flusher.recover import recover
from shmlog.folder.layout import RunLayout
from shmlog.folder.liveness import LOCK_FLUSHER
from shmlog.folder.segmentref import read_ref
from shmlog.records import merge  # noqa: F401
from shmlog.segment import shm
from tests.faults.prepared import Copy, Membership, Prepared, content, recover_and_check, wait_for_finish
from tests.faults.syscalls import Background, Fault, Point, Seen, Traced, fork, fork_traced, read_log, wait_for
from tests.support.processes import wait_until

pa.array(np.zeros(1), mask=np.zeros(1, bool))  # has pyarrow import pandas where there is one

WORKERS = 2
STICKY_S = 0.15
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Bench:
    """What every trial needs."""

    library: Path
    prepared: Prepared
    expected: str  # content of the run
    scratch: Path


@dataclass(frozen=True)
class Trial:
    """A flusher that meets ``first``, then a recovery that meets ``second``, then one that meets nothing."""

    first: Fault
    second: Fault | None = None

    def __str__(self) -> str:
        return f"flusher: {self.first}" + (f"; recover: {self.second}" if self.second else "")


@dataclass(frozen=True)
class Outcome:
    """How a trial went: whether its faults struck, and what was wrong afterwards."""

    trial: Trial
    struck: bool
    problem: str


def run_flusher(copy: Copy) -> None:
    """Be the flusher of a copy, as start_flusher() would start it, in more of a hurry to try again and to merge."""
    closing.RETRY_S = merger.RETRY_S = 0.05
    merger.FAN_IN = 2
    layout = RunLayout(copy.dir)
    log = os.open(layout.flusher_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 2)
    os.close(log)
    flusher_main.main(copy.dir)


def follow_flusher(library: Path, copy: Copy, fault: Fault, log: Path | None = None) -> tuple[int, bool]:
    """Have a flusher keep a copy while a process is attached, which leaves when its finish is done.

    A fault that stays is healed after a while.
    """
    member = Membership(copy.shared)
    child = fork_traced(library, lambda: run_flusher(copy))
    is_over = threading.Event()
    background = [
        Background(lambda: wait_for_finish(copy, member, is_over)),
        Background(lambda: _end_in_time(child, is_over)),
    ]
    if fault.sticky:
        background.append(Background(lambda: _heal(child, is_over)))
    try:
        code = child.follow(fault, folder=copy.dir, shared=copy.shared, log=log)
    finally:
        is_over.set()
        for thread in background:
            thread.join()
    _wait_for_locks(copy)
    return code, child.hits > 0


def _wait_for_locks(copy: Copy) -> None:
    """Wait until a git that a killed flusher was starting has begun: till then it holds the flusher's locks."""
    try:
        segment = shm.open_segment(read_ref(RunLayout(copy.dir)))
    except (FileNotFoundError, SegmentError):
        return  # the flusher has come to its end
    wait_until(lambda: not segment.probe(LOCK_FLUSHER), "the end of the flusher's locks")


def _end_in_time(child: Traced, is_over: threading.Event) -> None:
    if not is_over.wait(TIMEOUT_S):
        os.kill(child.pid, signal.SIGKILL)


def _heal(child: Traced, is_over: threading.Event) -> None:
    while not child.hits and not is_over.wait(0.01):
        pass
    is_over.wait(STICKY_S)
    child.heal()


def follow_recover(library: Path, copy: Copy, fault: Fault, log: Path | None = None) -> tuple[int, bool]:
    """Have a copy recovered."""
    child = fork_traced(library, lambda: _recover(copy))
    code = child.follow(fault, folder=copy.dir, shared=copy.shared, log=log)
    return code, child.hits > 0


def _recover(copy: Copy) -> None:
    recover(copy.dir)


def calls_of(library: Path, work: Callable[..., tuple[int, bool]], copy: Copy, log: Path) -> list[Seen]:
    """Return the calls of a flusher or recovery that meets nothing."""
    code, _ = work(library, copy, Fault(), log)
    assert code == 0, f"exit code {code}"
    return read_log(log)


def in_child(work: Callable[[], None]) -> str:
    """Do ``work`` in a child, so that this process keeps to one thread; return what went wrong."""
    with tempfile.TemporaryFile() as errors:

        def work_and_tell() -> None:
            os.dup2(errors.fileno(), 2)
            work()

        code = wait_for(fork(work_and_tell))
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    return "" if code == 0 else f"exit code {code}\n{text}"


def try_kill(bench: Bench, trial: Trial) -> Outcome:
    """Kill a flusher, and perhaps its successor; what comes then must be whole."""
    with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
        copy = bench.prepared.copy(Path(folder))
        try:
            _, struck = follow_flusher(bench.library, copy, trial.first)
            if trial.second is not None:
                _, also = follow_recover(bench.library, copy, trial.second)
                struck = struck and also
            problem = in_child(lambda: recover_and_check(bench.prepared, copy, bench.expected))
        except Exception:
            struck, problem = True, traceback.format_exc()
        finally:
            copy.remove()
    return Outcome(trial, struck, problem)


def try_error(bench: Bench, trial: Trial) -> Outcome:
    """Have a flusher meet an error; it must go on by itself, unless it had not begun."""
    with tempfile.TemporaryDirectory(dir=bench.scratch) as folder:
        copy = bench.prepared.copy(Path(folder))
        try:
            code, struck = follow_flusher(bench.library, copy, trial.first)
            told = copy.flusher_log()
            problem = ""
            if code != 0 and not is_at_start(trial.first.point):
                problem = f"P4: the flusher has ended with {code}\n{told}"
            elif code == 0 and RunLayout(copy.dir).wal.exists():
                problem = f"P4: the flusher has not done all of its work\n{told}"
            problem = problem or in_child(lambda: recover_and_check(bench.prepared, copy, bench.expected))
        except Exception:
            struck, problem = True, traceback.format_exc()
        finally:
            copy.remove()
    return Outcome(trial, struck, problem)


def is_at_start(point: Point) -> bool:
    """Whether the call comes before the flusher drains: then it may end, and another is started."""
    opened = {"run.yaml": 2, "wal": 3, "wal/000002.wal": 1, "wal/flusher.log": 1}
    return point.call in ("openat", "close") and point.occurrence <= opened.get(point.path, 0)


def expected_content(prepared: Prepared, scratch: Path) -> str:
    """Return what a copy holds that nothing has befallen."""
    copy = prepared.copy(scratch / "expected")
    recover(copy.dir)
    return content(copy.dir)


@contextmanager
def pool() -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each, which fork those that meet faults."""
    executor = ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def do_all(executor: ProcessPoolExecutor, work: Callable[[Trial], Outcome], trials: Iterable[Trial]) -> list[Outcome]:
    """Do all trials; fail with all that went wrong."""
    outcomes = list(executor.map(work, trials, chunksize=4))
    problems = [f"{outcome.trial}\n{outcome.problem}" for outcome in outcomes if outcome.problem]
    assert not problems, f"{len(problems)} of {len(outcomes)} points:\n" + "\n".join(problems[:5])
    return outcomes
