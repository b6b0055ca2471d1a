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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.transfer import limited
from shmlog.transfer.imported import ImportedRun
from shmlog.transfer.importers import limits
from tests.support.processes import TIMEOUT_S

READER = b"shmlog.transfer.importers"


@pytest.fixture(autouse=True)
def _no_readers_yet() -> None:
    """End those of other tests."""
    limited.end_readers()


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Return a source that takes a while."""
    path = tmp_path / "slow.csv"
    path.write_text("step,loss\n" + "".join(f"{step},0.5\n" for step in range(400_000)))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a source that takes no time."""
    path = tmp_path / "small.csv"
    path.write_text("step,loss\n1,0.5\n")
    return path


def reader_below(pid: int) -> int:
    """Wait for the process that reads a source for another one, until its limits are set; return its number."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        for child in warm_below(pid):
            for reader in _children(child):
                if _is_limited(reader):
                    return reader
        time.sleep(0.01)
    raise AssertionError("nothing reads")


def warm_below(pid: int) -> list[int]:
    """Return the children of a process that fork a reader for each source."""
    return [child for child in _children(pid) if READER in Path(f"/proc/{child}/cmdline").read_bytes()]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):  # it has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _is_limited(pid: int) -> bool:
    """Whether it has come behind where it is bound to its parent."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    return False


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
    with pytest.raises(shmlog.errors.RefusedError, match=f"^{slow}: refused, since .*{words}") as caught:
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
        words = "more than 1 s; if you trust it, raise the limit"
        with pytest.raises(shmlog.errors.RefusedError, match=f"^{slow}: refused, since .*{words}"):
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
    with pytest.raises(shmlog.errors.RefusedError, match=r"a\.csv: holds 67,108,865 bytes, .* import it elsewhere"):
        shmlog.import_run(tmp_path / "a.csv", tmp_path / "runs")


def test_sources_are_read_by_one_warm_process_without_threads(small: Path) -> None:
    shmlog.import_run(small)
    warm = warm_below(os.getpid())
    shmlog.import_run(small, "others")
    assert len(warm) == 1
    assert warm_below(os.getpid()) == warm
    assert len(os.listdir(f"/proc/{warm[0]}/task")) == 1, "a fork of a process with threads may wait for ever"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_warm_process_that_has_ended_is_replaced(small: Path, number: signal.Signals) -> None:
    shmlog.import_run(small)
    (warm,) = warm_below(os.getpid())
    os.kill(warm, number)
    wait_until_gone(warm)
    assert shmlog.import_run(small, "others").is_new


def test_a_warm_process_that_ends_while_it_reads_is_replaced(slow: Path, small: Path) -> None:
    shmlog.import_run(small)
    (warm,) = warm_below(os.getpid())

    def end() -> None:
        reader_below(os.getpid())
        os.kill(warm, signal.SIGKILL)

    killer = threading.Thread(target=end)
    killer.start()
    assert shmlog.import_run(slow).counts["metrics"] == 400_000
    killer.join()


def test_threads_import_at_once(tmp_path: Path) -> None:
    """Each thread ends before the next import, which uses what it has started."""
    for i in range(4):
        (tmp_path / f"{i}.csv").write_text(f"step,loss\n{i},0.5\n")
    for root in ("first", "second"):
        with ThreadPoolExecutor(4) as threads:
            reports = list(threads.map(lambda i, root=root: shmlog.import_run(f"{i}.csv", root), range(4)))
        assert [shmlog.load(report.dir).metrics()["step"].to_pylist() for report in reports] == [[0], [1], [2], [3]]


FORKS = """
import os, sys
import shmlog
from shmlog.transfer import limited
shmlog.import_run(sys.argv[1], "parent")
child = os.fork()
if child == 0:
    (inherited,) = limited._idle
    report = shmlog.import_run(sys.argv[1], "child")
    (own,) = limited._idle
    raise SystemExit(report.is_new is False or own is inherited)
assert os.waitpid(child, 0)[1] == 0
(before,) = limited._idle
assert shmlog.import_run(sys.argv[1], "again").is_new
assert limited._idle == [before]
print(before._process.pid)
"""
ENDINGS = {"return": "", "exit": "os._exit(0)", "kill": "sys.stdout.flush(); os.kill(os.getpid(), 9)"}
A_FORK_STAYS = """
sys.stdout.flush()
if os.fork() == 0:
    os.close(1); os.close(2)
    sys.stdin.read()
    os._exit(0)
"""


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_fork_has_a_reader_of_its_own_and_none_stays(small: Path, ending: str) -> None:
    """Not even where a fork outlives the process, and holds what that has had open."""
    script = FORKS + A_FORK_STAYS + ENDINGS[ending]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", script, str(small)], **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        warm = process.stdout.read()
        assert process.stderr.read() == b""
        wait_until_gone(int(warm))


OWN = ("array", "json", "queue", "select", "socket", "tempfile")  # which the program has of Python


@pytest.mark.parametrize("name", ["sitecustomize", "usercustomize", *OWN])
def test_files_of_the_current_folder_and_of_the_path_do_not_run_in_a_reader(small: Path, name: str) -> None:
    project = small.parent / "project"
    project.mkdir()
    mark = project / "mark"
    (project / f"{name}.py").write_text(
        f"import sys\nif {READER.decode()!r} in sys.orig_argv:\n    open({str(mark)!r}, 'w')\n    raise SystemExit(7)\n"
    )
    script = (
        f"import os, sys, {', '.join(OWN)}\nos.environ['PYTHONPATH'] = os.getcwd()\nsys.path.insert(0, os.getcwd())\n"
        "import shmlog\nprint(shmlog.import_run(sys.argv[1]).is_new)\n"
    )
    command = [sys.executable, "-P", "-c", script, str(small)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.stdout == "True\n", done.stderr
    assert not mark.exists()


def test_what_a_reader_says_reaches_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "tensorboard.py").write_text("import sys\nprint('an old file', file=sys.stderr)\n")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    (tmp_path / "a.tfevents.1").write_bytes(b"")
    with pytest.raises(shmlog.errors.MissingExtraError):
        shmlog.import_run(tmp_path / "a.tfevents.1")
    assert capfd.readouterr().err == "an old file\n"


def test_no_room_for_what_was_read_is_told(tmp_path: Path) -> None:
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(shmlog.errors.StorageError, match=r"no room .* TMPDIR"),
    ):
        limited.hand_over(ImportedRun("x"), full, full, full)  # type: ignore[arg-type]


def test_what_cannot_be_opened_is_the_same_error_as_here(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.csv") as caught:
        limited.read_apart("csv", tmp_path / "gone.csv", 1 << 30)
    assert caught.value.errno == errno.ENOENT
