"""Other users of the host, and what lies at our names already (FAULTS 1 to 9)."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import pkgutil
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import posix_ipc
import pytest

import shmlog
from shmlog.flusher import closing
from shmlog.flusher.process import start_flusher
from shmlog.flusher.recover import recover
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import SHARED_MEMORY, SegmentRef
from shmlog.segment import shm
from shmlog.store import index
from tests.support.books import assert_books_balance
from tests.support.processes import (
    is_flusher_gone,
    run_script,
    start_script,
    wait_for_end,
    wait_for_flusher,
    wait_until,
)
from tests.support.stores import add_run

NOBODY = 65534
SQUATTED = os.getpid().to_bytes(8, "big")
PLANTED = SHARED_MEMORY / f"shmlog-{SQUATTED.hex()}"


def as_nobody(work: Callable[[], object]) -> object:
    """Return what ``work`` returns or raises in a child that is another user, who perhaps can't read the package."""
    if os.geteuid() != 0:
        pytest.fail("needs root, to become another user")
    for module in pkgutil.walk_packages(shmlog.__path__, "shmlog."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            signal.alarm(30)
            os.write(writing, pickle.dumps(_outcome(work)))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        told = file.read()
    os.waitpid(pid, 0)
    assert told, "the child died"
    return pickle.loads(told)


def _outcome(work: Callable[[], object]) -> object:
    try:
        return work()
    except BaseException as error:
        return type(error), str(error)


# ---- something lies at the name (1, 2, 7) ----


def plant(kind: str, place: Path, victim: Path) -> None:
    """Put something at a name, as another user can in /dev/shm."""
    {
        "symlink": lambda: place.symlink_to(victim),
        "dangling symlink": lambda: place.symlink_to(victim.with_name("not there")),
        "file": lambda: place.write_bytes(b"another's"),
        "FIFO": lambda: os.mkfifo(place),
        "folder": place.mkdir,
        "hard link": lambda: os.link(victim, place),
    }[kind]()
    if not place.is_symlink():
        os.chown(place, NOBODY, NOBODY)
        place.chmod(0o666)


KINDS = ("symlink", "dangling symlink", "file", "FIFO", "folder", "hard link")


@pytest.fixture
def victim() -> Iterator[Path]:
    """Return a file of ours, in the same file system as the segments, that must not change."""
    path = SHARED_MEMORY / f"victim-{os.getpid()}"
    path.write_bytes(b"precious" * 1000)
    yield path
    assert path.read_bytes() == b"precious" * 1000, "written through a name that was planted"
    path.unlink()


@pytest.fixture
def planted(victim: Path) -> Iterator[Callable[[str, Path], None]]:
    """Return what plants something, which is removed afterwards."""
    places: list[Path] = []

    def do(kind: str, place: Path) -> None:
        places.append(place)
        plant(kind, place, victim)

    yield do
    for place in places:
        assert place.is_symlink() or place.exists(), "what is another's was removed"
        place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()


class Chosen:
    """In the place of the random names of segments: the squatted one so many times, then others."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, count: int) -> bytes:
        self.times -= 1
        return SQUATTED if self.times >= 0 else os.getrandom(count)


def create(folder: Path) -> shm.Placed:
    return shm.create("planted", folder, lanes=1, lane_records=64, clock="auto", private=folder / "segment")


@pytest.mark.parametrize("place", [PLANTED, SHARED_MEMORY / f"sem.{PLANTED.name}"], ids=["segment", "doorbell"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_is_taken_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: Callable[[str, Path], None], kind: str, place: Path
) -> None:
    """FAULTS 1, 2, 7: the next random name is taken; what was planted is neither followed nor removed."""
    planted(kind, place)
    monkeypatch.setattr(shm.os, "urandom", Chosen(2))
    made = create(tmp_path)
    monkeypatch.undo()
    assert made.name not in (None, f"/{PLANTED.name}")
    assert place.name.startswith("sem.") is not os.path.lexists(PLANTED)
    shm.unlink(SegmentRef(made.name, made.path))


def test_names_that_are_all_taken_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: Callable[[str, Path], None]
) -> None:
    """FAULTS 7: it ends, and nothing is made."""
    planted("file", PLANTED)
    monkeypatch.setattr(shm.os, "urandom", Chosen(10_000))
    with pytest.raises(shmlog.errors.SegmentError, match="squatted"):
        create(tmp_path)


@pytest.mark.parametrize("named", [True, False], ids=["shared memory", "run folder"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_in_the_place_of_a_segment_is_refused(
    tmp_path: Path, planted: Callable[[str, Path], None], kind: str, named: bool, victim: Path
) -> None:
    """FAULTS 2: attaching opens regular files of ours alone, and never waits for a FIFO's other end."""
    place = PLANTED if named else SHARED_MEMORY / f"segment-of-a-folder-{os.getpid()}"
    planted(kind, place)
    with pytest.raises((shmlog.errors.SegmentError, FileNotFoundError)):
        shm.open_segment(SegmentRef(f"/{place.name}" if named else None, place))


# ---- another user (3, 4) ----

HOLDER = """
import sys
import shmlog
run = shmlog.init("mine", root=sys.argv[1])
for i in range(1000): run.log("x", float(i), step=i)
assert run.flush()
print(run.dir, run.stats["segment"], flush=True)
sys.stdin.read()
"""


def refusals(run_dir: Path, segment: Path, pid: int) -> dict[str, Callable[[], object]]:
    """Return what another user might try with a run that it can look at."""
    bell = SHARED_MEMORY / f"sem.{segment.name}"
    ours = [path for path in run_dir.rglob("*") if path.is_file()]
    return {
        "read": lambda: segment.open("rb"),
        "write": lambda: segment.open("r+b"),
        "truncate": lambda: os.truncate(segment, 0),
        "unlink": segment.unlink,
        "rename": lambda: segment.rename(segment.with_name("shmlog-0000000000000000")),
        "chmod": lambda: segment.chmod(0o666),
        "ring": lambda: posix_ipc.Semaphore(f"/{segment.name}"),
        "unlink the doorbell": bell.unlink,
        "memory": lambda: open(f"/proc/{pid}/mem", "rb"),
        "kill": lambda: os.kill(pid, signal.SIGKILL),
        **{f"write {path.name}": lambda path=path: path.open("ab") for path in ours},
        **{f"remove {path.name}": path.unlink for path in ours},
    }


def test_another_user_is_refused(open_folder: Path) -> None:
    """FAULTS 3, 4, P10: read, write, truncate, unlink, attach; whatever the umask of the run was."""
    old = os.umask(0o022)
    process = start_script(HOLDER, open_folder / "runs", cwd=open_folder, stdin=-1)
    os.umask(old)
    assert process.stdout is not None
    run_dir, segment = map(Path, process.stdout.readline().split())
    for what, attempt in refusals(run_dir, segment, process.pid).items():
        outcome = as_nobody(attempt)
        assert isinstance(outcome, tuple), what
        assert issubclass(outcome[0], (PermissionError, posix_ipc.PermissionsError)), f"{what}: {outcome}"
    refused = as_nobody(lambda: shmlog.attach(run_dir))
    assert refused == (shmlog.errors.SegmentError, f"{segment}: belongs to another user")
    # It may read the files, and then says of life what it knows: nothing, or that it lives.
    assert as_nobody(lambda: shmlog.load(run_dir).status) == "running"
    process.communicate(timeout=60)
    wait_for_end(run_dir)
    assert assert_books_balance(run_dir, offered=1000).status == "success"


def log_in_a_child(run: shmlog.Run) -> int:
    """Log 100 records, and 100 in a forked child; return its status."""
    for i in range(200):
        pid = os.fork() if i == 100 else -1
        if pid > 0:
            return os.waitpid(pid, 0)[1]
        run.log("x", float(i), step=i)
    os._exit(0)


def test_what_a_child_of_another_user_gets_no_lane_for_is_in_the_books(open_folder: Path) -> None:
    """FAULTS 3, I4: whoever has dropped its privileges goes on; its children may neither open the segment nor write."""
    with shmlog.init("privileges", root=open_folder / "runs") as run:
        assert as_nobody(lambda: log_in_a_child(run)) == 0
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=200)
    assert stored.dropped == {"lane": 100}
    assert stored.metrics("x").num_rows == 100


