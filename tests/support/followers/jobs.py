"""What workers do. Only what logs imports shmlog: a worker may be born before anybody has."""

from __future__ import annotations

import mmap
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

AFTERWARDS = 2000
"""Calls that a worker makes after it was told that the next run has begun."""

inherited: Any = None
"""The run that the parent had open when it forked."""
_kept: Any = None


def fork(work: Callable[[], None]) -> int:
    """Return the pid of a child that does this and exits."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return pid


def serve(connection: Connection) -> None:
    """Do what comes along a connection, until that is None or its other end is closed."""
    try:
        for job, call in iter(connection.recv, None):
            connection.send(job(*call))
    except (EOFError, ConnectionError):
        pass


def nothing() -> None:
    pass


def wait_for(is_true: Callable[[], object]) -> None:
    """Wait for a state; the time is bounded by who has started the program."""
    while not is_true():
        time.sleep(0.002)


# ---- ways to log ----


def _by_name(value: int) -> None:
    import shmlog

    shmlog.log("name", value, step=value)


def _by_handle(value: int) -> None:
    global _kept
    import shmlog

    if _kept is None:
        _kept = shmlog.metric("handle")
    _kept(value, value)


def _in_dict(value: int) -> None:
    import shmlog

    shmlog.log({"dict": value, "other": -value}, step=value)


def _as_event(value: int) -> None:
    import shmlog

    shmlog.event("mine", {"value": value})


def _by_inherited_run(value: int) -> None:
    inherited.log("inherited", value, step=value)


WAYS = {
    "name": _by_name, "handle": _by_handle, "dict": _in_dict, "event": _as_event, "inherited": _by_inherited_run,
}  # fmt: skip


# ---- jobs; what they carry beside their arguments need only be unpickled ----


def log(way: str, values: Iterable[int], *carried: Any) -> tuple[int, int]:
    """Log each value; return who did it, and how often it was refused."""
    from shmlog.errors import RunStateError

    refused = 0
    for value in values:
        try:
            WAYS[way](value)
        except RunStateError:
            refused += 1
    return os.getpid(), refused


def wait_and_log(way: str, values: Iterable[int], folder: Path) -> None:
    """Tell that the worker is born, and log when it is told to."""
    (folder / f"born.{threading.get_native_id()}").touch()
    wait_for((folder / "go").exists)
    for value in values:
        WAYS[way](value)


def log_given(given: Any, values: Iterable[int]) -> None:
    """Log by the run or the metric that came with the task."""
    metric = given.metric("given") if hasattr(given, "metric") else given
    for value in values:
        metric(value, value)


def log_pickled(data: bytes, values: Iterable[int]) -> None:
    log_given(pickle.loads(data), values)


def log_without_pause(folder: Path, *carried: Any) -> tuple[int, int]:
    """Log the time of each call until the next run has begun, and then some more.

    How many calls have returned stands in a file that outlives the worker. Returns its number and that of the calls.
    """
    import shmlog

    worker, calls, end = threading.get_native_id(), 0, None
    path = folder / f"calls.{worker}"
    new = folder / f"new.{worker}"
    new.write_bytes(bytes(8))
    new.rename(path)
    with path.open("r+b") as file:
        returned = memoryview(mmap.mmap(file.fileno(), 8)).cast("Q")
    while end is None or calls < end:
        for _ in range(100):
            shmlog.log(f"busy.{worker}", time.monotonic_ns(), step=calls)
            calls += 1
            returned[0] = calls
        if end is None and (folder / "next").exists():
            end = calls + AFTERWARDS
    return worker, calls


def log_and_exit(folder: Path, *carried: Any) -> None:
    """Log without pause; nobody waits for the result."""
    log_without_pause(folder)
    os._exit(0)


def calls_returned(folder: Path) -> dict[int, int]:
    """Return for each worker that logs without pause how many of its calls have returned."""
    return {int(path.suffix[1:]): int.from_bytes(path.read_bytes(), "little") for path in folder.glob("calls.*")}
