"""Logging from where nobody expects it: other code of the same process is inside a log call or in a fork."""

from __future__ import annotations

import ctypes
import gc
import itertools
import logging
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

import pytest

import shmlog
from tests.support.books import assert_books_balance, assert_units_on_disk
from tests.support.processes import run_script, start_script, wait_for_end, wait_for_flusher, wait_until

TICK_S = 0.001
CHILD_S = 30  # after which a child that hangs is killed


@contextmanager
def every_tick(handler: Callable[[], None]) -> Iterator[None]:
    """Call a handler from a signal, again a millisecond after it has returned: it may take longer than that."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        handler()
        signal.setitimer(signal.ITIMER_REAL, TICK_S)

    old = signal.signal(signal.SIGALRM, on_signal)
    signal.setitimer(signal.ITIMER_REAL, TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def log_in_child(run: shmlog.Run, name: str, count: int, fork: Callable[[], int] = os.fork) -> int:
    """Fork a child that logs and ends; killed if it hangs. Returns its pid."""
    pid = fork()
    if pid == 0:
        end_child(lambda: [run.log(name, float(i), step=i) for i in range(count)])
    return pid


def end_child(work: Callable[[], object]) -> NoReturn:
    """Do the work of a forked child and end it: never go on with what its parent is about to do."""
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_S)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def assert_ended_well(pids: list[int]) -> None:
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0, "a child hung or died in its log calls"


class Loggers:
    """Threads that are always inside a log call of some kind, each under a name of its own."""

    def __init__(self, run: shmlog.Run, count: int) -> None:
        self.counts = [0] * count
        self._run = run
        self._stopped = False
        self._threads = [threading.Thread(target=self._log, args=(number,)) for number in range(count)]

    def _log(self, number: int) -> None:
        metric = self._run.metric(f"thread{number}")
        for i in itertools.count():
            metric(float(i), i)
            self.counts[number] = i + 1
            if i % 100 == number:
                self._run.metric(f"new{number}-{i % 10_000}")  # a new name, in the table that all share
            if self._stopped:
                return

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        for thread in self._threads:
            thread.join()


# ---- forks (29) ----


def fork_of_a_library() -> int:
    """Fork as a C library does: without Python's own preparations and cleaning up."""
    return int(ctypes.PyDLL(None).fork())


def assert_children_logged(stored: shmlog.StoredRun, children: int, count: int) -> None:
    """Assert I3 for children that logged step = 0 … count - 1 under one name."""
    steps: dict[int, list[int]] = {}
    for row in stored.metrics("child").sort_by([("lane", "ascending"), ("seq", "ascending")]).to_pylist():
        steps.setdefault(row["pid"], []).append(row["step"])
    assert list(steps.values()) == [list(range(count))] * children, "I3: children"


def test_a_fork_of_a_library(tmp_path: Path) -> None:
    """FAULTS 28: Python hears nothing of it. With threads, its own lock may hang in such a child."""
    with shmlog.init("library", root=tmp_path) as run:
        for i in range(25):
            run.log("main", float(i), step=i)
            assert_ended_well([log_in_child(run, "child", 20, fork_of_a_library)])
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=25 + 25 * 20)
    assert_units_on_disk(stored, "main", 25, in_flight=0)
    assert_children_logged(stored, 25, 20)


def test_a_fork_while_threads_log(tmp_path: Path, full: bool) -> None:
    """FAULTS 28, 29: the child logs into a lane of its own, whatever its parent's threads were about to do."""
    for _ in range(40 if full else 1):
        with shmlog.init("threads", root=tmp_path, lane_records=4096, sinks=["parquet"]) as run:
            with Loggers(run, 4) as loggers:
                for _ in range(25):
                    assert_ended_well([log_in_child(run, "child", 20)])
            dropped = run.stats["dropped"]["full"]
        wait_for_end(run.dir)
        stored = assert_books_balance(run.dir, offered=25 * 20 + sum(loggers.counts))
        assert stored.metrics("thread*").num_rows == sum(loggers.counts) - dropped, "I4"
        assert_children_logged(stored, 25, 20)


