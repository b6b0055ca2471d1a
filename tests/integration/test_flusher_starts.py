"""Flushers that die while they start, hang there, or die wherever they get to; and who waits for them."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import shmlog
from shmlog.errors import RunStateError, SegmentError
from shmlog.flusher import __main__ as flusher_main
from shmlog.flusher.process import start_flusher
from shmlog.flusher.recover import recover
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import read_ref
from shmlog.run.join import _open_segment
from shmlog.run.patience import PATIENCE_S, STARTS_MAX, Patience
from shmlog.segment import gc, shm
from shmlog.segment.doorbell import Doorbell
from tests.support.books import assert_books_balance
from tests.support.processes import (
    is_flusher_gone,
    only_run,
    run_script,
    stop,
    wait_for_end,
    wait_for_flusher,
    wait_until,
)


def program(path: Path, text: str) -> str:
    """Make a program that may stand in for Python."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def dead(tmp_path: Path) -> str:
    """Return a Python that dies at once."""
    return program(tmp_path / "dead", "exit 1")


def begin(root: Path, monkeypatch: pytest.MonkeyPatch, python: str, **options: object) -> shmlog.Run:
    """Make a run whose first flusher is started with ``python``."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", python)
        return shmlog.init("starts", root=root, **options)  # type: ignore[arg-type]


# ---- a segment without its name ----


def replace_by_copy(segment: Path) -> None:
    """Put a copy of the segment in its place."""
    copy = segment.with_name("copy-of-a-segment")
    shutil.copyfile(segment, copy)
    copy.chmod(0o600)
    copy.rename(segment)


@pytest.mark.parametrize("take_name", [Path.unlink, replace_by_copy], ids=["removed", "replaced"])
def test_a_flusher_is_replaced_when_the_name_of_the_segment_is_removed_or_is_another_files(
    tmp_path: Path, take_name: Callable[[Path], None]
) -> None:
    run = shmlog.init("starts", root=tmp_path)
    run.log("x", 1.0)
    assert run.flush()
    segment = Path(run.stats["segment"])
    take_name(segment)
    os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
    wait_until(lambda: is_flusher_gone(run.dir), "the flusher's death")
    for step in range(100):
        run.log("x", 1.0, step)
    try:
        assert run.finish()
        wait_for_end(run.dir)
        assert_books_balance(run.dir, offered=101)
    finally:
        segment.unlink(missing_ok=True)


CHILD = """
import shmlog
for step in range(50): shmlog.log("of a child", 1.0, step)
"""


def test_nobody_logs_into_or_recovers_a_copy_in_the_place_of_the_segment(tmp_path: Path) -> None:
    run = shmlog.init("starts", root=tmp_path)
    segment = Path(run.stats["segment"])
    replace_by_copy(segment)
    try:
        with pytest.raises(SegmentError, match="not the file in which the run began"):
            _open_segment(RunLayout(run.dir), read_ref(RunLayout(run.dir)))
        assert run_script(CHILD, cwd=tmp_path).returncode == 0
        with pytest.raises(RunStateError, match="not the file in which the run began"):
            recover(run.dir)
        assert not recover(run.dir, force=True).changed, "its flusher is at work"
        assert run.finish()
        wait_for_end(run.dir)
        assert assert_books_balance(run.dir, offered=50).dropped == {"closed": 50}
    finally:
        segment.unlink()


# ---- one that dies while it starts ----


def test_it_is_known_at_once_that_a_flusher_has_died_while_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    run = begin(tmp_path, monkeypatch, dead)
    wait_until(lambda: run.stats["flusher"] == "dead", "its death to be seen")
    assert not run._segment.flusher_is_starting
    assert run._segment.flusher_state == 0, "it never came up"
    run.log("x", 1.0)
    assert run.finish(), "who waits starts another"
    assert run._segment.starts == 2
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)


def test_a_log_call_that_waits_for_room_replaces_one_that_has_died_while_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    run = begin(tmp_path, monkeypatch, dead, lane_records=4096)
    for step in range(10_000):
        run.log("x", 1.0, step)
    assert run.finish()
    wait_for_end(run.dir)
    assert assert_books_balance(run.dir, offered=10_000).dropped == {}


def test_who_finishes_replaces_one_that_somebody_else_has_started_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    run = shmlog.init("starts", root=tmp_path)
    run.log("x", 1.0)
    assert run.flush()
    os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
    wait_until(lambda: is_flusher_gone(run.dir), "the flusher's death")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", dead)
        start_flusher(RunLayout(run.dir), run._segment)
    assert run.finish()
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)


def test_one_that_hangs_while_it_starts_is_alive_until_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "pid"
    hangs = program(tmp_path / "hangs", f"echo $$ > {told}.new\nmv {told}.new {told}\nexec sleep 600")
    run = begin(tmp_path, monkeypatch, hangs)
    wait_until(told.exists, "it to run")
    assert run._segment.flusher_lives
    assert run.stats["flusher"] == "starting"
    os.kill(int(told.read_text()), signal.SIGKILL)
    wait_until(lambda: not run._segment.flusher_lives, "its death to be seen")
    assert run.finish()
    wait_for_end(run.dir)


def test_a_finish_that_gives_up_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = shmlog.init("starts", root=tmp_path)
    run.log("x", 1.0)
    pid = wait_for_flusher(run.dir)
    wait_until(lambda: run.stats["flusher"] == "running", "the flusher to run")
    stop(pid)
    assert run.finish() is False
    os.kill(pid, signal.SIGCONT)
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)
    (message,) = [record.getMessage() for record in caplog.records if run.id in record.getMessage()]
    assert "its flusher (running) makes no progress" in message
    assert f"'shmlog recover {run.dir}' seals it" in message


# ---- one after the other ----


def test_three_flushers_that_die_while_they_start_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = begin(tmp_path, monkeypatch, dead)
    run.log("x", 1.0)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "shmlog"):
        patch.setattr(sys, "executable", dead)
        assert run.flush() is False
        assert run._segment.starts == 1 + STARTS_MAX
        assert run.finish() is False, "a finish does not begin to count anew"
        assert run._segment.starts == 1 + STARTS_MAX
    told = [record.getMessage() for record in caplog.records if run.id in record.getMessage()]
    assert len(told) == 1
    assert f"has died 3 times at the same place, see {run.dir}/wal/flusher.log" in told[0]
    assert recover(run.dir).changed
    assert_books_balance(run.dir, offered=1)


# Ends also where the finish does not return.
FINISH = """
import threading
def finish(run):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(run.finish()), daemon=True)
    thread.start()
    thread.join(40)
    return answers[0] if answers else "no answer"
