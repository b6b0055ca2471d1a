"""A run in the middle of its life, of which copies can be made to be finished in many ways."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import posix_ipc

import shmlog
from shmlog.flusher.recover import recover
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.folder.liveness import LOCK_MEMBER
from shmlog.folder.segmentref import SHARED_MEMORY, read_ref
from shmlog.segment import shm
from tests.support.books import assert_books_balance
from tests.support.processes import is_flusher_gone, wait_for_flusher, wait_until
from tests.support.repository import Repository

_FLOCK = struct.Struct("hhqqi4x")
SHM_NAME = "/shmlog-"


@dataclass(frozen=True)
class Prepared:
    """A run with two logs sealed, records in its lanes and a request to finish; its processes are dead."""

    folder: Path  # the run folder's copy
    segment: Path  # the segment's bytes
    offered: int  # metrics
    diff: bytes  # what its code had changed

    def copy(self, root: Path) -> Copy:
        """Make a copy below ``root``, which is its own."""
        run_dir = root / "runs" / "swept" / self.folder.name
        shutil.copytree(self.folder, run_dir)
        name = SHM_NAME + secrets.token_hex(8)
        path = SHARED_MEMORY / name[1:]
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file, open(self.segment, "rb") as source:
            shutil.copyfileobj(source, file)
        posix_ipc.Semaphore(name, flags=posix_ipc.O_CREX, mode=0o600, initial_value=0).close()
        layout = RunLayout(run_dir)
        status = path.stat()
        segment = {"name": name, "path": str(path), "device": status.st_dev, "inode": status.st_ino}
        runfile.write(layout.run_yaml, {**runfile.read(layout.run_yaml), "segment": segment}, durable=False)
        return Copy(run_dir, path)


@dataclass(frozen=True)
class Copy:
    """A copy of a prepared run."""

    dir: Path
    shared: Path

    def flusher_log(self) -> str:
        """Return what its flusher has told, if it is not over."""
        try:
            return RunLayout(self.dir).flusher_log.read_text()
        except FileNotFoundError:
            return ""

    def remove(self) -> None:
        """Remove it, and what is left of its segment."""
        shutil.rmtree(self.dir, ignore_errors=True)
        self.shared.unlink(missing_ok=True)
        self.shared.with_name(f"sem.{self.shared.name}").unlink(missing_ok=True)


class Membership:
    """A lock as that of an attached process."""

    def __init__(self, shared: Path) -> None:
        self._fd = os.open(shared, os.O_RDWR | os.O_CLOEXEC)
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, LOCK_MEMBER, 1, 0))

    def end(self) -> None:
        """Drop the lock, also that of children who have inherited the descriptor."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, LOCK_MEMBER, 1, 0))
        os.close(self._fd)


def prepare(folder: Path, *, resumed: bool = False) -> Prepared:
    """Make the run; ``resumed``: it is its second attempt, and its events are in several files."""
    code = Repository(folder / "code")
    code.change()
    run = _begin(code.folder, folder, rotate_events="2 KiB" if resumed else None)
    offered = _log(run, 60)
    if resumed:
        run.finish()
        run = _begin(code.folder, folder, resume=run.id)
        offered += _log(run, 60)
    _seal(run)
    offered += _log(run, 10)
    _seal(run)
    os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
    wait_until(lambda: is_flusher_gone(run.dir), "the flusher's death")
    offered += _log(run, 30)
    offered += _log_in_child(run)
    run.log_config({"depth": 3})
    run.event("large", {"text": "x" * 4000})  # gets a file of its own
    while not run.stats["dropped"]["full"]:
        run.log("filler", 1.0)
        offered += 1
    run._segment.request_finish(1, True)
    copy, segment = folder / "copy" / run.id, folder / "segment"
    shutil.copytree(run.dir, copy)
    diff = _forget_provenance(RunLayout(copy))
    where = os.fsencode(run.dir)  # forgotten: who recovers a copy must not take it for one
    segment.write_bytes(Path(run.stats["segment"]).read_bytes().replace(where, bytes(len(where)), 1))
    run.finish()
    wait_until(lambda: is_flusher_gone(run.dir) and not RunLayout(run.dir).wal.exists(), "the flusher's end")
    return Prepared(copy, segment, offered, diff)


def _seal(run: shmlog.Run) -> None:
    request = run._segment.request_finish(1, True)
    run._bell.ring()
    wait_until(lambda: run._segment.finish_done == request, "what was logged to be sealed")


def _begin(code: Path, folder: Path, **options: Any) -> shmlog.Run:
    with contextlib.chdir(code):
        return shmlog.init(
            "prepared", root=folder / "runs", lanes=2, lane_records=256, on_full="drop", sinks=("parquet", "jsonl"),
            config={"lr": 0.1}, git_diff=True, **options,
        )  # fmt: skip


