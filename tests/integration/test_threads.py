"""Threads of one process: with the GIL they take turns on its lane, without it each has one of its own."""

from __future__ import annotations

import json
import multiprocessing.process
import os
import signal
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.run.handed import VARIABLE
from shmlog.segment import beacon
from tests.support.books import assert_books_balance, assert_in_order
from tests.support.processes import wait_for_end, wait_for_flusher

IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
THREADS = 8
N = 3_000


def run_in_threads(works: list[Callable[[], None]]) -> None:
    """Run all to their ends; no thread is over before all have logged."""
    done = threading.Barrier(len(works))

    def run(work: Callable[[], None]) -> None:
        work()
        done.wait()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def logs(run: shmlog.Run, name: str, count: int) -> Callable[[], None]:
    """Return what logs 0 … count - 1 in the ways that there are."""

    def log() -> None:
        metric = run.metric(name)
        for i in range(count):
            if i % 3 == 0:
                metric.log(float(i), i)
            elif i % 3 == 1:
                run.log(name, float(i), i)
            else:
                run.log({name: float(i), f"{name}-too": i}, step=i)

    return log


def test_each_thread_logs_in_order(tmp_path: Path) -> None:
    with shmlog.init("threads", root=tmp_path) as run:
        run_in_threads([logs(run, f"thread{i}", N) for i in range(THREADS)])
        assert run.stats["logged"] >= THREADS * N
        assert run.flush(durable=True), "what threads have logged that are no more is waited for, too"
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=THREADS * (N + N // 3))
    assert_in_order(stored, [f"thread{i}" for i in range(THREADS)])
    assert stored.dropped == {}
    lanes = {row["lane"] for row in stored.metrics().select(["lane"]).to_pylist()}
    assert len(lanes) == (THREADS if IS_FREE_THREADED else 1)


def test_threads_that_come_and_go_take_each_others_lanes(tmp_path: Path) -> None:
    with shmlog.init("waves", root=tmp_path) as run:
        for wave in range(12):
            run_in_threads([logs(run, f"wave{wave}-{i}", 30) for i in range(4)])
        counts = run.stats
        assert counts["logged"] - counts["dropped"]["full"] >= 12 * 4 * 40, "nothing is counted twice or forgotten"
        assert counts["logged"] <= 12 * 4 * 40 + 1, "the event of the start is one"
        assert len({lane for lane, *_ in run._positions()}) <= 4 + 1
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=12 * 4 * 40)
    assert_in_order(stored, [f"wave{wave}-{i}" for wave in range(12) for i in range(4)])


def test_steps_that_are_counted_are_counted_once(tmp_path: Path) -> None:
    with shmlog.init("steps", root=tmp_path) as run:
        metric = run.metric("x")

        def log() -> None:
            for _ in range(N):
                metric(1.0)
                run.log("y", 1.0)
                run.log({"y": 1.0, "z": 1})
            metric.extend([1.0] * N)

        run_in_threads([log] * 4)
    wait_for_end(run.dir)
    stored = shmlog.load(run.dir)
    assert sorted(stored.metrics("x")["step"].to_pylist()) == list(range(8 * N))
    assert sorted(stored.metrics("y")["step"].to_pylist()) == list(range(8 * N))
    shared = sorted(stored.metrics("z")["step"].to_pylist())
    assert len(set(shared)) == len(shared) == 4 * N


def finish_while_threads_log(root: Path) -> tuple[shmlog.Run, int]:
    """Return the run, and how often they have called."""
    run = shmlog.init("end", root=root)
    metric, offered, stop = run.metric("x"), [0] * 4, threading.Event()

    def log(number: int) -> None:
        while not stop.wait(0.001):
            for _ in range(5):
                metric.log(1.0, offered[number])
                offered[number] += 1

    def wait_for_more() -> None:
        seen = list(offered)
        while any(now < before + 100 for now, before in zip(offered, seen, strict=True)):
            stop.wait(0.001)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_for_more()
    assert run.finish()
    wait_for_more()
    stop.set()
    for thread in threads:
        thread.join()
    return run, sum(offered)


@pytest.mark.parametrize("repetition", range(4))
def test_a_run_that_ends_while_its_threads_log_counts_what_comes_later(tmp_path: Path, repetition: int) -> None:
    """I4, and no store into a lane that was given back (I7)."""
    run, offered = finish_while_threads_log(tmp_path)
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir)
    counts = run._counts()
    told = counts["logged"] + sum(counts["dropped"].values())
    assert told == offered + 2, "I4: each call is counted, and the events of start and end"
    assert stored.metrics().num_rows == counts["logged"] - 2


