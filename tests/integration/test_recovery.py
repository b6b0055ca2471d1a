"""What recovery may take and what it must leave alone: foreign versions and owners, copies, links, other machines."""

from __future__ import annotations

import contextlib
import fcntl
import gc as gc_of_python
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.base import boot
from shmlog.base.times import utc_now
from shmlog.cli.main import main
from shmlog.errors import CorruptDataError, RunStateError, SegmentError, StorageError
from shmlog.flusher.recover import recover, recover_neighbours
from shmlog.folder import flock, liveness, runfile
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import Root
from shmlog.folder.segmentref import SHARED_MEMORY, SegmentRef, read_ref
from shmlog.reader.verify.verify import verify
from shmlog.segment import gc, meeting, runlock, shm
from shmlog.segment.doorbell import Doorbell
from tests.support.books import assert_books_balance
from tests.support.processes import (
    only_run,
    run_script,
    segments_below,
    start_script,
    wait_for_end,
    wait_until,
)

NOBODY = 65534
LOGGED = 500  # as many before a flush as after it

CRASH = f"""
import os, signal, sys
import shmlog
from tests.support.processes import is_flusher_gone, wait_for_flusher, wait_until
run = shmlog.init(sys.argv[2], root=sys.argv[1])
for step in range({LOGGED}): run.log("x", 1.0, step=step)
assert run.flush(timeout=60.0)
os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
wait_until(lambda: is_flusher_gone(run.dir), "the flusher's death")
for step in range({LOGGED}): run.log("y", 1.0, step=step)
print(run.dir, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def crashed(root: Path, experiment: str = "crashed") -> Path:
    """Return a run whose processes are all dead: half of its records are in its shared memory alone."""
    done = run_script(CRASH, root, experiment, cwd=root.parent)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run_dir = Path(done.stdout.strip())
    wait_until(lambda: shmlog.load(run_dir).unrecovered, "the kernel to release the locks of the killed")
    return run_dir


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the root of the runs."""
    return tmp_path / "runs"


def segment_of(run_dir: Path) -> SegmentRef:
    return read_ref(RunLayout(run_dir))


def pass_by(root: Path) -> None:
    """Do what the flusher of a new run in that root does for its neighbours."""
    recover_neighbours(root, root / "own" / "run", lambda: False)


def assert_whole(run_dir: Path) -> None:
    """Assert that every record that was logged is in the files, and nothing waits any more."""
    stored = assert_books_balance(run_dir, offered=2 * LOGGED)
    assert (stored.status, stored.unrecovered, stored.metrics().num_rows) == ("crashed", False, 2 * LOGGED)


def test_a_recovery_leaves_nothing_open(root: Path) -> None:
    """One process recovers many runs, as `shmlog recover` and flushers do, or trains on afterwards."""

    def held() -> tuple[int, list[str]]:
        mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/shm/shmlog-" in line]
        return len(os.listdir("/proc/self/fd")), mapped

    run_dirs = [crashed(root) for _ in range(2)]
    assert recover(run_dirs[0]).changed  # imports what a recovery needs
    gc_was_on = gc_of_python.isenabled()
    gc_of_python.collect()
    gc_of_python.disable()
    try:
        before = held()
        assert recover(run_dirs[1]).changed
        assert held() == before
    finally:
        if gc_was_on:
            gc_of_python.enable()
    assert_whole(run_dirs[1])


# ---- shared memory that can't be used ----


def _other_version(path: Path) -> Callable[[], object]:
    version = path.read_bytes()[8:12]

    def write(data: bytes) -> None:
        with open(path, "r+b") as file:
            file.seek(8)
            file.write(data)

    write(b"\x63\0\0\0")
    return lambda: write(version)


def _other_mode(path: Path) -> Callable[[], object]:
    path.chmod(0o644)
    return lambda: path.chmod(0o600)


def _other_owner(path: Path) -> Callable[[], object]:
    os.chown(path, NOBODY, -1)
    return lambda: os.chown(path, os.geteuid(), -1)


UNUSABLE = {"version": _other_version, "mode": _other_mode}
if os.geteuid() == 0:
    UNUSABLE["owner"] = _other_owner


