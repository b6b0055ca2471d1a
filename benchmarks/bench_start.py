"""What it costs to begin and to end: init, attach, first log of a child, finish."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from harness import Bench, main, wait_for_quiet

import shmlog

ATTACH = """
import time
import shmlog
start = time.perf_counter()
run = shmlog.attach()
attached = time.perf_counter()
run.log("loss", 0.5, 0)
print(attached - start, time.perf_counter() - attached)
"""


def in_fork(measure: Callable[[], float]) -> float:
    """Return what ``measure`` returns in a forked child."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, repr(measure()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        result = float(pipe.read())
    os.waitpid(child, 0)
    return result


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def benchmark(bench: Bench) -> None:
    """Measure one run after the other."""
    inits, attaches, firsts, forked, finishes = [], [], [], [], []
    for _ in range(bench.size(20, 4)):
        start = time.perf_counter()
        run = shmlog.init("start", root=bench.folder)
        inits.append((time.perf_counter() - start) * 1e3)
        forked.append(in_fork(lambda run=run: milliseconds(lambda: run.log("loss", 0.5, 0))))  # type: ignore[misc]
        done = subprocess.run(
            [sys.executable, "-c", ATTACH], cwd=bench.folder, capture_output=True, text=True, check=True
        )
        attach, first = (float(word) * 1e3 for word in done.stdout.split())
        attaches.append(attach)
        firsts.append(first)
        finishes.append(milliseconds(run.finish))
        wait_for_quiet(run.dir)
    bench.record("init()", "ms", inits)
    bench.record("attach() in a new process", "ms", attaches)
    bench.record("first log of a new process, after attach()", "ms", firsts)
    bench.record("first log of a forked child", "ms", forked)
    bench.record("finish() of a run of a second", "ms", finishes)


if __name__ == "__main__":
    main([benchmark])
