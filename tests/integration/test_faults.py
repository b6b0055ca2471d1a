"""Kills, stops and lack of room: what FAULTS calls rows 1 to 44, as far as a run meets them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shmlog
from shmlog import _core
from shmlog.cli.main import main
from shmlog.flusher.process import start_flusher
from shmlog.flusher.recover import recover
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import SegmentRef, read_ref
from shmlog.segment import gc, runlock, shm
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


def contents(run_dir: Path) -> dict[str, bytes]:
    """Return all files of a run folder."""
    return {str(p.relative_to(run_dir)): p.read_bytes() for p in sorted(run_dir.rglob("*")) if p.is_file()}


def log_some(run: shmlog.Run, count: int, name: str = "x") -> None:
    metric = run.metric(name)
    for i in range(count):
        metric(float(i), i)


# ---- the flusher dies ----


def test_another_flusher_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    with shmlog.init("killed", root=tmp_path) as run:
        for _ in range(3):
            log_some(run, 10_000)
            assert run.flush()
            os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
            log_some(run, 10_000)
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=60_000)
    assert stored.dropped == {}
    assert stored.status == "success"


def test_producers_that_fill_their_lane_start_another_flusher(tmp_path: Path) -> None:
    with shmlog.init("full", root=tmp_path, lane_records=4096) as run:
        log_some(run, 100)
        assert run.flush()
        os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
        wait_until(lambda: is_flusher_gone(run.dir), "the flusher's death")
        log_some(run, 50_000)
        assert run.stats["flusher"] == "running"
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=50_100)
    assert stored.dropped == {}


def test_a_second_flusher_gives_way(tmp_path: Path) -> None:
    with shmlog.init("two", root=tmp_path) as run:
        assert run.flush()  # this one is at work
        pid = wait_for_flusher(run.dir)
        for _ in range(3):
            start_flusher(RunLayout(run.dir))
        log_some(run, 10_000)
        time.sleep(0.5)
        wait_until(lambda: flusher_pid(run.dir) == pid, "the other flushers to give way")
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=10_000)


def test_a_stopped_flusher_stops_nobody(tmp_path: Path) -> None:
    run = shmlog.init("stopped", root=tmp_path, lane_records=4096, max_wait=0.05)
    log_some(run, 100)
    assert run.flush()
    pid = wait_for_flusher(run.dir)
    stop(pid)
    try:
        log_some(run, 100_000)
        dropped = run.stats["dropped"]["full"]
        assert dropped >= 100_000 - 4096, "P7: a full lane drops"
        assert run.stats["waits"] == 1, "I9: it waits once, and not again until the tail moves"
        begun = time.monotonic()
        assert run.flush() is False, "flush gives up"
        assert time.monotonic() - begun < 10
        assert shmlog.load(run.dir).status == "running", "a stopped run is alive"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert run.flush()
    log_some(run, 10)
    assert run.finish()
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=100_110)
    assert stored.dropped == {"full": dropped}
    assert len(stored.events("gap")) >= 1, "drops are marked at their place"


def test_a_finished_run_never_reads_as_crashed(tmp_path: Path) -> None:
    """P8: also while its flusher is stopped, or is dead, before it could write the status."""
    run = shmlog.init("late", root=tmp_path)
    log_some(run, 100)
    assert run.flush()
    pid = wait_for_flusher(run.dir)
    stop(pid)
    assert run.finish("failed") is False
    assert shmlog.load(run.dir).status == "failed"
    assert shmlog.Store(tmp_path).get(run.id).status == "failed"
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: is_flusher_gone(run.dir), "the flusher to be gone")
    assert shmlog.load(run.dir).status == "failed"
    recover(run.dir)
    assert shmlog.load(run.dir).metadata["complete"] is True
    assert shmlog.load(run.dir).status == "failed"
    assert_books_balance(run.dir, offered=100)


def test_interpreter_exit_is_bounded_when_the_flusher_is_stopped(tmp_path: Path) -> None:
    script = """