@pytest.mark.parametrize("what", UNUSABLE)
def test_shared_memory_that_can_not_be_used_is_kept(root: Path, what: str) -> None:
    """I4: what it alone holds is lost when it is removed; who made it can still bring it in."""
    run_dir = crashed(root)
    path = segment_of(run_dir).path
    undo = UNUSABLE[what](path)
    with pytest.raises(RunStateError, match="can't be used, and records that only it holds would be lost"):
        recover(run_dir)
    pass_by(root)
    assert shmlog.load(run_dir).unrecovered
    undo()
    assert recover(run_dir).changed
    assert_whole(run_dir)


def test_shared_memory_that_can_not_be_used_is_given_up_by_force(root: Path) -> None:
    run_dir = crashed(root)
    path = segment_of(run_dir).path
    _other_version(path)
    assert "log alone" in recover(run_dir, force=True).message
    assert not path.exists()
    assert shmlog.load(run_dir).metrics().num_rows == LOGGED


def test_force_recovers_no_run_that_is_known_to_live(root: Path) -> None:
    with shmlog.init("lives", root=root) as run:
        assert run.flush(timeout=60.0)
        undo = _other_mode(segment_of(run.dir).path)
        assert not recover(run.dir, force=True).changed, "its flusher is at work"
        undo()
    wait_for_end(run.dir)


# ---- shared memory that is gone ----


