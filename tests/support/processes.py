"""Processes of the tests: scripts of their own, the flusher of a run, waiting for a state."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import shmlog
from shmlog.errors import RefusedError
from shmlog.folder.files import LOCAL

TIMEOUT_S = 60.0
SHARED_MEMORY = Path("/dev/shm")
_PF_EXITING = 0x4  # of the flags in /proc/PID/stat: proc(5)


def run_script(
    script: str, *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None, timeout: float = TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run a Python script that can import what this process can."""
    process = start_script(script, *arguments, cwd=cwd, env=env)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start_script(
    script: str, *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None, **options: object
) -> subprocess.Popen[str]:
    """Start a Python script as the leader of a process group of its own."""
    path = cwd / f"script{len(list(cwd.glob('script*')))}.py"
    path.write_text(script)
    environment = {**os.environ, **(env or {}), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        [sys.executable, str(path), *map(str, arguments)],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )


def flusher_pid(run_dir: Path) -> int | None:
    """Return the pid of the flusher that keeps the run."""
    wanted = [b"shmlog.flusher", os.fsencode(run_dir)]
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if command[3:5] == wanted and state != "Z":
            return int(entry.name)
    return None


def is_flusher_gone(run_dir: Path) -> bool:
    """Whether no flusher keeps the run, and none that has just died holds its locks still."""
    return flusher_pid(run_dir) is None and not any(_is_dying(entry) for entry in Path("/proc").iterdir())


def _is_dying(entry: Path) -> bool:
    """Whether a process has begun to exit: its command line is gone before its locks are.

    A zombie holds none, unless threads of it have not ended yet.
    """
    try:
        state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
        is_alive = state != "Z" or len(os.listdir(entry / "task")) > 1
    except OSError:
        return False
    return is_alive and bool(int(fields[5]) & _PF_EXITING)


def processes_of_session(session: int) -> list[int]:
    """Return the pids of all processes in a session that have not ended."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            state, _, _, of, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(of) == session and state != "Z":
            found.append(int(entry.name))
    return found


def segments_below(base: Path) -> Iterator[tuple[str, str]]:
    """Yield name and run of the shared-memory objects whose first page names a folder below ``base``."""
    for path in SHARED_MEMORY.glob("shmlog*"):
        try:
            with LOCAL.open(path) as file:
                head = file.read(4096)
        except (OSError, RefusedError):  # it has gone; or a test has planted a pipe
            continue
        if os.fsencode(base) in head:
            yield path.name, os.fsdecode(head[head.index(os.fsencode(base)) :].partition(b"\0")[0])


def wait_until(is_true: Callable[[], object], what: str, timeout: float = TIMEOUT_S) -> None:
    """Wait for a state of another process; fail the test if it does not come."""
    deadline = time.monotonic() + timeout
    while not is_true():
        assert time.monotonic() < deadline, f"waited {timeout:g} s for: {what}"
        time.sleep(0.01)


def wait_for_flusher(run_dir: Path) -> int:
    """Return the pid of the run's flusher as soon as there is one."""
    wait_until(lambda: flusher_pid(run_dir), f"a flusher of {run_dir}")
    pid = flusher_pid(run_dir)
    assert pid is not None
    return pid


def stop(pid: int) -> None:
    """Stop a process, and wait until it stands still: the signal alone does not."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    wait_until(
        lambda: all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks.iterdir()),
        f"{pid} to stand still",
    )


def wait_for_end(run_dir: Path) -> None:
    """Wait until the flusher has closed the run and ended."""
    wait_until(lambda: shmlog.load(run_dir).metadata.get("complete"), f"{run_dir} to be complete")
    wait_until(lambda: is_flusher_gone(run_dir), f"the flusher of {run_dir} to end")


def only_run(root: Path) -> Path:
    """Return the one run folder below ``root``."""
    found = [path.parent for path in root.glob("*/*/run.yaml")]
    assert len(found) == 1, f"expected one run in {root}, found {found}"
    return found[0]