import os, signal, sys, time
import shmlog
sys.path.append(sys.argv[2])
from tests.support.processes import stop, wait_for_flusher
run = shmlog.init("bounded", root=sys.argv[1])
run.log("x", 1.0)
assert run.flush()
pid = wait_for_flusher(run.dir)
stop(pid)
print(pid, flush=True)
"""
    root = tmp_path / "runs"
    begun = time.monotonic()
    done = run_script(script, root, Path(__file__).parents[2], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begun < 20
    os.kill(int(done.stdout), signal.SIGCONT)
    wait_for_end(only_run(root))
    assert_books_balance(only_run(root), offered=1)


def test_drop_never_waits(tmp_path: Path) -> None:
    run = shmlog.init("drop", root=tmp_path, lane_records=4096, on_full="drop")
    run.flush()
    pid = wait_for_flusher(run.dir)
    stop(pid)
    log_some(run, 10_000)
    assert run.stats["waits"] == 0
    os.kill(pid, signal.SIGCONT)
    run.finish()
    wait_for_end(run.dir)
    assert assert_books_balance(run.dir, offered=10_000).dropped["full"] > 0


@contextlib.contextmanager
def strict_and_full(root: Path) -> Iterator[shmlog.Run]:
    """A run that raises at a drop, and has no room for more than a lane: its flusher is stopped. Its books balance."""
    run = shmlog.init("strict", root=root, lane_records=4096, on_full="drop", strict=True)
    run.flush()
    pid = wait_for_flusher(run.dir)
    stop(pid)
    try:
        yield run
    finally:
        os.kill(pid, signal.SIGCONT)
    run.finish()
    wait_for_end(run.dir)
    assert_books_balance(run.dir)


def test_strict_raises_when_a_record_is_dropped(tmp_path: Path) -> None:
    with strict_and_full(tmp_path) as run, pytest.raises(shmlog.errors.DroppedError, match="reason: full"):
        log_some(run, 10_000)


ATTACHED = """
import shmlog
run = shmlog.attach()
try:
    for step in range(10_000):
        run.log("loss", 0.5, step)
except shmlog.errors.DroppedError as error:
    print(error, run.stats["waits"])
"""


def test_what_was_said_of_full_lanes_holds_for_each_process(tmp_path: Path) -> None:
    with strict_and_full(tmp_path):
        done = run_script(ATTACHED, cwd=tmp_path)
    assert done.stdout == "1 record(s) dropped, reason: full (strict=True) 0\n", done.stderr


def test_drops_of_a_killed_process_are_told(tmp_path: Path) -> None:
    with shmlog.init("killed", root=tmp_path, lane_records=4096, on_full="drop") as run:
        assert run.flush()
        pid = wait_for_flusher(run.dir)
        stop(pid)
        child = os.fork()
        if child == 0:
            log_some(run, 10_000)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        os.kill(pid, signal.SIGCONT)
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=10_000)
    assert stored.dropped["full"] > 10_000 - 4096, "I4: nobody has followed it in its lane"


# ---- everything dies ----

BEGIN = """
import os, signal, sys, time
import shmlog
sys.path.append(sys.argv[2])
from tests.support.processes import wait_for_flusher
run = shmlog.init("all", root=sys.argv[1])
for i in range(30000): run.log("x", float(i), step=i)
run.event("mark", {"at": 30000})
"""
RECOVER = "import sys\nfrom shmlog.flusher.recover import recover\nrecover(sys.argv[1])"
KILL_ALL = """
os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
for i in range(20000): run.log("y", float(i), step=i)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("before", ["", "assert run.flush()", "time.sleep(0.7)"], ids=["at once", "flushed", "later"])
def test_recover_finishes_a_run_whose_processes_were_all_killed(tmp_path: Path, before: str) -> None:
    root = tmp_path / "runs"
    run_script(BEGIN + before + KILL_ALL, root, Path(__file__).parents[2], cwd=tmp_path)
    run_dir = only_run(root)
    live = shmlog.load(run_dir)
    assert live.status == "crashed"
    wait_until(lambda: live.unrecovered, "the kernel to release the flusher's lock")
    result = recover(run_dir)
    assert result.changed
    assert result.status == "crashed"
    stored = assert_books_balance(run_dir, offered=50_000)
    assert stored.metrics("x").num_rows == 30_000
    assert len(stored.events("mark")) == 1
    assert not stored.unrecovered
    before_second = contents(run_dir)
    again = recover(run_dir)
    assert not again.changed
    assert contents(run_dir) == before_second, "I6: a second recovery changes nothing"
    assert not (run_dir / "wal").exists()


