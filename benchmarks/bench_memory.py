"""Memory: of a flusher through a long run and its merge, and of a worker that logs."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from harness import Bench, flusher_of, main, wait_for_quiet

import shmlog

BLOCK = 10_000
METRICS = 10
WORKER = """
import re, sys
from pathlib import Path
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
if sys.argv[1] == "log":
    import shmlog
    run = shmlog.attach()
    for step in range(100_000):
        run.log("loss", 0.5, step)
print(resident())
"""


class Watch(threading.Thread):
    """Looks at the flusher's own memory, without the segment, until it is gone."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__()
        self._run_dir = run_dir
        self._over = threading.Event()
        self.logging: list[float] = []
        self.merging: list[float] = []
        self.samples = self.logging

    def run(self) -> None:
        flusher = flusher_of(self._run_dir)
        while flusher is not None and not self._over.wait(0.05):
            try:
                status = (flusher / "status").read_text()
            except OSError:
                return
            found = re.search(r"RssAnon:\s+(\d+)", status)
            if found is None:
                return
            self.samples.append(int(found[1]) / 1024)


def long_run(bench: Bench) -> None:
    """Log as fast as the flusher takes it."""
    records = bench.size(100_000_000, 2_000_000)
    noise = np.random.default_rng(0).normal(size=BLOCK)
    with shmlog.init("memory", root=bench.folder, max_wait=60.0) as run:
        metrics = [run.metric(f"metric{i}") for i in range(METRICS)]
        run.log("started", True)
        run.flush()
        watch = Watch(Path(run.dir))
        watch.start()
        for first in range(0, records // METRICS, BLOCK):
            for metric in metrics:
                metric.extend(noise, range(first, first + BLOCK))
            run.flush()  # faster than that for long, records drop
        dropped = sum(run.stats["dropped"].values())
        watch.samples = watch.merging
    wait_for_quiet(Path(run.dir))
    watch.join()
    if dropped:
        raise SystemExit(f"{dropped} records were dropped")
    fifth = max(1, len(watch.logging) // 5)
    bench.record(f"flusher, {records:,} records: first fifth", "MiB", watch.logging[:fifth])
    bench.record(f"flusher, {records:,} records: last fifth", "MiB", watch.logging[-fifth:])
    bench.record(f"flusher, {records:,} records: finish and merge", "MiB", watch.merging or [0.0])


def worker(bench: Bench) -> None:
    """Measure what a process takes more when it logs, segment included."""
    with shmlog.init("worker", root=bench.folder) as run:
        run.log("started", True)

        def resident(what: str) -> float:
            command = [sys.executable, "-c", WORKER, what]
            return float(subprocess.run(command, cwd=bench.folder, capture_output=True, text=True, check=True).stdout)

        taken = [resident("log") - resident("nothing") for _ in range(bench.size(10, 2))]
    bench.record("resident memory of a worker that logs, over bare Python", "MiB", taken, "<= 6")


def benchmark(bench: Bench) -> None:
    """Measure the worker, then the flusher."""
    worker(bench)
    long_run(bench)


if __name__ == "__main__":
    main([benchmark])