"""
DIES_WHILE_SEALING = f"""
import os, sys
import shmlog
{FINISH}
sys.path.insert(0, sys.argv[2])
run = shmlog.init("sealing", root=sys.argv[1])
run.log("x", 1.0)
print(run.flush(), finish(run), flush=True)
sys.path.remove(sys.argv[2])
"""


def test_three_flushers_that_die_while_they_seal_are_enough(tmp_path: Path) -> None:
    """As ones that are killed for want of memory, again and again: each drains, so each gets something done."""
    package = tmp_path / "killing" / "pyarrow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    root = tmp_path / "runs"
    done = run_script(DIES_WHILE_SEALING, root, package.parent, cwd=tmp_path)
    assert done.stdout == "True False\n", done.stderr
    assert done.stderr.count("has died 3 times at the same place") == 1
    wait_for_end(only_run(root))  # by the flusher that the exit leaves behind
    assert assert_books_balance(only_run(root), offered=1).status == "success"


# ---- patience ----


def test_patience_that_has_run_out_is_out_for_all_that_the_call_waits_for() -> None:
    """A finish beside a flusher that does nothing takes as long as a flush, though it waits for two things."""

    class Still:
        flusher_is_starting = False

    rings: list[None] = []
    patience = Patience(Still(), lambda: rings.append(None), lambda: True, lambda: False)  # type: ignore[arg-type]
    assert not patience.wait(lambda: False, lambda: 0)
    assert len(rings) > 1
    rings.clear()
    assert not patience.wait(lambda: False, lambda: 0)
    assert len(rings) == 1, "it looks once"


def test_a_finish_waits_for_a_flusher_that_has_just_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that takes longer than the patience does not count against the sealing that comes after it."""
    slow = program(tmp_path / "slow", f'sleep {PATIENCE_S + 0.5}; exec "{sys.executable}" "$@"')
    run = begin(tmp_path / "runs", monkeypatch, slow)
    run.log("x", 1.0)
    assert run.finish()
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)


def test_a_finish_beside_a_stopped_flusher_takes_no_longer_than_a_flush(tmp_path: Path) -> None:
    run = shmlog.init("stopped", root=tmp_path)
    assert run.flush()
    pid = wait_for_flusher(run.dir)
    stop(pid)
    run.log("x", 1.0)
    begun = time.monotonic()
    assert run.flush() is False
    flushed = time.monotonic()
    assert run.finish() is False
    finished = time.monotonic()
    os.kill(pid, signal.SIGCONT)
    assert finished - flushed < flushed - begun + PATIENCE_S / 2
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)


WITHOUT_DESCRIPTORS = """
import os, resource, signal, sys
import shmlog
from tests.support.processes import stop, wait_for_flusher
run = shmlog.init("exhausted", root=sys.argv[1])
assert run.flush()
flusher = wait_for_flusher(run.dir)
stop(flusher)
run.log("x", 1.0)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
kept = []
try:
    while True: kept.append(os.dup(0))
except OSError: pass
ends = run.flush(), run.finish(), run.finish()
assert ends == (False, False, False), ends
assert shmlog.current() is None
os.kill(flusher, signal.SIGCONT)
for fd in kept: os.close(fd)
"""