def test_a_fork_while_threads_wait_for_room(tmp_path: Path) -> None:
    """FAULTS 29: the parent's threads wait for the flusher with the interpreter's lock released."""
    with shmlog.init("waiting", root=tmp_path, lane_records=4096, max_wait=5.0, sinks=["parquet"]) as run:
        assert run.flush()
        flusher = wait_for_flusher(run.dir)
        os.kill(flusher, signal.SIGSTOP)
        with Loggers(run, 4) as loggers:
            wait_until(lambda: sum(loggers.counts) > 4000, "a full lane")
            assert_ended_well([log_in_child(run, "child", 20) for _ in range(20)])
            os.kill(flusher, signal.SIGCONT)
    wait_for_end(run.dir)
    assert_children_logged(assert_books_balance(run.dir), 20, 20)


def test_a_fork_while_runs_are_opened_and_closed(tmp_path: Path) -> None:
    """FAULTS 29: the list of this process's producers is being changed by another thread."""
    script = """
import sys, threading, os
import shmlog
run = shmlog.init("opening", root=sys.argv[1])
stopped = False
def join_and_leave():
    from shmlog.run.join import _join_as_follower
    while not stopped:
        _join_as_follower(run._layout, run._ref, None, None)._leave()
threads = [threading.Thread(target=join_and_leave) for _ in range(2)]
for thread in threads: thread.start()
for child in range(100):
    pid = os.fork()
    if pid == 0:
        run.log("x", float(child), step=child)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stopped = True
for thread in threads: thread.join()
"""
    done = run_script(script, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run_dir,) = (tmp_path / "runs" / "opening").glob("*/")
    wait_for_end(run_dir)
    stored = assert_books_balance(run_dir, offered=100)
    assert stored.metrics("x")["step"].to_pylist() == list(range(100))


def test_a_fork_in_a_signal_handler(tmp_path: Path) -> None:
    """FAULTS 29: the signal arrives at any point of a log call's Python side."""
    pids: list[int] = []
    with shmlog.init("handler", root=tmp_path, sinks=["parquet"]) as run:

        def fork() -> None:
            if len(pids) < 50:
                pids.append(log_in_child(run, "child", 20))

        done = 0
        with every_tick(fork):
            while len(pids) < 50:
                run.log({"main": float(done)}, step=done)
                done += 1
        assert_ended_well(pids)
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=50 * 20 + done)
    assert stored.dropped == {}
    assert_units_on_disk(stored, "main", done, in_flight=0)
    assert_children_logged(stored, 50, 20)


# ---- threads (32) ----


def test_64_threads_log_in_every_way(tmp_path: Path, full: bool) -> None:
    """FAULTS 32: the counts are exact, and each thread's records are in their order."""
    count = 5000 if full else 200

    def work(number: int) -> None:
        metric = run.metric(f"handle{number}")
        for i in range(count):
            metric(float(i), i)
            run.log(f"call{number}", float(i), step=i)
            run.log({f"dict{number}": float(i), f"text{number}": "t" * (i % 60)}, step=i)
            if i % 100 == 0:
                run.event("thread", {"number": number, "i": i})
                run.metric(f"array{number}").extend([float(i)] * 50, range(i, i + 50))

    with shmlog.init("threads", root=tmp_path, sinks=["parquet"]) as run:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    wait_for_end(run.dir)
    per_thread = 4 * count + 50 * ((count + 99) // 100)
    stored = assert_books_balance(run.dir, offered=64 * per_thread)
    assert stored.dropped == {}
    assert len(stored.events("thread")) == 64 * ((count + 99) // 100)
    for number in range(64):
        for way in ("handle", "call", "dict"):
            assert_units_on_disk(stored, f"{way}{number}", count, in_flight=0)


# ---- log within log (25) ----


class Value:
    """A value whose conversion runs what the test wants."""

    def __init__(self, inner: Callable[[], object]) -> None:
        self.inner = inner

    def __float__(self) -> float:
        self.inner()
        return 0.5


class Step:
    """A step of that kind."""

    def __init__(self, inner: Callable[[], object]) -> None:
        self.inner = inner

    def __index__(self) -> int:
        self.inner()
        return 7


WAYS: dict[str, Callable[[shmlog.Run, Any, Any], None]] = {
    "handle": lambda run, value, step: run.metric("x")(value, 7),
    "log": lambda run, value, step: run.log("x", value, step=7),
    "dict": lambda run, value, step: run.log({"x": value}, step=7),
    "long dict": lambda run, value, step: run.log({"x": value, **{f"y{i}": 0.5 for i in range(40)}}, step=7),
    "step": lambda run, value, step: run.log("x", 0.5, step=step),
    "handle's step": lambda run, value, step: run.metric("x")(0.5, step),
    "array": lambda run, value, step: run.metric("x").extend([value], [7]),
    "array's step": lambda run, value, step: run.metric("x").extend([0.5], [step]),
}


def test_a_value_that_logs_while_it_is_converted(tmp_path: Path) -> None:
    """FAULTS 25, 61: the inner record comes first, and both are whole."""
    with shmlog.init("nested", root=tmp_path, lane_records=64) as run:
        for log in WAYS.values():
            for i in range(200):  # more than the lane has slots, so that the inner call moves everything

                def inner(i: int = i) -> None:
                    run.log("inner", float(i), step=i)

                log(run, Value(inner), Step(inner))
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir)
    assert stored.dropped == {}
    assert stored.metrics("inner").num_rows >= 200 * len(WAYS)
    assert stored.metrics("x")["step"].to_pylist() == [7] * 200 * len(WAYS)
    assert set(stored.metrics("x")["value"].to_pylist()) == {0.5}


def test_a_value_whose_conversion_raises(tmp_path: Path) -> None:
    """FAULTS 61: that call raises and changes nothing."""

    def inner() -> None:
        raise LookupError("no such value")

    with shmlog.init("raises", root=tmp_path) as run:
        for log in WAYS.values():
            with pytest.raises(LookupError):
                log(run, Value(inner), Step(inner))
            run.log("x", 0.5)
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=len(WAYS))


