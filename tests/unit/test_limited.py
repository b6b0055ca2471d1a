"""The process that reads a source: it may die in any way, and takes nobody along, nor stays behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.transfer import limited
from shmlog.transfer.found import Found
from shmlog.transfer.importers import limits
from tests.support.processes import TIMEOUT_S

READER = b"shmlog.transfer.importers"


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Return a source that takes a while."""
    path = tmp_path / "slow.csv"
    path.write_text("step,loss\n" + "".join(f"{step},0.5\n" for step in range(400_000)))
    return path


def reader_below(pid: int) -> int:
    """Wait for the process that reads for another one, until it has what it needs; return its number."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for child in _children(pid):
            if READER in Path(f"/proc/{child}/cmdline").read_bytes() and _ignores_interrupts(child):
                return child
        time.sleep(0.01)
    raise AssertionError("nothing reads")


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _ignores_interrupts(pid: int) -> bool:
    """Whether it has come to where it is bound to its parent."""
    ignored = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn"))
    return bool(int(ignored.split()[1], 16) >> (signal.SIGINT - 1) & 1)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while _state(pid) not in ("", "Z"):
        assert time.monotonic() < deadline, f"{pid} has outlived who waited for it"
        time.sleep(0.01)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM])
def test_a_reader_that_dies_is_a_refused_source(slow: Path, tmp_path: Path, number: signal.Signals) -> None:
    killer = threading.Thread(target=lambda: os.kill(reader_below(os.getpid()), number))
    killer.start()
    words = "memory is short.*raise the limit" if number == signal.SIGKILL else number.name
    with pytest.raises(shmlog.CorruptDataError, match=f"^{slow}: refused, since .*{words}") as caught:
        shmlog.import_run(slow, tmp_path / "runs")
    killer.join()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("is_heard", [True, False], ids=["", "SIGCHLD ignored"])
def test_a_source_that_takes_too_long_is_refused(
    slow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_heard: bool
) -> None:
    monkeypatch.setattr(limited, "SECONDS_PER_GIB", 1)
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL if is_heard else signal.SIG_IGN)
    try:
        words = "more than 1 s; if you trust it, raise the limit" if is_heard else "before it was done"
        with pytest.raises(shmlog.CorruptDataError, match=f"^{slow}: refused, since .*{words}"):
            shmlog.import_run(slow, tmp_path / "runs", max_bytes=1 << 30)
    finally:
        signal.signal(signal.SIGCHLD, before)


def _to_both(pid: int) -> None:
    os.killpg(pid, signal.SIGINT)


ENDS: dict[str, tuple[Callable[[int], None], int]] = {
    "Ctrl-C": (_to_both, 130),
    "SIGINT to one": (lambda pid: os.kill(pid, signal.SIGINT), 130),
    "SIGTERM": (lambda pid: os.kill(pid, signal.SIGTERM), -signal.SIGTERM),
    "SIGKILL": (lambda pid: os.kill(pid, signal.SIGKILL), -signal.SIGKILL),
}


@pytest.mark.parametrize("end", ENDS)
def test_no_reader_outlives_who_waits_for_it(slow: Path, tmp_path: Path, end: str) -> None:
    command = [sys.executable, "-m", "shmlog", "import", str(slow), "--root", str(tmp_path / "runs")]
    kill, code = ENDS[end]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **quiet, start_new_session=True) as process:
        reader = reader_below(process.pid)
        os.kill(reader, signal.SIGSTOP)  # so that it comes to no end of its own
        try:
            kill(process.pid)
            _, errors = process.communicate(timeout=TIMEOUT_S)
            wait_until_gone(reader)
        finally:
            with suppress(ProcessLookupError):
                os.kill(reader, signal.SIGKILL)
    assert (process.returncode, errors) == (code, b"")
    assert not list((tmp_path / "runs").glob("*/*"))


UNLIMITED = """
import os, resource, sys
sys.path[:0] = os.environ["SHMLOG_IMPORT_PATH"].split("\\n")
set_limit = resource.setrlimit
resource.setrlimit = lambda limit, value: None if limit == resource.RLIMIT_DATA else set_limit(limit, value)
from shmlog.transfer.importers.__main__ import main
main()
"""


def test_where_memory_is_not_limited_large_sources_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is taken there, and does nothing."""
    monkeypatch.setattr(limited, "helper_command", lambda _, *order: [sys.executable, "-c", UNLIMITED, *order])
    (tmp_path / "a.csv").write_text("step,loss\n1,0.5\n")
    assert shmlog.import_run(tmp_path / "a.csv", tmp_path / "runs").counts["metrics"] == 1
    os.truncate(tmp_path / "a.csv", limits.UNLIMITED_BYTES_MAX + 1)
    with pytest.raises(shmlog.CorruptDataError, match=r"a\.csv: holds 67,108,865 bytes, .* import it elsewhere"):
        shmlog.import_run(tmp_path / "a.csv", tmp_path / "runs")


def test_what_a_reader_says_reaches_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "tensorboard.py").write_text("import sys\nprint('an old file', file=sys.stderr)\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    (tmp_path / "a.tfevents.1").write_bytes(b"")
    with pytest.raises(shmlog.MissingExtraError):
        shmlog.import_run(tmp_path / "a.tfevents.1")
    assert capfd.readouterr().err == "an old file\n"


def test_no_room_for_what_was_read_is_told(tmp_path: Path) -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(shmlog.StorageError, match=r"no room .* TMPDIR"):
        limited.hand_over(Found("x"), full, full)  # type: ignore[arg-type]


def test_what_cannot_be_opened_is_the_same_error_as_here(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("step,loss\n1,0.5\n")
    with pytest.raises(OSError, match=r"link\.csv") as caught:
        shmlog.import_run(tmp_path / "link.csv", tmp_path / "runs")
    assert caught.value.errno == errno.ELOOP
