"""Every call of the core with every allocation failing: ``no_memory_workload.py ROOT``.

Prints a JSON object: the calls that did not raise, by the name that they log, and `told`.
"""

from __future__ import annotations

import _testcapi
import gc
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import shmlog
from shmlog import _bulk, _core

CLEAN = 4
"""So many calls in a row that succeed: none of their allocations was reached by the fault."""

told: dict[str, tuple[int, int]] = {}
"""By call, how often it raised, and how often it dropped."""


def exhaust(run: shmlog.Run, what: str, call: Callable[[], Any]) -> int:
    """Call with the n-th allocation failing, alone and with all that follow; return how many calls succeeded."""
    call()  # what is imported or cached once is not what is tested
    succeeded, raised, dropped = 1, 0, 0
    for rest in (False, True):
        n = clean = 0
        while clean < CLEAN:
            print(what, n, rest, file=sys.stderr, flush=True)
            before = sum(run.stats["dropped"].values())
            gc.disable()
            _testcapi.set_nomemory(n, 0 if rest else n + 1)
            try:
                call()
            except MemoryError:
                failed = True
            else:
                failed = False
            finally:
                _testcapi.remove_mem_hooks()
                gc.enable()
            drops = sum(run.stats["dropped"].values()) - before
            raised, succeeded, dropped = raised + failed, succeeded + (not failed), dropped + bool(drops)
            clean = 0 if failed or drops else clean + 1
            n += 1
            assert n < 10_000, f"{what}: no end"
    told[what] = raised, dropped
    return succeeded


def main(root: Path) -> None:
    run = shmlog.init("memory", root=root, lane_records=4096, lanes=1024)
    metric = run.metric("handle")
    count: dict[str, int] = {}
    array, steps = np.arange(3.0), np.arange(3)
    listed = [1.0, 2, True]
    long_text = "a text that takes a few slots"
    large_text = "x" * 70_000
    fresh = iter(range(10**9))
    count["float"] = exhaust(run, "log", lambda: run.log("float", 1.5, step=3))
    count["plain"] = exhaust(run, "log without a step", lambda: run.log("plain", 7))
    count["text"] = exhaust(run, "log of a text", lambda: run.log("text", long_text))
    count["large"] = exhaust(run, "log of a large text", lambda: run.log("large", large_text))
    count["row"] = exhaust(run, "log of a dict", lambda: run.log({"row": 1.0, "row text": long_text, "row int": 3}))
    count["handle"] = exhaust(run, "handle", lambda: metric(2.0, 5)) + exhaust(
        run, "handle.log", lambda: metric.log(True)
    )
    exhaust(run, "a new handle", lambda: run.metric(f"new{next(fresh)}"))
    exhaust(run, "a new name", lambda: run._intern(f"name{next(fresh)}"))
    extended = run.metric("extended")
    calls = exhaust(run, "extend with an array", lambda: extended.extend(array, steps))
    calls += exhaust(run, "extend with a list", lambda: extended.extend(listed))
    count["extended"] = 3 * calls
    events = exhaust(run, "event", lambda: run.event("happened", {"a": [1, 2.5, "ü"]}))
    exhaust(run, "stats", lambda: run.stats)
    exhaust(run, "positions", run._positions)
    exhaust(run, "settle", run._settle)
    exhaust(run, "request a sync", run._request_sync)
    exhaust(run, "flush", lambda: run.flush(timeout=0.0))
    _segments(run)
    _drains(run)
    exhaust(run, "attach", lambda: _join(run))
    _children(run, count)
    assert run.finish()
    json.dump({"run": str(run.dir), "count": count, "events": events, "told": told}, sys.stdout)


def _segments(run: shmlog.Run) -> None:
    segment = run._segment
    for name in ("run_id", "run_dir", "unlaned", "path"):
        exhaust(run, f"Segment.{name}", lambda name=name: getattr(segment, name))
    exhaust(run, "Segment.lane", lambda: segment.lane(0))
    exhaust(run, "Segment.open", lambda: _open(segment.path))
    exhaust(run, "crc32", lambda: _bulk.crc32(b"abc"))
    with tempfile.TemporaryDirectory() as folder:
        exhaust(run, "Segment.create", lambda: _create(f"{folder}/segment"))


def _open(path: str) -> _core.Segment:
    """Open a segment as shm.open_segment() does, but for posix_ipc, which dies without memory."""
    fd = os.open(path, os.O_RDWR)
    try:
        return _core.Segment.open(fd, path)
    except BaseException:
        os.close(fd)
        raise


def _join(run: shmlog.Run) -> None:
    """Attach as another process does."""
    producer = _core.RunBase()
    producer._join(_open(run._segment.path), run._segment.path, True, 0)
    producer._leave()


def _create(path: str) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        segment = _core.Segment.create(
            fd, path, run_id="id", run_dir="dir", lanes=2, lane_slots=64, clock=_core.CLOCK_MONOTONIC
        )
    except BaseException:
        os.close(fd)
        raise
    segment.lock(_core.LOCK_FLUSHER)


def _drains(run: shmlog.Run) -> None:
    """Drain an own segment, as the flusher does."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/segment"
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        segment = _core.Segment.create(
            fd, path, run_id="id", run_dir="dir", lanes=2, lane_slots=64, clock=_core.CLOCK_MONOTONIC
        )
        drain = _core.Drain(segment, os.open(folder, os.O_RDONLY), 0, None)
        exhaust(run, "Drain()", lambda: _new_drain(segment, folder))
        exhaust(run, "Drain.restore", lambda: drain.restore(0, 0, 0, 1, (0,) * 6, b"{}"))
        exhaust(run, "Drain.next_log", drain.next_log)
        exhaust(run, "Drain.drain_pass", drain.drain_pass)
        exhaust(run, "Drain.sync", drain.sync)
        exhaust(run, "Drain.settle", drain.settle)
        exhaust(run, "Drain.closed_below", lambda: (drain.closed_below, drain.frames, drain.slots, drain.log_bytes))


def _new_drain(segment: _core.Segment, folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        _core.Drain(segment, fd, 0, None)
    except BaseException:
        os.close(fd)
        raise


def _children(run: shmlog.Run, count: dict[str, int]) -> None:
    """The first call of a process, which allots a lane, with each of its allocations failing."""
    count["first"] = 0
    for rest in (False, True):
        for n in range(150):
            pid = os.fork()
            if pid == 0:
                os._exit(_first_call(run, n, rest))
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert status in (0, 1), f"the first call of a process, allocation {n}: died by {status}"
            count["first"] += status == 0


def _first_call(run: shmlog.Run, n: int, rest: bool) -> int:
    gc.disable()
    _testcapi.set_nomemory(n, 0 if rest else n + 1)
    try:
        run.log("first", 1.0, step=n)
    except MemoryError:
        failed = True
    else:
        failed = False
    _testcapi.remove_mem_hooks()
    return int(failed)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