def test_a_value_that_forks_while_it_is_converted(tmp_path: Path) -> None:
    """FAULTS 28, 61: parent and child go on in the middle of the same call, in lanes of their own."""
    with shmlog.init("forks", root=tmp_path) as run:
        for log in WAYS.values():
            fork_within(run, log)
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir)
    assert stored.metrics("x").num_rows == 2 * len(WAYS)
    assert len(set(stored.metrics("x")["pid"].to_pylist())) == 1 + len(WAYS)


def fork_within(run: shmlog.Run, log: Callable[[shmlog.Run, Any, Any], None]) -> None:
    """Log a value that forks, once; the child ends after the call."""
    pids: list[int] = []

    def inner() -> None:
        if not pids:
            pids.append(os.fork())

    try:
        log(run, Value(inner), Step(inner))
    finally:
        if pids == [0]:
            os._exit(sys.exc_info()[0] is not None)
    assert_ended_well(pids)


def test_a_value_that_finishes_the_run_while_it_is_converted(tmp_path: Path) -> None:
    """FAULTS 25, 34: the call that is under way drops and counts."""
    runs = []
    for way, log in WAYS.items():
        run = shmlog.init("finishes", root=tmp_path)
        log(run, Value(run.finish), Step(run.finish))
        assert run.stats["dropped"]["closed"] == (41 if way == "long dict" else 1)
        runs.append(run)
    for run in runs:
        wait_for_end(run.dir)
        assert assert_books_balance(run.dir).metrics().num_rows == 0  # whether the flusher heard of the drop is chance


def test_a_value_that_changes_the_dict_it_is_in(tmp_path: Path) -> None:
    """FAULTS 25: what is logged is the dict as it was."""
    with shmlog.init("changes", root=tmp_path) as run:
        metrics: dict[str, Any] = {}
        metrics |= {"a": Value(metrics.clear), **{f"y{i}": 0.5 for i in range(20)}}
        run.log(metrics, step=1)
        grown: dict[str, Any] = {}
        grown |= {"b": Value(lambda: grown.update({f"z{i}": 1.0 for i in range(1000)})), "c": 0.5}
        run.log(grown, step=2)
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=21 + 2)
    assert stored.metrics("c")["step"].to_pylist() == [2]