def _forget_provenance(layout: RunLayout) -> bytes:
    """Have the next flusher find again what the latest attempt was made from; return the diff that was found."""
    described = runfile.read(layout.run_yaml)
    diff = layout.git_diff(described["attempt"])
    text = diff.read_bytes()
    diff.unlink()
    layout.provenance(described["attempt"]).unlink()
    environment = {name: described["environment"][name] for name in ("cwd", "variables")}
    runfile.write_sealed(layout.run_yaml, {**described, "git": None, "environment": environment})
    return text


def _log(run: shmlog.Run, count: int) -> int:
    for step in range(count):
        run.log("loss", float(step), step=step)
    run.log({"n": 3, "good": True, "note": "a text of more than eight bytes", "short": "a"}, step=count)
    run.event("checked", {"count": count})
    return count + 4


def _log_in_child(run: shmlog.Run, count: int = 10) -> int:
    pid = os.fork()
    if pid == 0:
        for step in range(count):
            run.log("child", float(step), step=step)
        os._exit(0)
    os.waitpid(pid, 0)
    return count


# ---- what is in a run ----


def content(run_dir: Path) -> str:
    """Return all that a finished run holds, but for its times, which depend on when they were converted."""
    stored = shmlog.load(run_dir)
    table = stored.metrics(superseded=True)
    rows = table.drop_columns(["ts"]).to_pylist()
    events = [{k: v for k, v in event.items() if k != "timestamp"} for event in stored.events()]
    told: dict[str, Any] = {
        "metrics": sorted(map(json.dumps, rows)),
        "events": sorted(map(json.dumps, events)),
        "config": stored.config,
        "dropped": stored.dropped,
        "producers": stored.producers,
        "status": stored.status,
    }
    return json.dumps(told, indent=1, sort_keys=True)


def files(run_dir: Path) -> dict[str, bytes | None]:
    """Return every file of a run with its bytes, and every folder."""
    found = sorted(run_dir.rglob("*"))
    return {str(path.relative_to(run_dir)): path.read_bytes() if path.is_file() else None for path in found}


def recover_and_check(prepared: Prepared, copy: Copy, expected: str) -> None:
    """Recover a run twice, and check all that must hold then."""
    recover(copy.dir)
    check_recovered(prepared, copy, expected)
    before = files(copy.dir)
    assert not recover(copy.dir).changed, "I6: a second recovery finds something to do"
    assert files(copy.dir) == before, "I6: a second recovery changes the run folder"
    check_nothing_left(copy)


def check_recovered(prepared: Prepared, copy: Copy, expected: str) -> None:
    """Check that a run is complete and holds what was expected, once."""
    assert_books_balance(copy.dir, offered=prepared.offered)
    found = content(copy.dir)
    _check_provenance(prepared, copy.dir)
    assert found == expected, f"I6: another content\n{_first_difference(expected, found)}"


def _check_provenance(prepared: Prepared, run_dir: Path) -> None:
    """Check that what the run tells of its code is there, and whole: not that it is told, for it may be lost."""
    stored = shmlog.load(run_dir)
    state = stored.metadata["git"]
    if state is not None:
        assert state["diff"], "a diff was asked for"
        assert stored.packages()
        assert stored.git_diff() == prepared.diff


def _first_difference(expected: str, found: str) -> str:
    for one, other in zip(expected.splitlines(), found.splitlines(), strict=False):
        if one != other:
            return f"expected {one}\n   found {other}"
    return f"expected {len(expected)} characters, found {len(found)}"


def check_nothing_left(copy: Copy) -> None:
    """Check that neither segment nor temporary files nor logs are left."""
    left = [name for name in os.listdir(SHARED_MEMORY) if copy.shared.name in name]
    assert not left, f"P8: left in shared memory: {left}"
    names = [str(path.relative_to(copy.dir)) for path in copy.dir.rglob("*")]
    left = [name for name in names if name.endswith(".tmp") or name.startswith("wal")]
    status = copy.dir.stat()
    lock = f"-{status.st_dev:x}-{status.st_ino:x}"
    left += [name for name in os.listdir(SHARED_MEMORY) if name.endswith(lock)]
    parts = RunLayout(copy.dir)
    covered = {path.name for path in parts.metrics.iterdir()} - {part.path.name for part in parts.parts()}
    left += sorted(covered)
    assert not left, f"P8: left in the run folder: {left}"
    assert len(parts.parts()) == 1, "parts are merged"


def wait_for_finish(copy: Copy, member: Membership, is_over: threading.Event) -> None:
    """End the membership when finish and merge are done of what was there, or the flusher is over."""
    layout = RunLayout(copy.dir)
    segment = shm.open_segment(read_ref(layout))
    parts = [part.path for part in layout.parts()]

    def is_done() -> bool:
        return segment.finish_done == segment.finish_request and not all(path.exists() for path in parts)

    while not is_done() and not is_over.wait(0.002):
        pass
    member.end()
