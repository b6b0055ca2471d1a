"""Which run is current: in threads and tasks, before there is one, and after it has ended."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import shmlog
from shmlog.errors import RunStateError
from tests.support.books import assert_books_balance
from tests.support.processes import run_script, wait_for_end, wait_until

Start = Callable[[], shmlog.Run]

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return what starts runs; those that a failed test leaves are finished."""
    runs: list[shmlog.Run] = []

    def init() -> shmlog.Run:
        runs.append(shmlog.init("current", root=tmp_path / "runs"))
        return runs[-1]

    yield init
    for run in runs:
        run.finish()


def in_thread(work: Callable[[], None]) -> None:
    """Do it in a thread of its own, and fail if it fails."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(work).result()


def values(run: shmlog.Run) -> list[int]:
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir)
    return sorted(stored.metrics("x")["int_value"].to_pylist())


# ---- threads and tasks ----


def test_a_thread_logs_into_the_run_that_it_made(start: Start) -> None:
    both_are_there = threading.Barrier(2)

    def work(number: int) -> tuple[shmlog.Run, shmlog.Run | None]:
        with start() as run:
            both_are_there.wait(60)
            for i in range(100):
                shmlog.log("x", 1000 * number + i)
            shmlog.metric("y")(number)
            shmlog.event("mine", {"number": number})
            current = shmlog.current()
            both_are_there.wait(60)
        return run, current

    with ThreadPoolExecutor(2) as threads:
        runs = list(threads.map(work, range(2)))
    for number, (run, current) in enumerate(runs):
        assert current is run
        assert values(run) == list(range(1000 * number, 1000 * number + 100))
        stored = shmlog.load(run.dir)
        assert stored.dropped == {}
        assert stored.metrics("y")["int_value"].to_pylist() == [number]
        assert [event["data"]["number"] for event in stored.events("mine")] == [number]


def test_a_task_logs_into_the_run_that_it_made(start: Start) -> None:
    async def work(number: int, both_are_there: asyncio.Barrier) -> shmlog.Run:
        run = start()
        for i in range(100):
            if i in (0, 50):
                await both_are_there.wait()
            shmlog.log("x", 1000 * number + i)
        assert shmlog.current() is run
        return run

    async def both() -> list[shmlog.Run]:
        barrier = asyncio.Barrier(2)
        return await asyncio.gather(work(0, barrier), work(1, barrier))

    runs = asyncio.run(both())
    for number, run in enumerate(runs):
        assert run.finish()
        assert values(run) == list(range(1000 * number, 1000 * number + 100))


def test_a_thread_that_made_none_logs_into_the_only_open_run(start: Start) -> None:
    with start() as run:
        in_thread(lambda: shmlog.log("x", 1))
    assert values(run) == [1]


def test_what_might_be_of_either_run_is_dropped(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    runs: list[shmlog.Run] = []
    for _ in range(2):
        in_thread(lambda: runs.append(start()))
    with caplog.at_level(logging.WARNING, "shmlog"):
        in_thread(lambda: [shmlog.log("x", i) for i in range(30)])
    assert len([record for record in caplog.records if "ambiguous" in record.getMessage()]) == 1
    runs[0].log("x", 100)
    assert runs[1].finish()
    in_thread(lambda: shmlog.log("x", 200))  # there is only one again
    assert runs[0].finish()
    assert [values(run) for run in runs] == [[100, 200], []]
    dropped = [shmlog.load(run.dir).dropped for run in runs]
    assert sum(counts.pop("ambiguous", 0) for counts in dropped) == 30
    assert dropped == [{}, {}]


def test_each_way_to_log_counts_all_that_might_be_of_either_run(start: Start) -> None:
    metric = shmlog.metric("x")
    runs: list[shmlog.Run] = []
    for _ in range(2):
        in_thread(lambda: runs.append(start()))

    def log() -> None:
        shmlog.log({"a": 1, "b": 2})
        shmlog.event("mine")
        metric(1.0, 0)
        metric.extend([1.0, 2.0, 3.0])

    in_thread(log)
    assert all(run.finish() for run in runs)
    assert sum(shmlog.load(run.dir).dropped.get("ambiguous", 0) for run in runs) == 7


def test_a_thread_whose_run_has_ended_logs_into_nobody_elses(start: Start) -> None:
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as another:
        first = one.submit(start).result()
        one.submit(first.finish).result()
        second = another.submit(start).result()
        one.submit(shmlog.log, "x", 1).result()
    assert second.finish()
    assert values(second) == []
    assert shmlog.load(first.dir).dropped == {"closed": 1}


# ---- what outlives a run ----


def log_until_told(metric: shmlog.Metric, run: shmlog.Run, stopped: Path) -> int:
    """Log with handles that came with the task; returns the calls."""
    calls = 0
    while not stopped.exists():
        metric(calls, calls)
        run.log("y", calls, calls)
        calls += 2
    return calls


@pytest.mark.parametrize("method", METHODS)
def test_handles_of_a_task_that_outlives_its_run_stay_with_that(start: Start, method: str, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    with multiprocessing.get_context(method).Pool(1) as pool:
        first = start()
        task = pool.apply_async(log_until_told, (first.metric("x"), first, stopped))
        wait_until(lambda: shmlog.load(first.dir).metrics("y").num_rows > 0, "the task to log")
        assert first.finish()
        second = start()
        wait_until(lambda: "closed" in shmlog.load(first.dir).dropped, "what comes late to be dropped")
        stopped.touch()
        calls = task.get(60)
        pool.close()
        pool.join()
    assert second.finish()
    wait_for_end(first.dir)
    stored = shmlog.load(first.dir)
    assert stored.metrics(["x", "y"]).num_rows + stored.dropped["closed"] == calls, "I4"
    assert shmlog.load(second.dir).metrics().num_rows == 0


OUTLIVES = """
import gc, os, sys
from pathlib import Path
import shmlog