NAMES = """
import sys
import shmlog
from tests.support.processes import wait_for_end
run = shmlog.init("names", root=sys.argv[1])
class Name(str):
    def __hash__(self):
        act()
        return str.__hash__(self)
    def __eq__(self, other):
        act()
        return str.__eq__(self, other)
for number in range(200):
    def act(): pass
    inside = False
    metrics = {Name(f"n{number}-{i}"): float(i) for i in range(20)}
    def act():
        global inside
        if inside: return
        inside = True
        run.log("inner", 1.0)
        for i in range(100): dict.__setitem__(metrics, f"more{number}-{i}", 1.5)
        for key in list(dict.keys(metrics)):
            if type(key) is Name and key.endswith("-7"): dict.pop(metrics, key, None)
        inside = False
    run.log(metrics, step=number)
    run.log(Name(f"n{number}-3"), 3.0, step=number)
    run.metric(Name(f"n{number}-4"))(4.0, number)
    run.log(f"n{number}-5", 5.0, step=number)
run.finish()
print(run.stats["logged"], run.dir)
"""


def test_a_name_that_is_a_subclass_of_str_with_methods_of_its_own(tmp_path: Path) -> None:
    """FAULTS 25: its hash and comparison run no code in the middle of a log call."""
    done = run_script(NAMES, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    logged, run_dir = done.stdout.split()
    wait_for_end(Path(run_dir))
    stored = assert_books_balance(Path(run_dir))
    assert stored.dropped == {}
    assert stored.metrics("n199-3")["value"].to_pylist() == [3.0, 3.0]
    assert stored.metrics("n*-5").num_rows == 400
    assert int(logged) >= 200 * 23


def test_a_signal_handler_that_logs(tmp_path: Path) -> None:
    """FAULTS 25: it arrives in the middle of all kinds of calls."""
    ticks = 0
    with shmlog.init("signals", root=tmp_path, lane_records=1024, sinks=["parquet"]) as run:

        def log() -> None:
            nonlocal ticks
            run.log("tick", float(ticks), step=ticks)
            run.log({"a": 1.0, "b": "text"}, step=ticks)
            run.event("tick", {"n": ticks})
            ticks += 1

        done = 0
        with every_tick(log):
            while ticks < 300:
                run.log("main", float(done), step=done)
                run.log({"c": 1.0, "long": "t" * 100}, step=done)
                run.event("main", {"n": done})
                done += 1
        dropped = run.stats["dropped"]
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir)
    assert dropped["full"] == stored.dropped.get("full", 0)
    if not stored.dropped:
        assert_units_on_disk(stored, "tick", ticks, in_flight=0)
        assert_units_on_disk(stored, "main", done, in_flight=0)


def test_a_collector_that_logs(tmp_path: Path) -> None:
    """FAULTS 25: callbacks of the garbage collector, finalizers and weak references log in the middle of calls."""
    with shmlog.init("collector", root=tmp_path, sinks=["parquet"]) as run:
        counts = {"gc": 0, "del": 0, "weak": 0}

        def log(name: str) -> None:
            run.log(name, float(counts[name]), step=counts[name])
            counts[name] += 1

        class Circle:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                log("del")

        def callback(phase: str, info: dict[str, int]) -> None:
            log("gc")

        old = gc.get_threshold()
        gc.callbacks.append(callback)
        gc.set_threshold(5)
        try:
            for i in range(2000):
                circle = Circle()
                weak = weakref.ref(circle, lambda _: log("weak"))
                run.log({"main": float(i), "list": Value(lambda: [[] for _ in range(10)])}, step=i)
                run.event("main", {"list": [{}, [], {}], "weak": repr(weak)})
                del circle
        finally:
            gc.callbacks.remove(callback)
            gc.set_threshold(*old)
        gc.collect()
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=4000 + sum(counts.values()))
    assert_units_on_disk(stored, "main", 2000, in_flight=0)
    for name, count in counts.items():
        assert_units_on_disk(stored, name, count, in_flight=0)
    assert counts["gc"] > 100
    assert counts["del"] == 2000


def test_a_tracer_that_logs(tmp_path: Path) -> None:
    """FAULTS 25: a profiler's function logs at each call, those of shmlog itself included."""
    count = 0
    with shmlog.init("tracer", root=tmp_path, sinks=["parquet"]) as run:

        def trace(frame: FrameType, what: str, argument: object) -> None:
            nonlocal count
            run.log("trace", float(count), step=count)
            count += 1

        sys.setprofile(trace)
        try:
            for i in range(300):
                run.log("main", float(i), step=i)
                run.event("main", {"n": i})
        finally:
            sys.setprofile(None)
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=300 + count)
    assert count > 600
    assert_units_on_disk(stored, "trace", count, in_flight=0)
    assert_units_on_disk(stored, "main", 300, in_flight=0)