def test_a_child_that_is_forked_while_threads_log_has_lanes_of_its_own(tmp_path: Path) -> None:
    with shmlog.init("fork", root=tmp_path) as run:
        stop = threading.Event()
        names = [f"thread{i}" for i in range(3)]
        counts = dict.fromkeys(names, 0)

        def log(name: str) -> None:
            while not stop.wait(0.0001):
                run.log(name, float(counts[name]), counts[name])
                counts[name] += 1

        threads = [threading.Thread(target=log, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        children = []
        for number in range(6):
            pid = os.fork()
            if pid == 0:
                logs(run, f"child{number}", 300)()
                is_right = run._counts()["logged"] == 400 and run.flush()
                os._exit(0 if is_right else 3)
            children.append(pid)
        ends = [os.waitpid(pid, 0)[1] for pid in children]
        stop.set()
        for thread in threads:
            thread.join()
        assert ends == [0] * 6
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=sum(counts.values()) + 6 * 400)
    assert_in_order(stored, [f"child{number}" for number in range(6)])
    if not stored.dropped:
        assert_in_order(stored, names)


def test_a_process_may_be_forked_while_a_call_waits_for_room(tmp_path: Path) -> None:
    """By the handler of a signal, which the call lets run: child and parent go on with it."""
    with shmlog.init("signal", root=tmp_path, lane_records=4096, max_wait=30.0) as run:
        flusher = wait_for_flusher(run.dir)
        metric, parent, pids = run.metric("x"), os.getpid(), list[int]()

        def fork(*_: object) -> None:
            pids.append(os.fork())
            if os.getpid() == parent:
                os.kill(flusher, signal.SIGCONT)

        os.kill(flusher, signal.SIGSTOP)
        before = signal.signal(signal.SIGALRM, fork)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        step = 0
        while not pids:
            metric.log(1.0, step)
            step += 1
        if os.getpid() != parent:
            metric.log(2.0, 0)
            os._exit(0 if run._counts()["logged"] >= 1 else 3)
        signal.signal(signal.SIGALRM, before)
        assert os.waitpid(pids[0], 0)[1] == 0
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir)
    assert stored.metrics("x").num_rows >= step + 1


def test_a_dict_may_change_in_another_thread_while_it_is_logged(tmp_path: Path) -> None:
    with shmlog.init("dict", root=tmp_path) as run:
        metrics: dict[str, float] = {f"m{i}": float(i) for i in range(20)}
        stop = threading.Event()

        def change() -> None:
            while not stop.is_set():
                metrics["extra" * 3] = 1.0
                del metrics["extra" * 3]

        changer = threading.Thread(target=change)
        changer.start()
        for step in range(N):
            run.log(metrics, step=step)
        stop.set()
        changer.join()
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir)
    assert stored.metrics("m7")["step"].to_pylist() == list(range(N))


def call_in_threads(work: Callable[[], None]) -> None:
    """Call it in several threads at once; raises what one of them does."""
    with ThreadPoolExecutor(THREADS) as pool:
        for called in [pool.submit(work) for _ in range(THREADS)]:
            called.result()


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Have threads take turns as often as can be."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_that_make_and_finish_runs_tell_children_of_each(tmp_path: Path) -> None:
    wrong: list[str] = []

    def make_and_finish() -> None:
        for _ in range(100):
            name, entry = beacon.new_entry(tmp_path, None, None, ())
            beacon.announce(entry, lambda path, state: None)
            wrong.extend(["missing"] if entry.token not in tokens_told(name) else [])
            beacon.withdraw(entry)
            wrong.extend(["still told"] if entry.token in tokens_told(name) else [])

    call_in_threads(make_and_finish)
    assert wrong == []


def tokens_told(name: str) -> list[int]:
    """Return the tokens of the runs that a beacon tells of, read from its file."""
    return [entry["token"] for entry in json.loads(beacon.path_of(name).read_bytes())]


@pytest.mark.parametrize("other", ["thread", "handler of a signal"])
def test_a_run_that_is_announced_while_another_is_written_of_stays_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    write, announced, wrong = beacon.atomic_write, threading.Event(), []
    (name, first), (_, second) = (beacon.new_entry(tmp_path, None, None, ()) for _ in range(2))

    def announce_second() -> None:
        beacon.announce(second, lambda path, state: None)
        announced.set()

    announcer = threading.Thread(target=announce_second)
    begins = {"second": True}

    def write_meanwhile(*args: Any, **options: Any) -> None:
        if begins.pop("second", False):
            announcer.start() if other == "thread" else announce_second()
            announced.wait(0.5)  # in vain where it has to wait for us
        write(*args, **options)
        if other == "thread" and announced.is_set() and second.token not in tokens_told(name):
            wrong.append("a run that was announced is told no more")

    monkeypatch.setattr(beacon, "atomic_write", write_meanwhile)
    beacon.announce(first, lambda path, state: None)
    if other == "thread":
        announcer.join()
    assert wrong == []
    assert {first.token, second.token} <= set(tokens_told(name))
    for entry in (first, second):
        beacon.withdraw(entry)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_that_finish_runs_leave_none_handed_down() -> None:
    def make_and_finish() -> None:
        for _ in range(100):
            shmlog.init("threads", mode="disabled").finish()

    call_in_threads(make_and_finish)
    assert VARIABLE not in os.environ
    assert not multiprocessing.process.current_process()._config.get(VARIABLE)  # type: ignore[attr-defined]


def test_a_child_forked_while_a_thread_announces_a_run_can_make_one(tmp_path: Path) -> None:
    holds, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with beacon._guard.lock:
            holds.set()
            is_over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    holds.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            os._exit(0 if shmlog.init("threads", root=tmp_path).finish() else 1)
        finally:
            os._exit(2)
    is_over.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
