"""Logging an artifact, and the collection of contents, are killed or fail at each system call.

Whatever was logged earlier stays as it is, what is in its place is whole, and the next that logs, or
collects, brings it to its end.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import random
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shmlog
from shmlog.folder import blobs
from shmlog.folder.layout import RunLayout
from shmlog.run.keep import keep
from tests.faults.syscalls import FAIL, KILL_AFTER, KILL_BEFORE, NOTHING, Fault, build, fork_traced, read_log
from tests.support.stores import add_run

EARLIER, SHARED, NEW = b"earlier", b"shared" * 1000, b"new" * 2000
FILES = {"shared": SHARED, "deep/new": NEW, "empty": b""}
REFUSED = 3
SAMPLE = 25


class Stage:
    """A store with a run to be deleted, one that is kept, and a folder that the latter is to log."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder = folder
        self.library = library
        self.root = folder / "runs"
        self.source = folder / "source"
        for name, data in FILES.items():
            (self.source / name).parent.mkdir(parents=True, exist_ok=True)
            (self.source / name).write_bytes(data)

    def set_up(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.kept, self.old = (add_run(self.root, name) for name in ("kept", "old"))
        for layout, name, data in ((self.kept, "earlier", EARLIER), (self.old, "shared", SHARED), (self.old, "n", NEW)):
            (self.folder / "one").write_bytes(data)
            keep(layout, self.folder / "one", name, "sha256")
        (self.kept.dir / "manifest.json").unlink(missing_ok=True)

    def log_folder(self) -> None:
        keep(self.kept, self.source, "f", "sha256")

    def delete(self) -> None:
        shmlog.Store(self.root).delete("old")

    def follow(self, work: Callable[[], None], fault: Fault, log: Path | None = None) -> int:
        child = fork_traced(self.library, lambda: _do(work))
        return child.follow(fault, folder=self.root, shared=None, log=log)

    def faults(self, work: Callable[[], None], fails: bool) -> Iterator[Fault]:
        """Yield a fault at each call that ``work`` makes in the store."""
        self.set_up()
        log = self.folder / "log"
        log.unlink(missing_ok=True)
        assert self.follow(work, Fault(NOTHING), log) == 0
        for call in read_log(log):
            if not fails:
                yield Fault(KILL_BEFORE, call.point)
            if not fails and call.changes and call.result >= 0:
                yield Fault(KILL_AFTER, call.point)
            if fails and (call.changes or call.point.call == "openat") and call.result >= 0:
                yield Fault(FAIL, call.point, error=errno.ENOSPC if call.point.call != "fsync" else errno.EIO)

    def check(self) -> None:
        """Check what must be so at any time."""
        assert (self.kept.artifacts / "earlier").read_bytes() == EARLIER
        for path in (self.kept.artifacts / "f").rglob("*"):
            if path.is_file():
                assert path.read_bytes() == FILES[path.relative_to(self.kept.artifacts / "f").as_posix()]
        for stored in blobs.stored(self.root):
            digits = stored.path.name.partition(".")[0]
            assert hashlib.sha256(stored.path.read_bytes()).hexdigest() == digits

    def bring_to_an_end(self, *, once: bool = True) -> None:
        """Do it again without a fault; then the store must hold what it should, once."""
        keep(self.kept, self.source, "f", "sha256")
        with contextlib.suppress(shmlog.errors.RunNotFoundError):
            shmlog.Store(self.root).delete("old")
        assert shmlog.Store(self.root).prune(keep=99, dry_run=False).failed == ()  # empties the trash, too
        self.check()
        assert _files(self.kept.artifacts) == {"earlier": EARLIER, **{f"f/{name}": d for name, d in FILES.items()}}
        for left in self.kept.dir.glob("*.tmp"):
            left.unlink()  # as the end of a run does
        for path in self.kept.artifacts.rglob("*"):
            assert path.is_dir() or not once or path.stat().st_nlink == 2, f"{path} is stored twice"
        assert not once or len(list(blobs.stored(self.root))) == 4
        shmlog.Store(self.root).delete("kept")
        assert list(blobs.stored(self.root)) == [], "contents that no run holds are left"


def _do(work: Callable[[], None]) -> None:
    """Do something with names that are the same each time."""
    numbers = itertools.count()
    secrets.token_hex = lambda _=0: f"{next(numbers):x}"
    os.urandom = lambda size: next(numbers).to_bytes(size, "big")
    os.getpid = lambda: 1
    try:
        work()
    except OSError:
        os._exit(REFUSED)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path, build(tmp_path))


@pytest.mark.parametrize("what", ["log_folder", "delete"])
def test_killed_at_any_call(stage: Stage, what: str, choice: random.Random, full: bool) -> None:
    work, killed = getattr(stage, what), 0
    faults = list(stage.faults(work, fails=False))
    assert len(faults) > (80 if what == "log_folder" else 30)
    for fault in faults if full else choice.sample(faults, SAMPLE):
        stage.set_up()
        try:
            killed += stage.follow(work, fault) < 0
            stage.check()
            stage.bring_to_an_end()
        except BaseException as error:
            error.add_note(str(fault))
            raise
    print(f"{killed} kills at {len(faults)} points")
    assert killed == (len(faults) if full else SAMPLE)


@pytest.mark.parametrize("what", ["log_folder", "delete"])
def test_failing_at_any_call(stage: Stage, what: str, choice: random.Random, full: bool) -> None:
    """FAULTS 44: it says so and leaves nothing behind, or does without what it can do without."""
    work, refused = getattr(stage, what), 0
    faults = list(stage.faults(work, fails=True))
    for fault in faults if full else choice.sample(faults, min(SAMPLE, len(faults))):
        stage.set_up()
        try:
            code = stage.follow(work, fault)
            assert code in (0, REFUSED), code
            refused += code == REFUSED
            stage.check()
            if what == "log_folder":
                is_clean_up = fault.point.call.startswith("unlink")
                assert is_clean_up or not list(stage.kept.dir.glob("*.tmp"))
                found = _files(stage.kept.artifacts)
                assert code or len(found) == 4
            stage.bring_to_an_end(once=what != "log_folder")  # what could not be shared stays the run's own
        except BaseException as error:
            error.add_note(str(fault))
            raise
    print(f"{refused} refusals at {len(faults)} points")
    assert refused


def test_a_run_that_is_killed_while_it_logs_one_leaves_nothing_when_it_is_recovered(tmp_path: Path) -> None:
    from shmlog.flusher.recover import recover
    from shmlog.reader.verify.verify import verify
    from tests.support.processes import start_script, wait_for_end

    (tmp_path / "a.bin").write_bytes(b"a")
    script = """
import os, signal, sys
import shmlog
run = shmlog.init("killed", root=sys.argv[1] + "/runs")
run.log_artifact(sys.argv[1] + "/a.bin")
run.flush()
os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
print(run.dir, flush=True)
run.log_artifact(__file__)
"""
    process = start_script(script, tmp_path, cwd=tmp_path)
    out, err = process.communicate(timeout=60)
    run_dir = Path(out.strip())
    assert err == ""
    wait_for_end(run_dir)
    recover(run_dir)
    assert [artifact.name for artifact in shmlog.load(run_dir).artifacts] == ["a.bin"]
    assert verify(run_dir).findings == []
    assert not list(run_dir.glob("*.tmp"))
    assert RunLayout(run_dir).manifest.exists()
