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
from shmlog import attach
start = time.perf_counter()
run = attach()
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
    inits, attaches, firsts, at_once, forked, finishes = [], [], [], [], [], []
    for _ in range(bench.size(20, 4)):
        start = time.perf_counter()
        run = shmlog.init("start", root=bench.folder)
        inits.append((time.perf_counter() - start) * 1e3)
        first_log = lambda run=run: milliseconds(lambda: run.log("loss", 0.5, 0))  # type: ignore[misc]  # noqa: E731
        at_once.append(in_fork(first_log))
        time.sleep(1.0)  # the flusher is there
        forked.append(in_fork(first_log))
        done = subprocess.run(
            [sys.executable, "-c", ATTACH], cwd=bench.folder, capture_output=True, text=True, check=True
        )
        attach, first = (float(word) * 1e3 for word in done.stdout.split())
        attaches.append(attach)
        firsts.append(first)
        finishes.append(milliseconds(run.finish))
        wait_for_quiet(run.dir)
    bench.record("init()", "ms", inits, "<= 15")
    bench.record("attach() in a new process, shmlog imported", "ms", attaches, "<= 3")
    bench.record("first log of a new process, after attach()", "ms", firsts)
    bench.record("first log of a forked child", "ms", forked, "<= 0.2")
    bench.record("first log of a forked child, right after init()", "ms", at_once)
    bench.record("finish() of a run of a second", "ms", finishes)


if __name__ == "__main__":
    main([benchmark])
