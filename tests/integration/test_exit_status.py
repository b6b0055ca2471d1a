"""The status of a run that nobody finished is that of the end of the process, however Python comes to it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import shmlog
from shmlog import _core
from shmlog.base.boot import boot_id
from shmlog.folder import liveness
from shmlog.folder.description import Description
from shmlog.folder.status import FINISH_CODES, FINISH_STATUSES
from shmlog.logs import analyze_logs
from shmlog.segment import shm
from tests.support.books import assert_books_balance
from tests.support.processes import only_run, run_script, start_script, stop, wait_for_end, wait_for_flusher, wait_until

BEGIN = """
import atexit, ctypes, os, runpy, signal, sys, threading
import shmlog
run = shmlog.init("exits", root=sys.argv[1])
run.log("x", 1.0)
"""
EARLY = "from sys import exit as leave\n" + BEGIN
LATE = "import atexit, os\natexit.register(lambda: {})\n" + BEGIN  # called after what `init` has registered
THREAD = "thread = threading.Thread(target=lambda: {})\nthread.start()\nthread.join()\n"

ENDS = {
    "raise SystemExit(3)": (BEGIN + "raise SystemExit(3)", 3, "failed"),
    "raise SystemExit": (BEGIN + "raise SystemExit", 0, "success"),
    "raise SystemExit(text)": (BEGIN + "raise SystemExit('no data')", 1, "failed"),
    "raise SystemExit(143)": (BEGIN + "raise SystemExit(143)", 143, "cancelled"),
    "exit(3)": (BEGIN + "exit(3)", 3, "failed"),
    "quit(130)": (BEGIN + "quit(130)", 130, "cancelled"),
    "sys.exit of before": (EARLY + "leave(3)", 3, "failed"),
    "sys.exit(256), which is 0": (BEGIN + "sys.exit(256)", 0, "success"),
    "sys.exit of a number that is none": (BEGIN + "sys.exit(2**70)", 255, "failed"),
    "sys.exit that was caught": (BEGIN + "try: sys.exit(2)\nexcept SystemExit: pass", 0, "success"),
    "sys.exit of a thread": (BEGIN + THREAD.format("sys.exit(2)"), 0, "success"),
    "an exception of a thread": (BEGIN + THREAD.format("1 / 0"), 0, "success"),
    "an exception, with a hook from after": (BEGIN + "sys.excepthook = lambda *_: None\n1 / 0", 1, "failed"),
    "an exception, with a hook that fails": (BEGIN + "sys.excepthook = lambda *_: [][0]\n1 / 0", 1, "failed"),
    "an exception, with a hook that exits": (
        BEGIN + "sys.excepthook = lambda *_: sys.exit(143)\n1 / 0", 143, "cancelled"
    ),
    "an exception that was printed": (
        BEGIN + "def fail(): raise ValueError\n"
        "ctypes.pythonapi.PyRun_SimpleString(b'fail()')", 0, "success",
    ),
    "Py_Exit, as of a program that embeds Python": (BEGIN + "ctypes.pythonapi.Py_Exit(5)", 5, "failed"),
    "exit(3) in C, past Python": (BEGIN + "ctypes.CDLL(None).exit(0)", 0, "crashed"),
    "os._exit when the run is finished": (LATE.format("os._exit(7)") + "sys.exit(0)", 7, "success"),
    "a child that exits when the run is finished": (
        LATE.format("(os.fork() or ctypes.CDLL(None).exit(9), os.wait())") + "sys.exit(0)", 0, "success"
    ),
}  # fmt: skip


@pytest.mark.parametrize("end", ENDS, ids=str)
def test_the_status_is_that_of_the_end_of_the_process(tmp_path: Path, end: str) -> None:
    script, code, status = ENDS[end]
    root = tmp_path / "runs"
    done = run_script(script, root, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    run_dir = only_run(root)
    wait_until(lambda: shmlog.load(run_dir).status != "running", "the end of the process to be seen")
    assert shmlog.load(run_dir).status == status, "the status must be there when the process has ended"
    wait_for_end(run_dir)
    stored = assert_books_balance(run_dir, offered=1)
    assert (stored.status, stored.attempts[-1]["status"]) == (status, status)
    told = [event["data"].get("status") for event in stored.events("experiment_end")]
    assert told in ([], [None], [status]), "no event says otherwise"


WAYS = {
    "-c": ["-c", BEGIN + "raise SystemExit(3)", "ROOT"],
    "-m": ["-m", "way", "ROOT"],
    "runpy": ["-c", "import runpy; runpy.run_module('way', run_name='__main__')", "ROOT"],
    "standard input": ["-", "ROOT"],
    "standard input, at a prompt": ["-i", "-", "ROOT"],
}


@pytest.mark.parametrize("way", WAYS)
def test_however_python_is_run(tmp_path: Path, way: str) -> None:
    script = BEGIN + "raise SystemExit(3)\n"
    (tmp_path / "way.py").write_text(script)
    root = tmp_path / "runs"
    command = [sys.executable, *(str(root) if word == "ROOT" else word for word in WAYS[way])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, input=script, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3, done.stderr
    assert shmlog.load(only_run(root)).status == "failed"
    wait_for_end(only_run(root))


TYPED = {
    "1 / 0": (0, "success"),
    "raise KeyboardInterrupt; 1": (-signal.SIGINT, "cancelled"),
    "raise KeyboardInterrupt\nquit()": (0, "success"),
}


@pytest.mark.parametrize("typed", TYPED)
def test_what_fails_at_a_prompt_is_not_the_end_of_the_process(tmp_path: Path, typed: str) -> None:
    code, status = TYPED[typed]
    root = tmp_path / "runs"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["", *sys.path])}
    done = subprocess.run(
        [sys.executable, "-i", "-", str(root)], cwd=tmp_path, env=environment, input=f"{BEGIN}{typed}\n",
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert shmlog.load(only_run(root)).status == status
    wait_for_end(only_run(root))
    assert shmlog.load(only_run(root)).events("error") == []


@pytest.mark.parametrize(("code", "status"), [("pass", "success"), ("assert False", "failed")])
def test_a_run_that_pytest_leaves_open_ends_as_pytest_does(tmp_path: Path, code: str, status: str) -> None:
    root = tmp_path / "runs"
    test = f"import shmlog\ndef test_it():\n    shmlog.init('tested', root={str(root)!r}).log('x', 1.0)\n    {code}\n"
    (tmp_path / "test_it.py").write_text(test)
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_ADDOPTS": ""}, capture_output=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert shmlog.load(only_run(root)).status == status
    wait_for_end(only_run(root))


def test_nothing_of_the_program_is_replaced(tmp_path: Path) -> None:
    script = (
        "import builtins, sys\n"
        "seen = lambda: (sys.exit, sys.excepthook, builtins.exit, builtins.quit)\n"
        "before = seen()\n" + BEGIN + "print(seen() == before)"
    )
    done = run_script(script, tmp_path / "runs", cwd=tmp_path)
    assert done.stdout == "True\n", done.stderr
    wait_for_end(only_run(tmp_path / "runs"))


RANKS = {
    "the maker has finished before": ("run.finish()", "raise SystemExit(3)", "failed"),
    "both come to their exit": ("", "raise SystemExit(3)", "failed"),
    "the other exits well": ("raise SystemExit(3)", "", "failed"),
    "the other is stopped": ("", "raise KeyboardInterrupt", "cancelled"),
    "all exit well": ("", "", "success"),
}


@pytest.mark.parametrize("ranks", RANKS)
def test_the_worst_end_of_all_owners_is_that_of_the_run(tmp_path: Path, ranks: str) -> None:
    of_maker, of_other, status = RANKS[ranks]
    root = tmp_path / "runs"
    other = f"import shmlog, sys\nrun = shmlog.attach(sys.argv[1])\nprint(1, flush=True)\ninput()\n{of_other}\n"
    start = (
        "import subprocess\n"
        f"other = subprocess.Popen([sys.executable, '-c', {other!r}, str(run.dir)], stdin=-1, stdout=-1)\n"
        "assert other.stdout.readline() == b'1\\n'\n"
    )
    end = "finally:\n    os.write(other.stdin.fileno(), b'\\n')\n    other.wait()\n"
    early = "try:\n    " + (of_maker or "pass") + "\n" + end
    run_script(BEGIN + start + early, root, cwd=tmp_path)
    run_dir = only_run(root)
    assert shmlog.load(run_dir).status == status
    wait_for_end(run_dir)
    assert assert_books_balance(run_dir, offered=1).status == status


@pytest.mark.parametrize(("code", "status"), [("pass", "success"), ("raise SystemExit(3)", "failed")])
def test_an_exit_beside_a_flusher_that_stands_still_says_how_it_was(tmp_path: Path, code: str, status: str) -> None:
    """It takes no longer for that: who gave no answer before is not asked again."""
    root = tmp_path / "runs"
    with start_script(BEGIN + "print('ready', flush=True)\ninput()\n" + code, root, cwd=tmp_path, stdin=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        run_dir = only_run(root)
        flusher = wait_for_flusher(run_dir)
        stop(flusher)
        try:
            process.communicate("\n", timeout=60)
            assert shmlog.load(run_dir).status == status, "nobody has written it"
        finally:
            os.kill(flusher, signal.SIGCONT)
    wait_for_end(run_dir)
    assert shmlog.load(run_dir).status == status


INTERRUPTED = """
import signal
def interrupt(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
print('ready', flush=True)
input()
signal.setitimer(signal.ITIMER_REAL, 1.0)
run.finish('failed')
"""


def test_a_finish_that_is_interrupted_has_said_the_status(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with start_script(BEGIN + INTERRUPTED, root, cwd=tmp_path, stdin=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        run_dir = only_run(root)
        flusher = wait_for_flusher(run_dir)
        stop(flusher)  # for two seconds it waits for it
        try:
            _, err = process.communicate("\n", timeout=60)
            assert "KeyboardInterrupt" in err
        finally:
            os.kill(flusher, signal.SIGCONT)
    wait_for_end(run_dir)
    assert assert_books_balance(run_dir, offered=1).status == "failed"


KILLED = """
from tests.support.processes import flusher_pid, is_flusher_gone
def kill():
    os.kill(flusher_pid(run.dir), signal.SIGKILL)
    while not is_flusher_gone(run.dir): pass
atexit._run_exitfuncs()
kill()
raise SystemExit(3)
"""


def test_a_status_that_the_flusher_did_not_live_to_write_is_known_all_the_same(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    done = run_script(BEGIN + KILLED, root, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    run_dir = only_run(root)
    assert shmlog.load(run_dir).metadata["status"] == "success", "likely, when it was written"
    assert shmlog.load(run_dir).status == "failed"
    from shmlog.flusher.recover import recover

    assert recover(run_dir).status == "failed"
    assert assert_books_balance(run_dir, offered=1).status == "failed"


# ---- the words of the segment ----


@pytest.fixture
def segment(tmp_path: Path) -> _core.Segment:
    placed = shm.create("run", tmp_path, lanes=1, lane_records=64, clock="auto", private=tmp_path / "segment")
    placed.path.unlink()
    return placed.segment


def fork_and_exit(segment: _core.Segment, codes: list[tuple[str, bool, int]]) -> list[int]:
    """Start an owner for each likely status, whether it is the maker, and the number that it exits with."""
    pids = []
    for likely, is_maker, code in codes:
        pid = os.fork()
        if pid == 0:
            if segment.await_exit(FINISH_CODES[likely], is_maker, None):
                ctypes.CDLL(None).exit(code) if code >= 0 else os.kill(os.getpid(), signal.SIGKILL)
            os._exit(99)
        pids.append(pid)
    return pids


@pytest.mark.parametrize(
    ("owners", "status"),
    [
        ([("success", True, 0)], "success"),
        ([("success", True, 3)], "failed"),
        ([("failed", True, 0)], "success"),
        ([("failed", True, -1)], "failed"),
        ([("success", True, 0), ("failed", False, 0)], "success"),
        ([("success", True, 0), ("success", False, 3)], "failed"),
        ([("success", True, 0), ("failed", False, -1)], "failed"),
        ([("failed", True, -1), ("failed", False, 0)], "failed"),
        ([("success", False, 3)], None),
    ],
)  # fmt: skip
def test_a_likely_status_holds_until_the_true_one_is_known(
    segment: _core.Segment, owners: list[tuple[str, bool, int]], status: str | None
) -> None:
    for pid, (*_, code) in zip(fork_and_exit(segment, owners), owners, strict=True):
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (code if code >= 0 else -signal.SIGKILL)
    assert FINISH_STATUSES.get(segment.finish_status) == status
    assert not segment.probe(_core.LOCK_MEMBER)


def test_who_is_at_its_exit_is_an_owner_until_it_ends(segment: _core.Segment) -> None:
    read, write = os.pipe()
    said, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        segment.await_exit(FINISH_CODES["success"], True, None)
        if os.fork() == 0:  # who is forked then is none
            os.write(say, b"x")
            signal.pause()
        os.read(read, 1)
        os._exit(0)
    child = None
    try:
        os.read(said, 1)
        child = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        assert segment.probe(_core.LOCK_MEMBER)
        os.write(write, b"x")
        os.waitpid(pid, 0)
        assert not segment.probe(_core.LOCK_MEMBER), "its child does not hold the lock"
    finally:
        if child:
            os.kill(int(child), signal.SIGKILL)


def test_an_unlikely_end_waits_for_the_flusher_to_write_it(segment: _core.Segment) -> None:
    """Who reads run.yaml when the process has ended finds the status."""
    assert segment.lock(_core.LOCK_FLUSHER)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        say = ctypes.CFUNCTYPE(None)(lambda: os.write(write, bytes([segment.finish_done])))
        ctypes.CDLL(None).on_exit(say, None)  # called after what is registered next
        segment.await_exit(FINISH_CODES["success"], True, None)
        ctypes.CDLL(None).exit(3)
    wait_until(lambda: segment.finish_request, "it to be asked for")
    assert FINISH_STATUSES[segment.finish_status] == "failed"
    segment.mark_finished(segment.finish_request)
    assert os.read(read, 1) == bytes([segment.finish_request]), "it has waited for the answer"
    assert os.waitpid(pid, 0)[0] == pid


def test_a_likely_end_waits_for_nobody(segment: _core.Segment) -> None:
    assert segment.lock(_core.LOCK_FLUSHER)
    (pid,) = fork_and_exit(segment, [("success", True, 0)])
    os.waitpid(pid, 0)
    assert segment.finish_request == 0


def test_an_unlikely_end_does_not_wait_for_a_flusher_that_gives_no_answer(segment: _core.Segment) -> None:
    assert segment.lock(_core.LOCK_FLUSHER)
    request = segment.request_finish(0, False)
    (pid,) = fork_and_exit(segment, [("success", True, 3)])
    os.waitpid(pid, 0)
    assert segment.finish_request == request


def test_readers_without_the_core_find_the_same(tmp_path: Path) -> None:
    placed = shm.create("run", tmp_path, lanes=1, lane_records=64, clock="auto", private=tmp_path / "segment")
    place = placed.path.stat()
    told = {"name": f"/{placed.path.name}", "path": str(placed.path), "device": place.st_dev, "inode": place.st_ino}
    described = Description(boot_id=boot_id(), segment=told)
    for pid in fork_and_exit(placed.segment, [("failed", True, 0)]):
        os.waitpid(pid, 0)
    assert liveness.finished_as(described) == FINISH_STATUSES[placed.segment.finish_status] == "success"
    for pid in fork_and_exit(placed.segment, [("failed", False, -1)]):
        os.waitpid(pid, 0)
    assert liveness.finished_as(described) == FINISH_STATUSES[placed.segment.finish_status] == "failed"
    placed.path.unlink()


def test_what_was_said_before_the_end_of_the_process_says_nothing_of_it(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    begin = BEGIN.replace("sys.argv[1]", "sys.argv[1], console=True")
    done = run_script(begin + "raise SystemExit(3)", root, cwd=tmp_path)
    assert done.stdout.splitlines()[-1].startswith("INFO: Experiment ended: exits after ")
    run_dir = only_run(root)
    wait_for_end(run_dir)
    for path in (run_dir, run_dir / "events.jsonl"):
        assert analyze_logs(path)["final_status"] == "failed", "run.yaml knows it"
    (tmp_path / "events.jsonl").write_text((run_dir / "events.jsonl").read_text())
    assert analyze_logs(tmp_path / "events.jsonl")["final_status"] is None
    described = (run_dir / "run.yaml").read_text()
    (run_dir / "run.yaml").write_text(described.replace('"user": ', '"user":  '))
    with pytest.warns(shmlog.ShmlogWarning, match=r"run\.yaml"):
        assert shmlog.load(run_dir).status == "failed", "damaged elsewhere"