def test_a_run_that_is_recovered_without_its_shared_memory_is_never_called_whole(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = crashed(root)
    shm.unlink(segment_of(run_dir))
    assert "records that only it held, if there were any, are lost" in recover(run_dir).message
    assert shmlog.load(run_dir).metrics().num_rows == LOGGED, "half of what was logged"
    report = verify(run_dir)
    assert not report.ok
    assert "records that only it held, if there were any, are lost" in report.findings[0].message
    assert main(["show", str(run_dir)]) == 0
    assert "what only its shared memory held LOST" in capsys.readouterr().out


# ---- copies ----


def test_a_copy_does_not_take_the_shared_memory_of_the_run_itself(root: Path, tmp_path: Path) -> None:
    run_dir = crashed(root)
    copy = tmp_path / "copies" / "crashed" / run_dir.name
    shutil.copytree(run_dir, copy)
    with pytest.raises(RunStateError, match=f"is a copy of {run_dir}"):
        recover(copy)
    pass_by(tmp_path / "copies")
    assert recover(run_dir).changed
    assert_whole(run_dir)
    assert "log alone" in recover(copy).message
    assert shmlog.load(copy).metrics().num_rows == LOGGED
    assert [finding.message for finding in verify(copy).findings if "shared memory was gone" in finding.message]


def test_a_run_that_was_moved_is_recovered_where_it_is(root: Path, tmp_path: Path) -> None:
    run_dir = crashed(root)
    root.rename(tmp_path / "moved")
    moved = tmp_path / "moved" / run_dir.relative_to(root)
    assert recover(moved).changed
    assert_whole(moved)


@pytest.mark.parametrize("how", ["by name", "in passing"])
def test_a_run_that_was_renamed_is_recovered_whole_and_read_under_any_name(root: Path, how: str) -> None:
    """Parts have the id that the run was made under, whatever its folder is called."""
    run_dir = crashed(root)
    copy = Path(shutil.copytree(run_dir, run_dir.with_name("copy")))
    with pytest.raises(RunStateError, match=f"is a copy of {run_dir}"):
        recover(copy)
    shutil.rmtree(copy)
    renamed = run_dir.rename(run_dir.with_name("renamed"))
    if how == "by name":
        assert recover(renamed).changed
    else:
        pass_by(root)
    assert_whole(renamed)
    for name in ("again", "once-more"):
        with shmlog.init(renamed.parent.name, root=root, resume=renamed) as run:
            run.log("x", 1.0, step=2 * LOGGED)
        wait_for_end(renamed)
        renamed = renamed.rename(renamed.with_name(name))
        assert shmlog.load(renamed).metrics(superseded=True).num_rows >= 2 * LOGGED + 1
        assert verify(renamed).ok


# ---- links in a run that is complete ----


@pytest.mark.parametrize("link", ["wal", "metrics", "metrics/node=0"])
def test_nothing_is_removed_through_a_link_in_a_run_that_is_complete(root: Path, tmp_path: Path, link: str) -> None:
    with shmlog.init("linked", root=root) as run:
        run.log("x", 1.0)
    wait_for_end(run.dir)
    target = tmp_path / "precious"
    target.mkdir()
    names = ["a.tmp", "000000.wal", "sealed.json", "flusher.log", "part-000000.parquet", "part-000000-000001.parquet"]
    for name in names:
        (target / name).write_text(name)
    place = run.dir / link
    if place.exists():
        place.rename(tmp_path / "saved")
    place.symlink_to(target)
    RunLayout(run.dir).wal.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        recover(run.dir)
    pass_by(root)
    assert sorted(names) == sorted(path.name for path in target.iterdir())
    with pytest.raises(StorageError, match="is a symlink"):
        recover(run.dir)


# ---- neighbours ----


def test_a_neighbour_that_can_not_be_recovered_does_not_keep_the_others_from_it(root: Path) -> None:
    broken = {name: crashed(root, name) for name in ("a", "b")}
    for change, run_dir in zip(({"sinks": None}, {"counts": 7, "complete": True}), broken.values(), strict=True):
        described = runfile.read(RunLayout(run_dir).run_yaml)
        shm.unlink(segment_of(run_dir))
        runfile.write(RunLayout(run_dir).run_yaml, described | change)
    last = crashed(root, "c")
    pass_by(root)
    assert_whole(last)
    with pytest.raises(CorruptDataError, match="does not say where the metrics go"):
        recover(broken["a"])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_neighbour_of_another_user_is_left_alone(root: Path) -> None:
    run_dir = crashed(root)
    os.chown(run_dir / "run.yaml", NOBODY, NOBODY)
    pass_by(root)
    assert shmlog.load(run_dir).unrecovered
    os.chown(run_dir / "run.yaml", 0, 0)
    pass_by(root)
    assert_whole(run_dir)


def test_all_runs_of_a_relative_root_are_recovered(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dirs = [crashed(root, name) for name in ("a", "b")]
    assert main(["recover", root.name]) == 0
    assert "2 runs recovered" in capsys.readouterr().err
    assert Path.cwd() == root.parent, "nobody but a flusher changes its folder"
    for run_dir in run_dirs:
        assert_whole(run_dir)


def test_the_next_run_says_which_one_it_has_recovered(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_dir = crashed(root)
    with shmlog.init("next", root=root) as run:
        note = RunLayout(run.dir).recovered
        wait_until(lambda: note.exists() and note.read_text().endswith("\n"), "the flusher to recover the crashed run")
    said = [(record.name, record.getMessage()) for record in caplog.records]
    assert said == [("shmlog", f"recovered {run_dir}: its processes had died before it was closed")]
    wait_for_end(run.dir)
    assert not note.exists()
    assert_whole(run_dir)


# ---- machines ----


@pytest.fixture
def machine_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file with this machine's id: some have none."""
    path = tmp_path / "machine-id"
    path.write_text("0123456789abcdef" * 2 + "\n")
    monkeypatch.setattr(boot, "_MACHINE_ID", path)
    return path


def restarted(run_dir: Path, **changes: Any) -> RunLayout:
    """Have a crashed run be one of an earlier boot, with the machine that there is now or what is said of another."""
    layout = RunLayout(run_dir)
    shm.unlink(segment_of(run_dir))
    described = runfile.read(layout.run_yaml)
    told = {"boot_id": "an earlier one", "machine": boot.machine_id(), "started_at": "1970-01-01T00:00:00Z", **changes}
    described["attempts"][-1]["started_at"] = told["started_at"]
    runfile.write(layout.run_yaml, described | told)
    for number in layout.logs():
        os.utime(layout.log(number), (0.0, 0.0))
    return layout


@pytest.mark.usefixtures("machine_id")
def test_a_run_of_this_machine_before_it_restarted_is_recovered(root: Path) -> None:
    layout = restarted(crashed(root))
    pass_by(root)
    stored = shmlog.load(layout.dir)
    assert (stored.status, stored.unrecovered, stored.metrics().num_rows) == ("crashed", False, LOGGED)


@pytest.mark.parametrize("other", [None, "another"])
@pytest.mark.usefixtures("machine_id")
def test_a_run_of_another_machine_of_the_same_name_is_not_taken_for_dead(root: Path, other: str | None) -> None:
    layout = restarted(crashed(root), machine=other)
    stored = shmlog.load(layout.dir)
    assert (stored.status, stored.live, stored.unrecovered) == ("running", None, False)
    assert_nobody_takes(layout)


@pytest.mark.usefixtures("machine_id")
def test_a_run_that_was_logged_to_since_the_start_is_of_a_machine_with_the_same_id(root: Path) -> None:
    """Images of machines are copied with their ids: what happened after this start was not before it."""
    layout = restarted(crashed(root))
    os.utime(layout.log(layout.logs()[-1]))
    assert_nobody_takes(layout)


@pytest.mark.usefixtures("machine_id")
def test_a_run_that_began_since_the_start_is_of_a_machine_with_the_same_id(root: Path) -> None:
    """Its flusher has written no log yet."""
    layout = restarted(crashed(root), started_at=utc_now())
    assert_nobody_takes(layout)


def assert_nobody_takes(layout: RunLayout) -> None:
    """Assert that a run which may live is neither recovered nor deleted, unless somebody says that it may be."""
    pass_by(layout.root)
    with pytest.raises(RunStateError, match="not known here whether"):
        recover(layout.dir)
    with pytest.raises(RunStateError, match="as far as can be seen from this machine"):
        shmlog.Store(layout.root).delete(layout.run_id)
    assert layout.logs()
    assert recover(layout.dir, force=True).changed


def test_an_id_that_is_none_tells_no_machine(machine_id: Path) -> None:
    told = boot.machine_id()
    assert told is not None
    assert machine_id.read_text().strip() not in told, "it is not to be given away"
    for text in ("", "uninitialized\n"):
        machine_id.write_text(text)
        assert boot.machine_id() is None
    machine_id.unlink()
    assert boot.machine_id() is None


# ---- what is left in shared memory ----


MARK = f"{os.getpid():016x}"  # the random part of a name, in the place of what would not be known here


@pytest.fixture
def _old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nothing of this test be so young that it may still be being made; of others nothing is looked at."""
    look = gc._own_segments

    def own_segments() -> list[SegmentRef]:
        mine = {name for name, _ in segments_below(tmp_path)} | {f"shmlog-{MARK}"}
        return [ref for ref in look() if ref.path.name in mine]

    monkeypatch.setattr(gc, "_own_segments", own_segments)
    monkeypatch.setattr(gc, "_YOUNG_S", -1.0)


def segments() -> list[gc.Stale]:
    """Return the segments of this test that gc lists."""
    return gc._stale_segments()


@pytest.mark.usefixtures("_old")
@pytest.mark.parametrize("what", UNUSABLE)
def test_gc_lists_no_segment_that_is_in_use(root: Path, what: str) -> None:
    """I7: also if it can't be opened, as that of another version."""
    with shmlog.init("live", root=root) as run:
        path = segment_of(run.dir).path
        undo = UNUSABLE[what](path)
        assert segments() == []
        gc.sweep(print)
        assert path.exists()
        undo()
    wait_for_end(run.dir)


@pytest.mark.usefixtures("_old")
def test_gc_keeps_a_segment_that_may_hold_records_and_can_not_be_opened(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = crashed(root)
    path = segment_of(run_dir).path
    undo = _other_version(path)
    (stale,) = segments()
    with pytest.raises(SegmentError, match=r"another version.*shmlog recover"):
        gc.remove(stale)
    assert main(["gc", "--force"]) == 3
    assert "another version" in capsys.readouterr().err
    assert path.exists()
    undo()
    recover(run_dir)
    assert_whole(run_dir)


def die_in_init(root: Path, step: int) -> bool:
    """Make a run in a child that is killed at one of its calls; return whether it was."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = iter(range(step))

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    try:
        os.urandom = lambda count: bytes.fromhex(MARK)[-count:]  # type: ignore[assignment]
        for owner, name in (
            (Path, "mkdir"), (os, "fchmod"), (os, "chmod"), (shm, "_fill"), (Doorbell, "create"), (os, "replace"),
        ):  # fmt: skip
            setattr(owner, name, dying(getattr(owner, name)))
        shmlog.init("killed", root=root).finish()
    finally:
        os._exit(0)


@pytest.mark.usefixtures("_old")
@pytest.mark.parametrize("sweeper", ["gc", "the next run"])
def test_nothing_is_left_of_a_process_that_was_killed_in_init(root: Path, sweeper: str) -> None:
    step, found = 0, 0
    while True:
        assert die_in_init(root, step)
        if any(root.glob("*/*/run.yaml")):
            break  # from here on it is a run, which has crashed
        step += 1
        found += (SHARED_MEMORY / f"shmlog-{MARK}").exists()
        if sweeper == "gc":
            for stale in segments():
                gc.remove(stale)
        else:
            gc.sweep(print)
        assert [path.name for path in SHARED_MEMORY.iterdir() if MARK in path.name] == []
        shutil.rmtree(root, ignore_errors=True)  # where there was no segment yet
    assert found > 3
    assert recover(only_run(root)).changed


@pytest.mark.usefixtures("_old")
def test_the_folder_of_a_run_that_never_began_is_removed_some_time_later(root: Path) -> None:
    layout = RunLayout(root / "killed" / "20261121-031522-7f3a9c")
    layout.dir.mkdir(parents=True)
    layout.make_folders()
    runfile.write(layout.config_yaml, {"lr": 0.1})
    pass_by(root)
    assert layout.dir.exists(), "another host may be making it"
    os.utime(layout.wal, (0.0, 0.0))
    layout.log(0).touch()
    pass_by(root)
    assert layout.dir.exists(), "it has a log: it has lost its run.yaml"
    layout.log(0).unlink()
    os.utime(layout.wal, (0.0, 0.0))
    pass_by(root)
    assert not layout.dir.exists()


@pytest.mark.usefixtures("_old")
def test_shared_memory_of_a_run_that_was_deleted_goes_when_that_was_not_seen_for_long(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = crashed(root)
    path = segment_of(run_dir).path
    moved = tmp_path / "moved"

    def is_swept(*reasons: str) -> bool:
        monkeypatch.setattr(gc, "_PATIENCE_S", gc._PATIENCE_S | dict.fromkeys(reasons, 1e-9))
        gc.sweep(print)
        return not path.exists()

    assert not is_swept()
    root.rename(moved)
    assert not any(is_swept() for _ in range(2)), "its folder may come back"
    assert not any(is_swept(gc._ORPHANED) for _ in range(2)), "it holds records that are nowhere else"
    moved.rename(root)
    assert not is_swept(gc._ORPHANED_WITH_RECORDS), "it has come back"
    root.rename(moved)
    assert not is_swept(), "it was seen since it was missed first"
    assert is_swept()
    assert not (SHARED_MEMORY / f"sem.{path.name}").exists()


@pytest.mark.usefixtures("_old")
def test_shared_memory_of_a_run_whose_folder_has_a_long_path_is_never_swept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header has no room for its path."""
    deep = root.joinpath(*["x" * 200] * 10)
    deep.mkdir(parents=True)
    run_dir = crashed(deep)
    path = segment_of(run_dir).path
    monkeypatch.setattr(gc, "_PATIENCE_S", dict.fromkeys(gc._PATIENCE_S, 1e-9))
    for _ in range(2):
        gc.sweep(print)
    assert path.exists()
    stale = gc._examine(segment_of(run_dir))
    assert stale is not None
    assert stale.reason == gc._UNKNOWN
    assert recover(run_dir).changed
    assert_whole(run_dir)


# ---- locks that others hold or plant ----


def test_a_lock_of_the_folder_that_somebody_holds_is_not_waited_for_without_end(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: anybody who may read a folder can lock it."""
    import fcntl

    monkeypatch.setattr(flock, "PATIENCE_S", 0.1)
    run_dir = crashed(root)
    folder = os.open(run_dir, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(RunStateError, match="held the lock of this folder"):
        recover(run_dir)
    os.close(folder)
    assert recover(run_dir).changed
    assert_whole(run_dir)


def test_the_lock_is_that_of_the_folder_which_has_come_in_the_place_of_one_that_was_taken_away(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    first = os.open(folder, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    is_locked, is_over = threading.Event(), threading.Event()

    def hold() -> None:
        with flock.folder_locked(folder):
            is_locked.set()
            is_over.wait()

    def opened() -> int:
        return sum(os.path.realpath(fd) == str(folder) for fd in Path("/proc/self/fd").iterdir())

    holder = threading.Thread(target=hold)
    holder.start()
    wait_until(lambda: opened() == 2, "somebody to wait for the lock")
    folder.rename(tmp_path / "trash")
    folder.mkdir()
    os.close(first)
    assert is_locked.wait(60)
    second = os.open(folder, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        is_over.set()
        holder.join()
        os.close(second)


def test_a_lock_of_the_root_that_somebody_holds_is_not_waited_for_without_end(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    monkeypatch.setattr(flock, "PATIENCE_S", 0.1)
    store = Root(root)
    old = os.umask(0)
    try:
        root.mkdir()
        with store.locked(), pytest.raises(StorageError, match="held this lock"), Root(root).locked():
            pass
    finally:
        os.umask(old)
    assert store.lock.stat().st_mode & 0o002 == 0, "others need not write into it"
    other = os.open(store.lock, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(StorageError, match="held this lock"), store.locked():
        pass
    os.close(other)
    with store.locked():
        pass


PLANTED: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
    "link": lambda path: path.symlink_to("/dev/shm/shmlog-of-somebody"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_planted_in_the_place_of_a_lock_is_a_clear_error(root: Path, kind: str) -> None:
    run_dir = crashed(root)
    path = runlock.lock_path(RunLayout(run_dir))
    PLANTED[kind](path)
    try:
        with pytest.raises(SegmentError, match=path.name):
            recover(run_dir)
        assert shmlog.load(run_dir).unrecovered
    finally:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert recover(run_dir).changed
    assert_whole(run_dir)


def test_a_lock_can_be_taken_by_the_next_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o777)
    try:
        with runlock.locked(RunLayout(tmp_path)):
            assert runlock.lock_path(RunLayout(tmp_path)).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(old)


# ---- what a run.yaml may name ----


def test_no_other_file_is_looked_at_because_a_run_yaml_names_it(tmp_path: Path) -> None:
    """Opening a device may do something. A lock that is held there tells whether it was opened."""
    process = start_script(LOCK, tmp_path / "of somebody", tmp_path / "segment", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n", process.communicate()
    for name, known in (("of somebody", None), ("segment", True)):
        status = (tmp_path / name).stat()
        place = {"path": str(tmp_path / name), "device": status.st_dev, "inode": status.st_ino, "name": None}
        assert liveness.members_live(Description(boot_id=boot.boot_id(), segment=place)) is known
    process.kill()
    process.communicate()


LOCK = """
import fcntl, os, struct, sys, time
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 1, 1, 0))
print("held", flush=True)
time.sleep(600)
"""


def test_no_other_object_is_removed_because_a_run_yaml_names_it(root: Path) -> None:
    """Such as the list of the runs of another launch."""
    run_dir = crashed(root)
    layout, ref = RunLayout(run_dir), segment_of(run_dir)
    described = runfile.read(layout.run_yaml)
    victim = SHARED_MEMORY / f"shmlog.meet-{NOBODY}-{MARK}"
    victim.write_text("{}")
    status = victim.stat()
    try:
        for name in (f"/{victim.name}", "/shmlog-", f"/../shm/{victim.name}", 7):
            place = {"name": name, "path": str(victim), "device": status.st_dev, "inode": status.st_ino}
            runfile.write(layout.run_yaml, described | {"segment": place})
            with pytest.raises(shmlog.errors.RunNotFoundError, match="does not say where the segment is"):
                recover(run_dir, force=True)
            assert victim.exists()
    finally:
        victim.unlink()
    runfile.write(layout.run_yaml, described)
    assert recover(run_dir).changed
    assert not ref.path.exists()


def test_a_file_that_came_in_the_place_of_the_segment_stays(root: Path) -> None:
    with shmlog.init("x", root=root) as run:
        assert run.flush(timeout=60), "its flusher has the segment"
        path = Path(run.stats["segment"])
        path.unlink()
        path.write_bytes(b"of somebody else")
    wait_for_end(run.dir)
    try:
        assert path.read_bytes() == b"of somebody else"
        assert not path.with_name(f"sem.{path.name}").exists()
    finally:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("what", ["run", "launch", "store"])
def test_a_child_that_is_forked_under_a_lock_does_not_keep_it(tmp_path: Path, what: str) -> None:
    layout = RunLayout(tmp_path)
    place = meeting.meeting_place(str(tmp_path))
    path, lock = {
        "run": (layout.dir, lambda: runlock.locked(layout)),
        "launch": (place, lambda: meeting.open_meeting(place)),
        "store": (Root(tmp_path).lock, lambda: Root(tmp_path).locked()),
    }[what]
    with lock():
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        assert is_free(path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        place.unlink(missing_ok=True)


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock of a file or folder."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