def test_a_logging_handler_that_logs_the_warning_about_a_drop(tmp_path: Path) -> None:
    """FAULTS 25: the warning of the first drop comes from within a log call, and is logged by it."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            run.warning(record.getMessage())
            run.log("warned", 1.0)

    handler = Handler()
    logging.getLogger("shmlog").addHandler(handler)
    try:
        with shmlog.init("warning", root=tmp_path, lane_records=64, on_full="drop") as run:
            assert run.flush()
            flusher = wait_for_flusher(run.dir)
            os.kill(flusher, signal.SIGSTOP)
            for i in range(200):
                run.log("x", float(i), step=i)
            os.kill(flusher, signal.SIGCONT)
            assert run.flush()
            run.log("x", 200.0, step=200)
    finally:
        logging.getLogger("shmlog").removeHandler(handler)
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir)
    assert stored.metrics("x").num_rows + stored.metrics("warned").num_rows + stored.dropped["full"] >= 201


def test_an_interrupt_that_arrives_while_the_flusher_is_woken_goes_on(tmp_path: Path) -> None:
    """FAULTS 25: the hook that rings the doorbell must not swallow a Ctrl-C; the record is there nevertheless."""
    with shmlog.init("interrupt", root=tmp_path, lane_records=64, sinks=["parquet"]) as run:

        def ring() -> None:
            raise KeyboardInterrupt

        assert run.flush()
        run._ring = ring  # type: ignore[method-assign]
        interrupts = done = 0
        while interrupts < 3:
            try:
                run.log("x", float(done), step=done)
            except KeyboardInterrupt:
                interrupts += 1
            done += 1
            assert done < 1_000_000, "the interrupt was swallowed"
        del run._ring
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=done)
    assert stored.metrics("x").num_rows + stored.dropped.get("full", 0) == done


def test_an_exception_hook_that_logs(tmp_path: Path) -> None:
    """FAULTS 25: in sys.excepthook and threading.excepthook."""
    script = """
import sys, threading
import shmlog
run = shmlog.init("hook", root=sys.argv[1])
sys.excepthook = lambda *a: run.log("hook", 1.0)
threading.excepthook = lambda *a: run.log("thread hook", 1.0)
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise RuntimeError("boom")
"""
    done = run_script(script, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    (run_dir,) = (tmp_path / "runs" / "hook").glob("*/")
    wait_for_end(run_dir)
    assert assert_books_balance(run_dir, offered=2).names() == ["hook", "thread hook"]


# ---- before, after, and at the end of the interpreter (34) ----

SHUTDOWNS = {
    "atexit before init": """
import atexit
atexit.register(lambda: run.log("late", 1.0))
run = init()
""",
    "atexit after init": """
import atexit
run = init()
atexit.register(lambda: run.log("late", 1.0))
""",
    "module's object": """
run = init()
class Late:
    def __del__(self, log=run.log): log("late", 1.0)
late = Late()
""",
    "object in a circle": """
run = init()
class Late:
    def __init__(self): self.me = self
    def __del__(self, log=run.log, event=run.event):
        log("late", 1.0)
        event("late", {"a": 1})
late = Late()
""",
    "object of a builtin module": """
run = init()
class Late:
    def __del__(self, metric=run.metric("late"), shmlog=shmlog):
        metric(1.0, 1)
        shmlog.finish()
sys.late = Late()
""",
    "daemon thread": """
import threading, time
run = init()
started = threading.Event()
def log():
    metric = run.metric("thread")
    while True:
        metric(1.0, 1)
        started.set()
        time.sleep(0)
threading.Thread(target=log, daemon=True).start()
started.wait()
""",
    "daemon threads that wait for room": """
import threading, signal, time
from tests.support.processes import wait_for_flusher
run = init(lane_records=64, max_wait=100)
run.flush()
pid = wait_for_flusher(run.dir)
os.kill(pid, signal.SIGSTOP)
os.posix_spawn("/bin/sh", ["sh", "-c", f"sleep 3; kill -CONT {pid}"], os.environ)
def log():
    while True: run.log("thread", 1.0)
