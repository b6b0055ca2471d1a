"""What the flusher costs while nothing is logged: percent of a core."""

from __future__ import annotations

import time
from pathlib import Path

from harness import Bench, flusher_of, main

import shmlog


def cpu_seconds(process: Path) -> float:
    """Return the processor time of all threads, to the nanosecond."""
    threads = process.glob("task/*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def benchmark(bench: Bench) -> None:
    """Let a run lie idle, and watch its flusher window by window."""
    with shmlog.init("idle", root=bench.folder) as run:
        for step in range(1000):
            run.log("loss", 0.5, step)
        run.flush()
        time.sleep(bench.size(8, 5))  # until what was logged is sealed
        flusher = flusher_of(run.dir)
        if flusher is None:
            raise SystemExit("no flusher is running")
        shares = []
        for _ in range(bench.size(10, 3)):
            before, start = cpu_seconds(flusher), time.perf_counter()
            time.sleep(3.0)
            shares.append((cpu_seconds(flusher) - before) / (time.perf_counter() - start) * 100)
    bench.record("idle flusher", "% of core", shares, "<= 0.2")


if __name__ == "__main__":
    main([benchmark])
