"""Several producers at once, single calls while the flusher works, and a producer that never pauses."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench_call import BURST, LANE, burst, make_loop
from harness import Bench, flusher_of, main, wait_for_quiet

import shmlog

CALL = "target.log(value, step)"
SPIN_S = 0.002  # a process that wakes late is waited for
BUSY_S = 10.0


def together(bench: Bench, producers: int) -> Iterator[float]:
    """Yield by how much a call costs more when so many processes log at once than when one does."""
    context: Any = multiprocessing.get_context("fork")
    barrier, solo, shared = context.Barrier(producers), context.Queue(), context.Queue()
    rounds = bench.size(300, 30)
    with shmlog.init("many", root=bench.folder, lane_records=LANE) as run:
        children = [
            context.Process(target=take_part, args=(run, rounds, number, barrier, solo, shared))
            for number in range(producers)
        ]
        run.log("started", True)
        time.sleep(2.0)
        for child in children:
            child.start()
        pairs = [(solo.get(), statistics.median(shared.get() for _ in children)) for _ in range(rounds)]
        for child in children:
            child.join()
    yield from (many / alone for alone, many in pairs)


def take_part(run: shmlog.Run, rounds: int, number: int, barrier: Any, solo: Any, shared: Any) -> None:
    """Log a burst alone (the first process does) and one with all others, in turn."""
    loop, metric = make_loop(CALL), run.metric("loss")
    for _ in range(rounds):
        if number == 0:
            solo.put(burst(run, loop, metric, BURST))
        run.flush()
        barrier.wait()
        meet_s = time.perf_counter() + SPIN_S
        while time.perf_counter() < meet_s:
            pass
        shared.put(burst(run, loop, metric, BURST))
        barrier.wait()


def single_calls(bench: Bench) -> None:
    """Time each call by itself, on a core of its own, with the flusher on another."""
    cores = sorted(os.sched_getaffinity(0))
    with shmlog.init("single", root=bench.folder) as run:
        log = run.metric("loss").log
        run.flush()
        time.sleep(2.0)
        flusher = flusher_of(Path(run.dir))
        if flusher is None or len(cores) < 2:
            print("single calls: not measured, they need a second core")
            return
        for thread in (flusher / "task").iterdir():
            os.sched_setaffinity(int(thread.name), cores[1:])
        os.sched_setaffinity(0, cores[:1])
        try:
            rounds = [time_each(log, bench.size(200_000, 20_000)) for _ in range(5)]
        finally:
            os.sched_setaffinity(0, cores)
    for percent in (50, 99, 99.9):
        over = [percentile(taken, percent) - statistics.median(empty) for empty, taken in rounds]
        bench.record(f"single metric.log, percentile {percent:g}, over the timer's median", "ns", over)
    beyond = [percentile(taken, 99.9) - percentile(empty, 99.9) for empty, taken in rounds]
    bench.record("single metric.log, percentile 99.9, over the timer's own", "ns", beyond, "<= 1000")


def time_each(log: Any, calls: int) -> tuple[list[int], list[int]]:
    """Return how long nothing, and each call, took by the timer, in ns."""
    clock = time.perf_counter_ns
    empty, taken = [], []
    for step in range(calls):
        first = clock()
        second = clock()
        log(0.5, step)
        third = clock()
        empty.append(second - first)
        taken.append(third - second)
    return empty, taken


def percentile(values: list[int], percent: float) -> float:
    return float(sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))])


@contextmanager
def all_cores_busy() -> Iterator[None]:
    """Have a process on each core that does nothing else."""
    context = multiprocessing.get_context("fork")
    hogs = [context.Process(target=spin, daemon=True) for _ in os.sched_getaffinity(0)]
    for hog in hogs:
        hog.start()
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()


def spin() -> None:
    while True:
        pass


def without_pause(bench: Bench) -> None:
    """Log without a pause for the first ten seconds of a run, with every core busy, and count what is dropped.

    They count from before init(): after ten seconds a process waits no more than a twentieth of its time.
    """
    seconds = bench.size(int(BUSY_S), 2)
    with all_cores_busy():
        start = time.perf_counter()
        run = shmlog.init("busy", root=bench.folder)
        log, count = run.metric("loss").log, 0
        while time.perf_counter() - start < seconds:
            for step in range(count, count + 1000):
                log(0.5, step)
            count += 1000
        elapsed, stats = time.perf_counter() - start, run.stats
        run.finish()
    wait_for_quiet(Path(run.dir))
    name = f"first {seconds} s of a run without pause, all cores busy"
    bench.record(f"{name}: dropped", "records", [sum(stats["dropped"].values())], "<= 0")
    bench.record(f"{name}: waited", "% of time", [stats["waited_s"] / elapsed * 100])
    bench.record(name, "records/s", [count / elapsed])


def benchmark(bench: Bench) -> None:
    """Measure 2 producers at once, and 4 … 16 where there are as many cores."""
    for producers in (2, 4, 8, 16):
        if producers <= len(os.sched_getaffinity(0)):
            name = f"metric.log in {producers} processes at once / in one"
            bench.record(name, "x", together(bench, producers), "<= 1.15")
    single_calls(bench)
    without_pause(bench)


if __name__ == "__main__":
    main([benchmark])