def test_a_run_that_ends_while_its_flusher_recovers_another_leaves_it_whole(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    many = "run.metric('z').extend([0.5] * 1_000_000)\n"
    run_script(BEGIN + many + KILL_ALL, root, Path(__file__).parents[2], cwd=tmp_path)
    run_dir = only_run(root)
    wait_until(lambda: shmlog.load(run_dir).unrecovered, "the kernel to release the flusher's lock")
    with shmlog.init("next", root=root) as run:
        flusher = wait_for_flusher(run.dir)
        wait_until(lambda: not shmlog.load(run_dir).unrecovered, "the flusher of the next run to recover it")
    wait_for_end(run.dir)
    wait_until(lambda: not Path(f"/proc/{flusher}").exists(), "the flusher of the next run to end")
    stored = shmlog.load(run_dir)
    assert (stored.status, stored.unrecovered) == ("crashed", False)
    assert stored.counts["metrics"] + sum(stored.dropped.values()) == 1_050_000


def test_recover_works_from_the_log_alone_after_a_reboot(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_script(BEGIN + "assert run.flush()" + KILL_ALL, root, Path(__file__).parents[2], cwd=tmp_path)
    run_dir = only_run(root)
    shm.unlink(SegmentRef(*_segment_of(run_dir)))
    assert shmlog.load(run_dir).status == "crashed"
    recover(run_dir)
    stored = assert_books_balance(run_dir, without_segment=True)
    assert stored.metrics("x").num_rows == 30_000, "what flush() had returned for is in the log"
    assert not recover(run_dir).changed


def _segment_of(run_dir: Path) -> tuple[str | None, Path]:
    segment = shmlog.load(run_dir).metadata["segment"]
    return segment["name"], Path(segment["path"])


def test_recover_starts_a_flusher_for_a_run_that_lives(tmp_path: Path) -> None:
    with shmlog.init("lives", root=tmp_path) as run:
        log_some(run, 100)
        os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
        wait_until(lambda: is_flusher_gone(run.dir), "the flusher's death")
        assert recover(run.dir).changed
        wait_for_flusher(run.dir)
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=100)


def test_a_recovery_that_is_killed_is_done_by_the_next(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_script(BEGIN + KILL_ALL, root, Path(__file__).parents[2], cwd=tmp_path)
    run_dir = only_run(root)
    for delay in (0.05, 0.2, 0.3, 0.4, 0.5):
        process = start_script(RECOVER, run_dir, cwd=tmp_path)
        time.sleep(delay)
        process.kill()
        process.communicate()
    recover(run_dir)
    assert_books_balance(run_dir, offered=50_000)


def test_nobody_joins_a_run_that_was_recovered(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_script(BEGIN + KILL_ALL, root, Path(__file__).parents[2], cwd=tmp_path)
    ref = SegmentRef(*_segment_of(only_run(root)))
    segment = shm.open_segment(ref)
    late = ref.path.with_name(f"{ref.path.name}-late")
    late.hardlink_to(ref.path)  # as if it were opened before it is removed
    try:
        run_script(RECOVER, only_run(root), cwd=tmp_path)  # its locks go with it
        with pytest.raises(OSError, match="unavailable"):
            _core.RunBase()._join(segment, str(late), True, 0)
    finally:
        late.unlink()


def test_the_shared_memory_of_another_run_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_script(BEGIN + "assert run.flush()" + KILL_ALL, root, Path(__file__).parents[2], cwd=tmp_path)
    run_dir = only_run(root)
    described = runfile.read(run_dir / "run.yaml")
    shm.unlink(SegmentRef(*_segment_of(run_dir)))
    other = shm.create(
        "other", tmp_path / "other", lanes=1, lane_records=64, clock="auto", private=tmp_path / "segment"
    )
    place = {"name": other.name, "path": str(other.path), "inode": other.path.stat().st_ino}
    runfile.write(run_dir / "run.yaml", {**described, "segment": {**described["segment"], **place}})
    assert "another run" in recover(run_dir).message
    assert other.path.exists(), "I10: a run whose run.yaml is wrong spoils no other"
    shm.unlink(SegmentRef(other.name, other.path))
    assert assert_books_balance(run_dir, without_segment=True).metrics("x").num_rows == 30_000


def test_recover_without_a_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(shmlog.errors.RunNotFoundError, match=r"run\.yaml"):
        recover(tmp_path)


def test_stale_segments_are_found_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "_YOUNG_S", 0)
    root = tmp_path / "runs"
    run_script(BEGIN + KILL_ALL, root, Path(__file__).parents[2], cwd=tmp_path)
    with shmlog.init("alive", root=tmp_path) as alive:
        mine = [stale for stale in gc.find_stale() if stale.run_dir == only_run(root)]
        assert len(mine) == 1
        assert alive.dir not in [stale.run_dir for stale in gc.find_stale()]
        gc.remove(mine[0])
        assert not mine[0].path.exists()


HOLD = """
import sys, time
from shmlog.segment.runlock import locked
from shmlog.folder.layout import RunLayout
with locked(RunLayout(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_gc_removes_the_doorbell_of_a_segment_that_is_gone(tmp_path: Path) -> None:
    with shmlog.init("bell", root=tmp_path) as run:
        segment = read_ref(RunLayout(run.dir)).path
        bell = segment.with_name(f"sem.{segment.name}")
        assert bell.exists()
        assert bell not in [stale.path for stale in gc.find_stale()], "it is in use"
        aside = segment.with_name(f"aside-{segment.name}")
        segment.rename(aside)
        (stale,) = [stale for stale in gc.find_stale() if stale.path == bell]
        gc.remove(stale)
        assert not bell.exists()
        aside.rename(segment)
        run.log("x", 1.0)
    assert_books_balance(run.dir, offered=1)


def test_gc_removes_the_lock_of_a_killed_recovery_and_never_one_that_is_held(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = runlock.lock_path(RunLayout(tmp_path))
    path.symlink_to(tmp_path / "of somebody else")
    assert path not in [stale.path for stale in gc.find_stale()]
    path.unlink()
    process = start_script(HOLD, tmp_path, cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    assert path not in [stale.path for stale in gc.find_stale()]
    runlock.remove_lock(path)
    assert path.exists()
    process.kill()
    process.communicate()
    assert main(["gc"]) == 0
    assert re.search(rf"{path.name} +0 B  lock of a recovery that was killed", capfd.readouterr().out)
    (stale,) = (stale for stale in gc.find_stale() if stale.path == path)
    gc.remove(stale)
    assert not path.exists()


# ---- memory, folders, neighbours ----


def in_small_shm(script: str, megabytes: int, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script with a /dev/shm of its own of that size."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.fail("needs root and unshare (util-linux), to give a process a /dev/shm of its own")
    path = cwd / "small.py"
    path.write_text(script)
    command = f'mount -t tmpfs -o size={megabytes}m none /dev/shm && exec "$@"'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", command, "sh", sys.executable, str(path), *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


SMALL = """
import os, sys
import shmlog
run = shmlog.init("small", root=sys.argv[1])
for i in range(30000): run.log("x", float(i), step=i)
print(run.stats["segment"], run.stats["lane_records"])
assert run.finish()
"""


def test_a_tiny_shared_memory_falls_back_to_the_run_folder(tmp_path: Path) -> None:
    done = in_small_shm(SMALL, 1, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run_dir = only_run(tmp_path / "runs")
    assert done.stdout.split()[0] == str(run_dir / "segment")
    wait_for_end(run_dir)
    assert_books_balance(run_dir, offered=30_000)
    assert not (run_dir / "segment").exists()


def test_a_small_shared_memory_has_small_lanes(tmp_path: Path) -> None:
    done = in_small_shm(SMALL, 64, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    where, records = done.stdout.split()
    assert where.startswith("/dev/shm/")
    assert 4096 <= int(records) < 65_536
    wait_until(lambda: shmlog.load(only_run(tmp_path / "runs")).metadata["complete"], "the end")
    assert_books_balance(only_run(tmp_path / "runs"), offered=30_000)


def test_no_room_anywhere_is_a_clear_error(tmp_path: Path) -> None:
    small = tmp_path / "disk"
    small.mkdir()
    script = f"""
import subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", {str(small)!r}], check=True)
import shmlog
try:
    shmlog.init("none", root={str(small)!r})
except shmlog.errors.SegmentError as error:
    print(error)
    import os
    print(os.listdir({str(small / "none")!r}), os.listdir("/dev/shm"))
"""
    done = in_small_shm(script, 1, cwd=tmp_path)
    assert "no room for a segment" in done.stdout, done.stderr
    assert "--shm-size" in done.stdout
    assert done.stdout.endswith("[] []\n"), "nothing may be left behind"


def test_a_run_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(shmlog.errors.StorageError, match=r"cannot make .*/file/x: Not a directory; pass another root"):
        shmlog.init("x", root=blocked)
    assert shmlog.current() is None


def test_a_segment_of_another_user_or_open_to_others_is_refused(tmp_path: Path) -> None:
    with shmlog.init("foreign", root=tmp_path) as run:
        path = Path(run.stats["segment"])
        assert path.stat().st_mode & 0o777 == 0o600
        ref = SegmentRef(None, path)
        path.chmod(0o644)
        with pytest.raises(shmlog.errors.SegmentError, match="open to other users"):
            shm.open_segment(ref)
        path.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(path, 65534, -1)
            with pytest.raises(shmlog.errors.SegmentError, match="belongs to user 65534"):
                shm.open_segment(ref)
            os.chown(path, 0, -1)


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_the_mode_is_0600_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        placed = shm.create("umask", tmp_path, lanes=1, lane_records=64, clock="auto", private=tmp_path / "segment")
    finally:
        os.umask(old)
    assert placed.path.stat().st_mode & 0o777 == 0o600
    shm.unlink(SegmentRef(placed.name, placed.path))


DAMAGES = {
    "magic": (0, b"\0" * 8, "not a segment"),
    "version": (8, b"\x63", "another version"),
    "page": (12, b"\xff", "damaged header"),
    "bytes": (16, b"\xff" * 8, "damaged header"),
    "lanes": (24, b"\0\0\0\0", "damaged header"),
    "too many lanes": (24, b"\xff\xff\xff\xff", "damaged header"),
    "lane_slots": (28, b"\x03\0\0\0", "damaged header"),
    "offsets": (48, b"\xff" * 8, "damaged header"),
    "run id": (88, b"x" * 72, "damaged header"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_segment_is_refused(tmp_path: Path, damage: str) -> None:
    offset, data, message = DAMAGES[damage]
    placed = shm.create("damaged", tmp_path, lanes=1, lane_records=64, clock="auto", private=tmp_path / "segment")
    ref = SegmentRef(placed.name, placed.path)
    with open(placed.path, "r+b") as file:
        file.seek(offset)
        file.write(data)
    with pytest.raises(shmlog.errors.SegmentError, match=message):
        shm.open_segment(ref)
    shm.unlink(ref)


@pytest.mark.parametrize("size", [0, 1, 4096, 100_000])
def test_a_cut_segment_is_refused(tmp_path: Path, size: int) -> None:
    placed = shm.create("cut", tmp_path, lanes=1, lane_records=64, clock="auto", private=tmp_path / "segment")
    ref = SegmentRef(placed.name, placed.path)
    os.truncate(placed.path, size)
    with pytest.raises(shmlog.errors.SegmentError):
        shm.open_segment(ref)
    shm.unlink(ref)


def test_attach_to_a_foreign_or_ended_run_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with shmlog.init("ended", root=tmp_path) as run:
        value = os.environ["SHMLOG_RUN"]
        monkeypatch.setenv("SHMLOG_RUN", value.replace(run.id, "another"))
    wait_for_end(run.dir)
    script = "import shmlog\ntry: shmlog.attach()\nexcept shmlog.ShmlogError as e: print(type(e).__name__, e)"
    for env, message in (
        (value, "RunStateError run .* has ended"),
        ("nonsense", "RunNotFoundError .*expected 'segment@beacon:run folder'"),
        ("", "RunNotFoundError no run to attach to"),
        ("/shmlog-0:/nowhere", "RunNotFoundError there is no run folder"),
    ):
        done = run_script(script, cwd=tmp_path, env={"SHMLOG_RUN": env})
        with contextlib.suppress(KeyError):
            del os.environ["SHMLOG_RUN"]
        assert __import__("re").match(message, done.stdout), (env, done.stdout, done.stderr)


def test_a_segment_that_is_removed_does_not_disturb_who_is_attached(tmp_path: Path) -> None:
    with shmlog.init("removed", root=tmp_path) as run:
        wait_for_flusher(run.dir)
        assert run.flush()
        Path(run.stats["segment"]).unlink()
        log_some(run, 10_000)
        pid = os.fork()
        if pid == 0:
            log_some(run, 10_000, "child")
            os._exit(0)
        os.waitpid(pid, 0)
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=20_000)


def test_the_next_init_in_the_root_recovers_a_crashed_run(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_script(BEGIN + KILL_ALL, root, Path(__file__).parents[2], cwd=tmp_path)
    crashed = only_run(root)
    with shmlog.init("next", root=root) as run:
        wait_until(lambda: shmlog.load(crashed).metadata.get("complete"), "the crashed run to be recovered")
    assert_books_balance(crashed, offered=50_000)
    wait_for_end(run.dir)


def test_a_run_of_another_host_is_not_recovered_by_mistake(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_script(BEGIN + "assert run.flush()" + KILL_ALL, root, Path(__file__).parents[2], cwd=tmp_path)
    run_dir = only_run(root)
    described = runfile.read(run_dir / "run.yaml")
    shm.unlink(SegmentRef(*_segment_of(run_dir)))
    runfile.write(run_dir / "run.yaml", {**described, "host": "elsewhere", "boot_id": "another"})
    before = contents(run_dir)
    with pytest.raises(shmlog.errors.RunStateError, match="made on host 'elsewhere'"):
        recover(run_dir)
    assert contents(run_dir) == before
    assert recover(run_dir, force=True).changed
    assert assert_books_balance(run_dir, without_segment=True).metrics("x").num_rows == 30_000


def test_a_large_config_is_kept(tmp_path: Path) -> None:
    with shmlog.init("config", root=tmp_path, lane_records=64, config={"a": 1}) as run:
        run.log_config({"names": [f"layer{i}" for i in range(1000)]})
        run.log_config({"a": 2})
    wait_for_end(run.dir)
    config = shmlog.load(run.dir).config
    assert config["a"] == 2
    assert len(config["names"]) == 1000
