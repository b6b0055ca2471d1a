"""Many small jobs at a time: each with a folder of its own, in which nothing may be left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import shmlog
from tests.support.processes import only_run, wait_until

SHARED_MEMORY = Path("/dev/shm")
_MARK = "TEST_CELL"
# Taken once: cells are started in threads while pytest changes os.environ for the next test.
_SURROUNDING = {name: value for name, value in os.environ.items() if not name.startswith(("SHMLOG_", "PYTEST_"))}
_HELPERS = (b"shmlog.flusher", b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")


class Cell:
    """A job in a folder, and all processes that come of it, however they detach themselves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "runs"
        self._temporary = folder / "tmp"
        self._temporary.mkdir()

    def environment(self) -> dict[str, str]:
        """Return the environment of the job: marked, and with a folder of its own for temporary files."""
        path = os.pathsep.join(p for p in sys.path if p)
        return _SURROUNDING | {_MARK: str(self.folder), "TMPDIR": str(self._temporary), "PYTHONPATH": path}

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a Python script as the leader of a session of its own; what it says is in the folder."""
        with open(self.folder / "output", "ab") as output:
            return subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=self.folder, env=self.environment(), stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def output(self) -> str:
        """Return what the job has said."""
        return (self.folder / "output").read_text(errors="replace")

    @property
    def run_dir(self) -> Path:
        """Folder of the one run."""
        return only_run(self.root)

    def processes(self, *, helpers: bool) -> Iterator[int]:
        """Yield the processes of the job; helpers are flushers and those that multiprocessing has."""
        wanted = f"{_MARK}={self.folder}".encode()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                mine = wanted in (entry / "environ").read_bytes().split(b"\0")
                if mine and (helpers or not any(name in (entry / "cmdline").read_bytes() for name in _HELPERS)):
                    yield int(entry.name)
            except OSError:
                continue  # it has ended

    def kill_rest(self) -> None:
        """Kill what is left but the helpers, as a batch system does."""
        for pid in self.processes(helpers=False):
            os.kill(pid, signal.SIGKILL)

    def assert_reads_soon(self, status: str) -> None:
        """Assert that a run that nobody finished has its status within 5 s of its last process (P8)."""
        wait_until(lambda: not list(self.processes(helpers=False)), "the last process to end")
        wait_until(lambda: shmlog.load(self.run_dir).status == status, f"P8: the status {status}", timeout=5.0)

    def wait_until_all_have_ended(self) -> None:
        """Wait for the end of every process, the flusher included."""
        wait_until(lambda: not list(self.processes(helpers=True)), f"all processes of {self.folder} to end")

    def assert_nothing_is_left(self) -> None:
        """Assert that no process, shared memory or temporary file is left (P8)."""
        self.wait_until_all_have_ended()
        run_dir = self.run_dir
        name = shmlog.load(run_dir).metadata["segment"]["name"]
        left = [path.name for path in SHARED_MEMORY.iterdir() if name and name[1:] in path.name]
        left += [str(path) for path in run_dir.rglob("*") if path.suffix == ".tmp" or path.name in ("wal", "segment")]
        left += [str(path) for path in self._temporary.iterdir() if not path.name.startswith("pymp-")]
        assert left == [], f"P8: left behind: {left}"
