"""The end of a run: when it was, and that its folder is left alone from then on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

import shmlog
from shmlog.flusher.loop import GOES_ON_S
from shmlog.folder.layout import RunLayout
from shmlog.run import ending
from shmlog.run.patience import PATIENCE_S
from shmlog.run.run import Run
from shmlog.segment import gc
from shmlog.segment.doorbell import Doorbell
from tests.support.books import assert_books_balance
from tests.support.processes import (
    flusher_pid,
    is_flusher_gone,
    only_run,
    run_script,
    start_script,
    stop,
    wait_for_end,
    wait_for_flusher,
    wait_until,
)


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of the last change of all that lies in a folder."""
    states = {path: path.stat() for path in [folder, *folder.rglob("*")]}
    return {str(path): (state.st_size, state.st_mtime_ns) for path, state in states.items()}


def kept_run(root: Path) -> tuple[shmlog.Run, int]:
    """Return a run with a record, and the pid of its flusher, which has read all of it."""
    run = shmlog.init("ends", root=root)
    run.log("x", 1.0)
    assert run.flush()
    return run, wait_for_flusher(run.dir)


def when_sealed(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Do something when all records are sealed, and the run is not closed yet."""
    has_lost = Run._has_lost

    def act_first(run: Run) -> bool:
        act()
        return has_lost(run)

    monkeypatch.setattr(Run, "_has_lost", act_first)


# ---- when it was ----


def test_a_run_ends_when_finish_is_called_however_long_it_is_sealed(tmp_path: Path) -> None:
    run, flusher = kept_run(tmp_path)
    stop(flusher)
    resumed: list[datetime] = []

    def resume() -> None:
        time.sleep(PATIENCE_S / 4)
        resumed.append(datetime.now(UTC))
        os.kill(flusher, signal.SIGCONT)

    waker = threading.Thread(target=resume)
    called = datetime.now(UTC)
    waker.start()
    assert run.finish()
    waker.join()
    record = shmlog.Store(tmp_path).get(run.id)
    assert record.ended_at is not None
    assert called <= record.ended_at < resumed[0]
    (attempt,) = shmlog.load(run.dir).attempts
    assert datetime.fromisoformat(attempt["ended_at"]) == record.ended_at
    assert datetime.fromisoformat(shmlog.load(run.dir).metadata["sealed_at"]) >= resumed[0]
    (end,) = shmlog.load(run.dir).events("experiment_end")
    assert end["data"]["duration_s"] <= (resumed[0] - record.started_at).total_seconds()


TWO_OWNERS = """
import os, sys, time
import shmlog
run = shmlog.init("ends", root=sys.argv[1])
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.close(write)
    other = shmlog.attach(run.dir)
    other.log("y", 1.0)
    print("attached", flush=True)
    os.read(read, 1)  # the maker has finished
    print(time.time(), flush=True)
    other.finish()
    os._exit(0)
sys.stdin.readline()
run.finish()
assert run._layout.wal.is_dir(), "the run goes on for the other owner"
os.close(write)
os.waitpid(child, 0)
"""


def test_a_run_of_several_owners_ends_with_the_last(tmp_path: Path) -> None:
    with start_script(TWO_OWNERS, tmp_path / "runs", cwd=tmp_path, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "attached\n"
        out, err = process.communicate("go on\n", timeout=60)
    assert process.returncode == 0, err
    called_s = float(out)
    record = shmlog.Store(tmp_path / "runs").get(only_run(tmp_path / "runs").name)
    assert record.ended_at is not None
    assert record.ended_at.timestamp() >= called_s - 1e-6
    assert record.complete


KILLED_OWNER = """
import os, signal, sys, time
import shmlog
run = shmlog.init("ends", root=sys.argv[1])
read, write = os.pipe()
attached, attaches = os.pipe()
child = os.fork()
if child == 0:
    os.close(write)
    other = shmlog.attach(run.dir)
    os.write(attaches, b"x")
    os.read(read, 1)  # the maker has finished
    time.sleep(float(sys.argv[2]))
    other.log("y", 1.0)
    other.flush()
    print(time.time(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
os.read(attached, 1)
run.finish()
os.close(write)
os.waitpid(child, 0)
"""


def test_a_run_ends_with_an_owner_that_is_killed_after_the_others_have_finished(tmp_path: Path) -> None:
    done = run_script(KILLED_OWNER, tmp_path / "runs", str(3 * GOES_ON_S), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_dir = only_run(tmp_path / "runs")
    wait_for_end(run_dir)
    record = shmlog.Store(tmp_path / "runs").get(run_dir.name)
    assert record.ended_at is not None
    assert record.ended_at.timestamp() >= float(done.stdout), "not with the finish of the first"
    assert record.status == "success"


# ---- its folder is left alone ----


def test_nothing_is_written_behind_the_finish_of_the_last_process(tmp_path: Path) -> None:
    for _ in range(3):
        run = shmlog.init("ends", root=tmp_path)
        run.log("x", 1.0)
        assert run.finish()
        left = everything(run.dir)
        assert str(run.dir / "manifest.json") in left
        assert str(run.dir / "wal") not in left
        wait_for_end(run.dir)
        assert everything(run.dir) == left


def test_a_folder_can_be_removed_behind_a_finish(tmp_path: Path) -> None:
    for turn in range(4):
        run = shmlog.init("ends", root=tmp_path / str(turn))
        run.log("x", 1.0)
        assert run.finish()
        shutil.rmtree(tmp_path / str(turn))


def test_a_finish_starts_another_flusher_if_one_dies_that_closes_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, flusher = kept_run(tmp_path)
    when_sealed(monkeypatch, lambda: stop(flusher))
    forget = Run._forget

    def forget_and_kill(ended: Run) -> None:
        os.kill(flusher, signal.SIGKILL)
        forget(ended)

    monkeypatch.setattr(Run, "_forget", forget_and_kill)
    assert run.finish()
    assert not (run.dir / "wal").exists()
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)


def test_a_finish_is_bounded_while_the_run_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """P7, and a warning says that the folder is not left alone yet."""
    run, flusher = kept_run(tmp_path)
    when_sealed(monkeypatch, lambda: stop(flusher))
    begun_s = time.monotonic()
    assert run.finish(), "all records are sealed"
    assert time.monotonic() - begun_s < 10 * PATIENCE_S
    (warning,) = caplog.records
    assert f"still has to close its folder: don't move or remove {run.dir}" in warning.getMessage()
    os.kill(flusher, signal.SIGCONT)
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)


def test_a_run_is_seen_off_at_the_exit_though_the_wait_for_its_close_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, flusher = kept_run(tmp_path)
    when_sealed(monkeypatch, lambda: stop(flusher))

    def interrupt(_: Run) -> bool:
        os.kill(flusher, signal.SIGKILL)
        signal.raise_signal(signal.SIGINT)
        return False

    monkeypatch.setattr(Run, "_is_closed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    assert run.finish(), "all records are sealed"
    wait_until(lambda: is_flusher_gone(run.dir), "the killed flusher to be gone")
    ending.see_off()
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)


# ---- its folder is gone ----


@pytest.mark.parametrize("what", ["run.yaml", "the run"])
def test_a_flusher_ends_by_itself_when_its_run_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Also while processes are attached, and nobody is bothered; what they log is dropped and counted."""
    monkeypatch.setattr(gc, "_YOUNG_S", 0)
    run = shmlog.init("ends", root=tmp_path, lane_records=4096)
    run.log("x", 1.0)
    assert run.flush()
    flusher, segment = wait_for_flusher(run.dir), run._segment.path
    if what == "the run":
        shutil.rmtree(run.dir)
    else:
        RunLayout(run.dir).run_yaml.unlink()
    wait_until(lambda: not Path(f"/proc/{flusher}").exists(), "the flusher to end")
    assert not caplog.records
    for step in range(5000):
        run.log("x", 1.0, step)
    assert run.stats["dropped"]["disk"] > 0
    assert run.finish() is False
    wait_until(lambda: flusher_pid(run.dir) is None, "flushers that were started in vain to end")
    Path(segment).unlink()
    Doorbell.unlink(f"/{Path(segment).name}")