def test_a_run_folder_that_may_not_be_read_is_a_clear_error(open_folder: Path) -> None:
    """FAULTS 4: another user's private folder."""
    (open_folder / "private").mkdir(mode=0o700)
    outcome = as_nobody(lambda: shmlog.attach(open_folder / "private" / "mine" / "run"))
    assert isinstance(outcome, tuple)
    assert issubclass(outcome[0], shmlog.ShmlogError), outcome


def test_a_store_where_one_may_not_write_is_listed(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 5: without the index, which can't be kept there."""
    monkeypatch.setattr(index, "_TICK_NS", -(10**12))  # it takes files that have just been written
    root = open_folder / "runs"
    add_run(root, "a")
    expected = shmlog.Store(root).runs()
    shutil.rmtree(root / ".shmlog")
    assert as_nobody(lambda: shmlog.Store(root).runs()) == expected
    assert not (root / ".shmlog").exists()


def test_init_where_one_may_not_write_is_a_clear_error(open_folder: Path) -> None:
    """FAULTS 5: nothing is left of it."""
    outcome = as_nobody(lambda: shmlog.init("x", root=open_folder / "runs"))
    assert isinstance(outcome, tuple)
    assert outcome[0] is shmlog.errors.StorageError
    assert list(open_folder.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_segment_and_doorbell_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """FAULTS 3: exactly 0600."""
    old = os.umask(umask)
    try:
        run = shmlog.init("umask", root=tmp_path)
    finally:
        os.umask(old)
    segment = Path(run.stats["segment"])
    assert segment.stat().st_mode & 0o777 == 0o600
    assert (SHARED_MEMORY / f"sem.{segment.name}").stat().st_mode & 0o777 == 0o600
    run.log("x", 1.0)
    assert run.finish()
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)


# ---- the run folder (5) ----


def test_a_root_that_everybody_may_write_to_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 5: unless it is sticky, as /tmp is."""
    for mode, warnings in ((0o777, 1), (0o1777, 0), (0o775, 0), (0o755, 0)):
        root = tmp_path / f"{mode:o}"
        root.mkdir()
        root.chmod(mode)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "shmlog"), shmlog.init("open", root=root) as run:
            run.log("x", 1.0)
        assert sum("any user of this host may replace" in record.message for record in caplog.records) == warnings
        wait_for_end(run.dir)


LINKS = ("wal", "metrics", "metrics/node=0", "large", "wal/flusher.log", "wal/000000.wal", "events.jsonl", "run.log",
         "run.yaml.tmp", "metrics/node=0/part-000000.parquet.tmp", "wal/sealed.json.tmp")  # fmt: skip


@pytest.mark.parametrize("link", LINKS)
def test_no_symlink_in_a_run_folder_is_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    """FAULTS 5: recovery of a run, whose flusher was killed, finds a symlink where it would write."""
    monkeypatch.setattr(closing, "RETRY_S", 0.01)
    run_dir = crashed_run(tmp_path)
    target, place = tmp_path / "target", run_dir / link
    is_folder = "." not in link
    target.mkdir() if is_folder else target.write_bytes(b"precious")
    if place.exists():
        place.rename(tmp_path / "saved")
    place.symlink_to(target)
    if link in ("wal", "wal/flusher.log"):
        with pytest.raises(OSError, match=r"symlink|symbolic"):
            start_flusher(RunLayout(run_dir))
    with contextlib.suppress(shmlog.ShmlogError, OSError):
        recover(run_dir)
    written = list(target.iterdir()) if is_folder else target.read_bytes()
    assert written == ([] if is_folder else b"precious"), f"written through {link}"

    if place.is_symlink():
        place.unlink()
    if (tmp_path / "saved").exists() and place.parent.exists():
        (tmp_path / "saved").rename(place)
    recover(run_dir)
    assert not assert_books_balance(run_dir, offered=1000).unrecovered


KILLED = """
import os, signal, sys
import shmlog
from tests.support.processes import wait_for_flusher
run = shmlog.init("killed", root=sys.argv[1], sinks=["parquet", "jsonl"])
for i in range(1000): run.log("x", float(i), step=i)
assert run.flush()
os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
print(run.dir, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def crashed_run(folder: Path) -> Path:
    """Return the folder of a run whose processes were all killed."""
    run_dir = Path(run_script(KILLED, folder / "runs", cwd=folder).stdout.strip())
    wait_until(lambda: shmlog.load(run_dir).unrecovered, "the kernel to release the locks of the killed")
    return run_dir


# ---- no ports (6) ----


def test_no_socket_is_opened(tmp_path: Path) -> None:
    """FAULTS 6: neither the process nor its flusher has a socket of any kind."""
    with shmlog.init("sockets", root=tmp_path) as run:
        before = sockets_of(os.getpid())
        run.log("x", 1.0)
        run.event("x", {"y": 1})
        assert run.flush(durable=True)
        assert sockets_of(wait_for_flusher(run.dir)) == []
        assert sockets_of(os.getpid()) == before
    wait_for_end(run.dir)


def sockets_of(pid: int) -> list[str]:
    """Return the sockets that a process has open."""
    links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd") if os.path.lexists(entry.path)]
    return sorted(link for link in links if link.startswith("socket:"))


# ---- the segment is cut or removed while in use (8, 9) ----

CUT = """
import os, sys
import shmlog
run = shmlog.init("cut", root=sys.argv[1])
for i in range(1000): run.log("x", float(i), step=i)
assert run.flush(durable=True)
print(run.dir, flush=True)
os.truncate(run.stats["segment"], 0)
for i in range(1000): run.log("y", float(i), step=i)
"""


def test_a_segment_that_is_cut_under_its_processes(tmp_path: Path) -> None:
    """FAULTS 8: not promised is that they live on; promised is what was flushed, and a clear word on the rest."""
    done = run_script(CUT, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == -signal.SIGBUS, done.stderr
    run_dir = Path(done.stdout.strip())
    wait_until(lambda: shmlog.load(run_dir).status == "crashed", "P8: the status crashed", timeout=5.0)
    wait_until(lambda: is_flusher_gone(run_dir), "the flusher's end")
    with pytest.raises((shmlog.errors.SegmentError, shmlog.errors.RunStateError)):
        shmlog.attach(run_dir)
    print(recover(run_dir).message)
    stored = assert_books_balance(run_dir, without_segment=True)
    assert stored.metrics("x")["step"].to_pylist() == list(range(1000))
    segment = shmlog.load(run_dir).metadata["segment"]
    assert not Path(segment["path"]).exists()


def test_who_attaches_to_a_copy_of_a_run_folder_is_refused(tmp_path: Path) -> None:
    """The copy says which segment its run has; one that was moved is the run itself."""
    with shmlog.init("copied", root=tmp_path / "runs") as run:
        copy = Path(shutil.copytree(run.dir, tmp_path / "copies" / run.experiment / run.id))
        attach = ATTACH + "else: shmlog.log('x', 1.0, step=1)\n"
        assert f"is a copy of {run.dir}" in run_script(attach, copy, cwd=tmp_path).stdout
        assert run_script(attach, run.dir, cwd=tmp_path).stdout == ""
    wait_for_end(run.dir)
    assert assert_books_balance(run.dir, offered=1).metrics("x").num_rows == 1


ATTACH = """
import sys, shmlog
try: shmlog.attach(sys.argv[1])
except shmlog.errors.RunStateError as error: print(error)
"""


def test_a_segment_that_is_removed_is_not_made_anew(tmp_path: Path) -> None:
    """FAULTS 9: who is attached goes on, who comes is refused, nobody else recovers the run under their feet."""
    with shmlog.init("removed", root=tmp_path) as run:
        assert run.flush()
        segment = Path(run.stats["segment"])
        segment.unlink()
        (SHARED_MEMORY / f"sem.{segment.name}").unlink()
        run.log("x", 1.0, step=1)
        assert "gone" in run_script(ATTACH, run.dir, cwd=tmp_path).stdout
        assert shmlog.load(run.dir).status == "running"
        assert not recover(run.dir).changed
        assert not segment.exists()
        assert run.flush()
    wait_for_end(run.dir)
    assert assert_books_balance(run.dir, offered=1).status == "success"