for _ in range(4): threading.Thread(target=log, daemon=True).start()
time.sleep(0.2)
""",
}


@pytest.mark.parametrize("when", SHUTDOWNS)
def test_logging_while_the_interpreter_ends(tmp_path: Path, when: str) -> None:
    """FAULTS 34: it is logged, or dropped; the process ends as it would."""
    begin = "import os, sys\nimport shmlog\ndef init(**o): return shmlog.init('late', root=sys.argv[1], **o)\n"
    done = run_script(begin + SHUTDOWNS[when], tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Fatal" not in done.stderr
    (run_dir,) = (tmp_path / "runs" / "late").glob("*/")
    wait_for_end(run_dir)
    assert assert_books_balance(run_dir).status == "success"


BEFORE_INIT = """
import shmlog
shmlog.log("x", 1.0); shmlog.metric("x")(1.0, 1); shmlog.event("x")
assert shmlog.finish() is True
"""


def test_logging_before_init_does_nothing(tmp_path: Path) -> None:
    """FAULTS 34: where there is no run, what a library logs goes nowhere; strictly, that is an error."""
    done = run_script(BEFORE_INIT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    done = run_script(BEFORE_INIT, cwd=tmp_path, env={"SHMLOG_MODE": "strict"})
    assert "RunStateError: there is no run: call shmlog.init() first" in done.stderr


def test_logging_after_finish_is_dropped_and_counted(tmp_path: Path) -> None:
    """FAULTS 34: with the run that it was meant for, and read back with it."""
    run = shmlog.init("after", root=tmp_path)
    metric = run.metric("x")
    assert run.finish()
    run.log("x", 1.0)
    run.log({"x": 1.0, "y": 2.0})
    metric(1.0, 1)
    metric.extend([1.0, 2.0])
    run.event("x")
    run.metric("new")(1.0)
    shmlog.log("x", 1.0)
    assert run.stats["dropped"]["closed"] == 9
    assert run.flush() is False
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=9)
    assert stored.dropped == {"closed": 9}
    assert stored.metrics().num_rows == 0


# ---- other interpreters and second imports (33) ----

SECOND_IMPORTS = {
    "reload": """
import importlib
run.log("x", 0.0, step=0)
importlib.reload(shmlog)
run.log("x", 1.0, step=1)
shmlog.log("x", 2.0, step=2)
""",
    "import anew": """
run.log("x", 0.0, step=0)
kept = {name: module for name, module in sys.modules.items() if name.startswith("shmlog")}
for name in kept: del sys.modules[name]
import shmlog as second
second.attach(run.dir).log("x", 1.0, step=1)
second.finish()
run.log("x", 2.0, step=2)
""",
    "sub-interpreter": """
import _xxsubinterpreters as interpreters
run.log("x", 0.0, step=0)
other = interpreters.create()
code = "import sys; sys.path = %r; import shmlog; shmlog.attach(%r).log('x', 1.0, step=1); shmlog.finish()"
try:
    interpreters.run_string(other, code % (sys.path, str(run.dir)))
except Exception as error:
    assert "import" in str(error).lower() or "subinterpreters" in str(error), error
    run.log("x", 1.0, step=1)  # refused: a clean error is as good
interpreters.destroy(other)
run.log("x", 2.0, step=2)
""",
}


@pytest.mark.parametrize("kind", SECOND_IMPORTS)
def test_a_second_import(tmp_path: Path, kind: str) -> None:
    """FAULTS 33: it works, or is a clean ImportError; the first one goes on."""
    code = SECOND_IMPORTS[kind]
    if kind == "sub-interpreter" and sys.version_info >= (3, 13):
        code = code.replace("_xxsubinterpreters", "_interpreters").replace(
            "    interpreters.run_string(other, code % (sys.path, str(run.dir)))",
            "    error = interpreters.run_string(other, code % (sys.path, str(run.dir)))\n"
            "    if error: raise ImportError(error.msg)",
        )
    begin = "import sys\nimport shmlog\nrun = shmlog.init('second', root=sys.argv[1])\n"
    with start_script(begin + code, tmp_path / "runs", cwd=tmp_path) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (run_dir,) = (tmp_path / "runs" / "second").glob("*/")
    wait_for_end(run_dir)
    stored = assert_books_balance(run_dir, offered=3)
    assert stored.status == "success"
    assert stored.metrics("x")["step"].to_pylist() == [0, 1, 2]
