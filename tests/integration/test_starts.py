"""What the first log call of a process looks at: as little as possible, and never too little."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import shmlog
from shmlog.run import follow
from shmlog.segment import beacon
from tests.support.books import assert_books_balance
from tests.support.processes import run_script, wait_for_end

UNSEEN_NS = 1_000_000_000


class Child:
    """A forked child that does something when it is told to, and passes if that returns True."""

    def __init__(self, work: Callable[[], object], meanwhile: Callable[[], object] | None = None) -> None:
        told, self._tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            passed = False
            try:
                while meanwhile is not None and not select.select([told], [], [], 0)[0]:
                    meanwhile()
                passed = os.read(told, 1) == b"!" and work() is True
            finally:
                os._exit(0 if passed else 1)
        os.close(told)

    def go(self) -> bool:
        os.write(self._tell, b"!")
        os.close(self._tell)
        return os.waitpid(self.pid, 0)[1] == 0


def log_without_reading(run: shmlog.Run) -> bool:
    """Log a record by handle; return whether the owner's beacon was not read for it."""
    looks: list[shmlog.Run] = []
    is_open = follow.is_open
    follow.is_open = lambda asked, if_unknown=True: looks.append(asked) or is_open(asked, if_unknown)  # type: ignore[func-returns-value]
    run.log("x", os.getpid(), 0)
    return not looks


def logged(run: shmlog.Run) -> list[int]:
    run.finish()
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir)
    return sorted(stored.metrics("x")["int_value"].to_pylist())


def test_the_first_record_of_a_forked_child_reads_no_beacon_that_is_as_it_was(tmp_path: Path) -> None:
    with shmlog.init("starts", root=tmp_path) as first:
        children = [Child(lambda: log_without_reading(first))]
        assert children[0].go()
        with shmlog.init("starts", root=tmp_path) as second:  # the beacon is another, and tells of both
            children += [Child(lambda run=run: log_without_reading(run)) for run in (first, second)]  # type: ignore[misc]
            assert [child.go() for child in children[1:]] == [True, True]
        children.append(Child(lambda: log_without_reading(first)))
        assert children[3].go()
        assert logged(second) == [children[2].pid]
    assert logged(first) == sorted(children[at].pid for at in (0, 1, 3))


def test_a_beacon_that_has_changed_since_the_fork_is_read(tmp_path: Path) -> None:
    with shmlog.init("starts", root=tmp_path) as first:
        child = Child(lambda: not log_without_reading(first))
        with shmlog.init("starts", root=tmp_path):
            assert child.go()
    assert logged(first) == [child.pid]


@contextmanager
def another_owner(run: shmlog.Run) -> Iterator[None]:
    """Have a process own the run, too, which goes on until it is left."""
    script = f"import shmlog, sys\nrun = shmlog.attach({str(run.dir)!r})\nprint('there', flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield
        process.communicate("", timeout=60)
        assert process.returncode == 0


@pytest.mark.parametrize("born", ["before", "after"])
def test_a_child_whose_owner_has_left_a_run_that_goes_on_is_not_in_it(tmp_path: Path, born: str) -> None:
    run = shmlog.init("starts", root=tmp_path)
    log = lambda: run.log("x", 1, 0) or True  # type: ignore[func-returns-value]  # noqa: E731
    with another_owner(run):
        if born == "before":
            child = Child(log)
            run.finish()
        else:
            dismiss = run._dismiss_followers

            def fork_then() -> None:  # while the owner is on its way out
                nonlocal child
                dismiss()
                child = Child(log)

            run._dismiss_followers = fork_then  # type: ignore[method-assign]
            run.finish()
        assert child.go()
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir)
    assert stored.names() == []
    assert stored.dropped == {"closed": 1}


def test_who_has_just_seen_that_there_is_no_run_finds_the_one_that_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beacon, "UNSEEN_NS", UNSEEN_NS)  # so long that a busy machine is not slower
    look = lambda: shmlog.log("x", 1, 0)  # noqa: E731
    worker = Child(lambda: look() is None, meanwhile=look)
    with shmlog.init("starts", root=tmp_path) as run:
        before = run.stats["logged"]
        assert worker.go()
        assert run.stats["logged"] == before
    wait_for_end(run.dir)
    assert set(assert_books_balance(run.dir).metrics("x")["int_value"].to_pylist()) == {1}


NOT_AT_THE_BEGIN = ("datetime", "getpass", "logging", "signal", "socket", "subprocess", "hashlib", "inspect")

BEGIN = f"""
import sys
before = set(sys.modules)
import shmlog
from shmlog.folder.segmentref import MEETING_PREFIX, SHARED_MEMORY, names_in
meetings = names_in(SHARED_MEMORY, MEETING_PREFIX)  # of others, to be swept
run = shmlog.init("starts", root=sys.argv[1])
meetings += names_in(SHARED_MEMORY, MEETING_PREFIX)
run.log("x", 1, 0)
print(sorted((set(sys.modules) - before) & set({NOT_AT_THE_BEGIN!r})))
print("shmlog.run.rendezvous" in sys.modules, "shmlog.segment.meeting" in sys.modules and not meetings)
"""


def test_to_begin_a_run_imports_nothing_that_is_slow_and_rarely_needed(tmp_path: Path) -> None:
    done = run_script(BEGIN, str(tmp_path), cwd=tmp_path)
    assert done.stdout.splitlines() == ["[]", "False False"]