def test_without_descriptors_nobody_waits_longer_and_nothing_is_raised(tmp_path: Path) -> None:
    done = run_script(WITHOUT_DESCRIPTORS, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_dir = only_run(tmp_path)
    wait_for_end(run_dir)
    assert_books_balance(run_dir, offered=1)


def test_a_run_that_was_just_finished_is_not_unrecovered(tmp_path: Path) -> None:
    """Its flusher may end while it is looked at."""
    for _ in range(3):
        with shmlog.init("finished", root=tmp_path) as run:
            run.log("x", 1.0)
        assert not shmlog.load(run.dir).unrecovered
        wait_for_end(run.dir)


WHILE_OTHERS_LOG = f"""
import os, sys, time
import shmlog
{FINISH}
run = shmlog.init("others", root=sys.argv[1])
for step in range(100): run.log("x", 1.0, step)
read, write = os.pipe()
child = os.fork()
if child == 0:
    other = shmlog.attach(run.dir)  # an owner too: the run goes on for it
    other.log("y", 1.0)
    os.write(write, b"x")
    while True:
        other.log("y", 1.0)
        time.sleep(0.001)
os.read(read, 1)
parts = run.dir / "metrics" / "node=0"
parts.rmdir()
parts.touch()
print(finish(run), flush=True)
os.kill(child, 9)
os.waitpid(child, 0)
parts.unlink()
parts.mkdir()
"""


def test_a_finish_does_not_take_what_others_log_for_progress(tmp_path: Path) -> None:
    """Sealing fails for good, and draining goes on."""
    root = tmp_path / "runs"
    done = run_script(WHILE_OTHERS_LOG, root, cwd=tmp_path)
    assert done.stdout == "False\n", done.stderr
    wait_for_end(only_run(root))
    assert_books_balance(only_run(root))


# ---- its folders go ----

Take = Callable[[RunLayout], object]


def logs_anew(layout: RunLayout) -> None:
    shutil.rmtree(layout.wal)
    layout.wal.mkdir()


def run_anew(layout: RunLayout) -> None:
    """As a copy that takes the place of the run: its books are not those of the flusher."""
    copy = layout.dir.with_name("copy")
    shutil.copytree(layout.dir, copy)
    shutil.rmtree(layout.dir)
    copy.rename(layout.dir)


TAKEN: dict[str, Take] = {
    "run.yaml": lambda layout: layout.run_yaml.unlink(),
    "the folder of the logs": lambda layout: shutil.rmtree(layout.wal),
    "the folder of the logs, made anew": logs_anew,
    "the run": lambda layout: shutil.rmtree(layout.dir),
    "the run, made anew": run_anew,
}


@pytest.mark.parametrize("what", TAKEN)
def test_a_flusher_ends_whose_folders_were_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """P8: it waits for no folder that nobody brings back; what it could not keep is in the segment, which gc lists."""
    monkeypatch.setattr(gc, "_YOUNG_S", 0)
    run = shmlog.init("taken", root=tmp_path)
    run.log("x", 1.0)
    assert run.flush()
    flusher, segment = wait_for_flusher(run.dir), run._segment.path
    TAKEN[what](RunLayout(run.dir))
    run.log("x", 2.0)
    assert run.finish() is False
    wait_until(lambda: not Path(f"/proc/{flusher}").exists(), "the flusher to end")
    if what == "the folder of the logs, made anew":  # it goes on there, and tells what has gone
        assert shmlog.load(run.dir).metadata["complete"]
        assert sum(shmlog.load(run.dir).lost.values()) > 0
        assert not Path(segment).exists()
    else:
        wait_until(lambda: segment in [str(stale.path) for stale in gc.find_stale()], "the segment to be listed")
        Path(segment).unlink()
        Doorbell.unlink(f"/{Path(segment).name}")


# ---- a flusher that comes too late ----


def test_a_late_flusher_of_an_earlier_attempt_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """I4: it has opened the segment of a run that is closed, and resumed, before it looks whether it is to keep it."""
    run = shmlog.init("late", root=tmp_path)
    run.log("x", 0.0, step=0)
    layout, description = run._layout, Description.read(run._layout)
    segment = shm.open_segment(read_ref(layout), description)
    assert run.finish()
    wait_for_end(run.dir)
    again = shmlog.init("late", root=tmp_path, resume=run.id)
    again.log("x", 1.0, step=1)
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            reads, read = iter([description]), Description.read
            monkeypatch.setattr(flusher_main.Description, "read", lambda layout: next(reads, None) or read(layout))
            monkeypatch.setattr(flusher_main.shm, "open_segment", lambda *_, **__: segment)
            monkeypatch.setattr(flusher_main, "_is_open", lambda fd: False)
            monkeypatch.setattr(os, "closerange", lambda *_: None)  # the segment is open already
            monkeypatch.setattr(flusher_main, "keep", lambda *_: os._exit(7))
            flusher_main.main(layout.dir)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "two flushers would keep one folder"
    assert again.finish()
    wait_for_end(run.dir)
    assert assert_books_balance(run.dir, offered=2).to_numpy("x")[1].tolist() == [0.0, 1.0]