def used():
    gc.collect()
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/shm/" in line]
    return len(os.listdir("/proc/self/fd")), len(mapped)

for number in range(6):
    run = shmlog.init("outlived", root=sys.argv[1])
    assert run.stats["flusher"] != "dead"  # to ask takes a descriptor, which a slow finish needs, too
    run.finish()
    run.log("x", 1)
    if number == 1:
        before = used()
assert used() == before, (before, used())
"""


def test_a_process_that_outlives_many_runs_keeps_nothing_of_them(tmp_path: Path) -> None:
    """Neither a descriptor nor a mapping, though each has refused a record of it after its end."""
    done = run_script(OUTLIVES, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for run_dir in (tmp_path / "runs" / "outlived").iterdir():
        if (run_dir / "run.yaml").exists():
            wait_for_end(run_dir)


# ---- no run ----

LIBRARY = """
import shmlog
shmlog.log("x", 1.0)
shmlog.log({"x": 1.0, "y": 2}, step=3)
shmlog.event("mine", {"a": 1})
shmlog.metric("x")(1.0, 1)
assert shmlog.current() is None
"""


@pytest.mark.parametrize("mode", ["", "disabled"])
def test_without_a_run_library_code_says_nothing(tmp_path: Path, mode: str) -> None:
    done = run_script(LIBRARY, cwd=tmp_path, env={"SHMLOG_MODE": mode})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "runs").exists()


def test_without_a_run_one_debug_line_is_logged(tmp_path: Path) -> None:
    done = run_script("import logging\nlogging.basicConfig(level=logging.DEBUG)\n" + LIBRARY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("DEBUG:shmlog:")]) == 1, done.stderr


def test_a_metric_made_before_any_run_binds_at_its_first_use(start: Start) -> None:
    metric = shmlog.metric("x")
    metric(1, 0)  # nowhere
    with start() as run:
        metric(2, 1)
        metric.log(3, 2)
        metric.extend([4, 5], [3, 4])
    assert values(run) == [2, 3, 4, 5]


def test_strict_mode_raises_where_there_is_no_run(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHMLOG_MODE", "strict")
    for log in (lambda: shmlog.log("x", 1.0), lambda: shmlog.event("mine"), lambda: shmlog.metric("x")(1.0, 1)):
        with pytest.raises(RunStateError, match=r"shmlog\.init"):
            log()
    with start() as run:
        shmlog.log("x", 1)
    assert values(run) == [1]


# ---- what children find afterwards ----


@pytest.mark.parametrize("before", [None, "segment:/somewhere"])
def test_the_environment_is_as_it_was_before_the_run(
    start: Start, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    if before is not None:
        monkeypatch.setenv("SHMLOG_RUN", before)
    with start() as run:
        assert os.environ["SHMLOG_RUN"].endswith(str(run.dir))
        with start() as inner:
            assert os.environ["SHMLOG_RUN"].endswith(str(inner.dir))
        assert os.environ["SHMLOG_RUN"].endswith(str(run.dir))
    assert os.environ.get("SHMLOG_RUN") == before


def test_a_run_that_ends_before_a_later_one_is_not_brought_back(start: Start) -> None:
    first = start()
    second = start()
    assert first.finish()
    assert os.environ["SHMLOG_RUN"].endswith(str(second.dir))
    assert second.finish()
    assert "SHMLOG_RUN" not in os.environ


def nothing() -> None:
    pass


def log_nowhere() -> None:
    assert shmlog.current() is None
    shmlog.log("x", 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_child_started_after_the_run_joins_nothing(start: Start, method: str) -> None:
    context = multiprocessing.get_context(method)
    with start() as run:
        child = context.Process(target=nothing)  # it starts a forkserver, which knows the run
        child.start()
        child.join()
    child = context.Process(target=log_nowhere)
    child.start()
    child.join()
    assert child.exitcode == 0
    assert values(run) == []


def test_a_program_started_after_the_run_joins_nothing(tmp_path: Path, start: Start) -> None:
    with start() as run:
        pass
    done = run_script(LIBRARY, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert values(run) == []
    assert shmlog.load(run.dir).dropped == {}
