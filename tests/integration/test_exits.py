"""How a process ends decides the run's status; nothing that was logged is lost by it.

The plain ends, of every kind of process, are in tests/faults/test_exit_matrix.py.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

import shmlog
from shmlog.flusher.recover import recover
from tests.support.books import assert_books_balance
from tests.support.processes import only_run, run_script, start_script, wait_for_end, wait_until

BEGIN = """
import os, signal, sys
import shmlog
run = shmlog.init("exits", root=sys.argv[1], config={"lr": 0.1})
for i in range(5000):
    run.log("x", float(i), step=i)
"""

ENDS = {
    "sys.exit(0)": ("sys.exit()", 0, "success"),
    "sys.exit(text)": ("sys.exit('no data')", 1, "failed"),
    "sys.exit(130)": ("sys.exit(130)", 130, "cancelled"),
    "sys.exit(143) in a handler": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); signal.raise_signal(signal.SIGTERM)",
        143,
        "cancelled",
    ),
    "sys.exit(1) in a handler": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)); signal.raise_signal(signal.SIGTERM)",
        1,
        "failed",
    ),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", -signal.SIGINT, "cancelled"),
    "finish": ("run.finish()", 0, "success"),
    "finish twice": ("run.finish('failed'); run.finish()", 0, "failed"),
    "finish in another's word": ("run.finish('interrupted')", 0, "cancelled"),
    "with": ("\nwith run: pass", 0, "success"),
    "with exception": ("\nwith run: raise RuntimeError('boom')", 1, "failed"),
    "with SystemExit": ("\nwith run: raise SystemExit(2)", 2, "failed"),
    "with SystemExit(143)": ("\nwith run: raise SystemExit(143)", 143, "cancelled"),
    "with KeyboardInterrupt": ("\nwith run: raise KeyboardInterrupt", -signal.SIGINT, "cancelled"),
}


@pytest.mark.parametrize("end", ENDS, ids=str)
def test_the_end_of_the_process_decides_the_status(tmp_path: Path, end: str) -> None:
    code, returncode, status = ENDS[end]
    root = tmp_path / "runs"
    done = run_script(BEGIN + code, root, cwd=tmp_path)
    assert done.returncode == returncode, done.stderr
    run_dir = only_run(root)
    assert shmlog.load(run_dir).status == status, "the status must be there when the process has ended"
    wait_for_end(run_dir)
    stored = assert_books_balance(run_dir, offered=5000)
    assert stored.status == status
    assert stored.metrics("x").num_rows == 5000
    assert stored.config == {"lr": 0.1}


WAIT = "import threading, time\nprint('ready', flush=True)\ntime.sleep(60)"
FILL = """
from shmlog.segment import shm
from shmlog.folder.segmentref import SegmentRef
kept = []
for i in range(600):
    placed = shm.create("run", run.dir, lanes=1, lane_records=64, clock="auto", private=run.dir / "segment")
    placed.segment.watch_signals()
    shm.unlink(SegmentRef(placed.name, placed.path))
    if i % 2:
        kept.append(placed.segment)
        placed.segment.request_finish(1, True)
    del placed
run.finish()
run = shmlog.init("last", root=sys.argv[1])
run.log("x", 1.0)
"""
STOPS = {
    "in a system call": (WAIT, signal.SIGTERM, "cancelled"),
    "in Python code": ("print('ready', flush=True)\nwhile True: pass", signal.SIGTERM, "cancelled"),
    "while it logs": ("print('ready', flush=True)\nwhile True: run.log('more', 1.0)", signal.SIGTERM, "cancelled"),
    "with threads": (
        "import threading, time\nfor _ in range(4): threading.Thread(target=time.sleep, args=(60,)).start()\n" + WAIT,
        signal.SIGTERM, "cancelled",
    ),
    "of a run that a thread has made": (
        "import threading\nrun.finish('failed')\n"
        "def make():\n    global run\n    run = shmlog.init('second', root=sys.argv[1])\n    run.log('x', 1.0)\n"
        "maker = threading.Thread(target=make)\nmaker.start()\nmaker.join()\n" + WAIT,
        signal.SIGTERM, "cancelled",
    ),
    "after as many runs as there are places": (FILL + WAIT, signal.SIGTERM, "cancelled"),
    "by SIGINT, which it leaves to the kernel": (WAIT, signal.SIGINT, "cancelled"),
    "by SIGKILL": (WAIT, signal.SIGKILL, "crashed"),
    "by SIGTERM that a child has got too": (
        "if os.fork() == 0: os.kill(os.getpid(), signal.SIGTERM)\nos.wait()\n" + WAIT, signal.SIGKILL, "crashed"
    ),
    "with a pool that was terminated": (
        "import multiprocessing\npool = multiprocessing.get_context('fork').Pool(2)\npool.map(abs, [1])\n"
        "pool.terminate()\npool.join()\n" + WAIT,
        signal.SIGKILL, "crashed",
    ),
    "by SIGTERM that it ignores, then killed": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.kill(os.getpid(), signal.SIGTERM)\n" + WAIT,
        signal.SIGKILL, "crashed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("stop", STOPS, ids=str)
def test_a_run_whose_maker_a_signal_ends_was_stopped_or_has_crashed(tmp_path: Path, stop: str) -> None:
    """Nothing of ours runs but a handler in C: the process dies of the signal, and so do its threads."""
    code, number, status = STOPS[stop]
    begin = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n" if number == signal.SIGINT else ""
    root = tmp_path / "runs"
    with start_script(begin + BEGIN + code, root, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        try:
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == -number
    run_dir = max(path.parent for path in root.glob("*/*/run.yaml"))
    wait_until(lambda: shmlog.load(run_dir).status != "running", "the end of the run to be seen")
    assert shmlog.load(run_dir).status == status
    wait_for_end(run_dir)
    assert assert_books_balance(run_dir).status == status


OWN_HANDLERS = {
    "before init": "signal.signal(signal.SIGTERM, handle)\nrun = init()\n",
    "after init": "run = init()\nsignal.signal(signal.SIGTERM, handle)\n",
    "before and after": "signal.signal(signal.SIGTERM, print)\nrun = init()\nsignal.signal(signal.SIGTERM, handle)\n",
}


@pytest.mark.parametrize("when", OWN_HANDLERS)
def test_a_handler_of_the_user_works_as_ever(tmp_path: Path, when: str) -> None:
    root = tmp_path / "runs"
    script = (
        "import os, signal, sys, time\nimport shmlog\n"
        "def init(): return shmlog.init('handled', root=sys.argv[1])\n"
        "def handle(number, frame): print('handled', number, flush=True)\n"
        f"{OWN_HANDLERS[when]}"
        "run.log('x', 1.0)\nos.kill(os.getpid(), signal.SIGTERM)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = run_script(script, root, cwd=tmp_path)
    assert done.stdout == f"handled {signal.SIGTERM:d}\n"
    assert done.returncode == -signal.SIGKILL
    run_dir = only_run(root)
    wait_for_end(run_dir)
    assert shmlog.load(run_dir).status == "crashed", "the signal has not ended it"


def test_python_sees_no_handler_of_ours(tmp_path: Path) -> None:
    with shmlog.init("hidden", root=tmp_path):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_uncaught_exception_is_an_error_event_with_its_traceback(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_script(BEGIN + "def work(): raise RuntimeError('boom')\nwork()", root, cwd=tmp_path)
    run_dir = only_run(root)
    wait_for_end(run_dir)
    (error,) = shmlog.load(run_dir).events("error")
    assert error["data"]["error_type"] == "RuntimeError"
    assert error["data"]["error_message"] == "boom"
    assert "in work" in error["data"]["traceback"]
    assert "RuntimeError: boom" in (run_dir / "run.log").read_text()
    (end,) = shmlog.load(run_dir).events("experiment_end")
    assert end["data"]["reason"] == "RuntimeError: boom"
    last = (run_dir / "run.log").read_text().splitlines()[-1]
    assert "Experiment ended: exits after" in last
    assert last.endswith(": RuntimeError: boom")


def test_a_run_whose_maker_dies_ends_though_a_worker_lives(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    script = (
        BEGIN
        + """
read, write = os.pipe()
if os.fork() == 0:
    run.log("early", 1.0)
    os.write(write, b"x")
    while shmlog.load(run.dir).live is not False or shmlog.load(run.dir).unrecovered:
        time.sleep(0.01)
    run.log("late", 1.0)
    os._exit(0)
os.read(read, 1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    with start_script("import time\n" + script, root, cwd=tmp_path) as process:
        process.wait(timeout=60)
    run_dir = only_run(root)
    wait_until(lambda: shmlog.load(run_dir).dropped.get("closed") == 1, "the worker to find that the run has ended")
    stored = assert_books_balance(run_dir, offered=5002)
    assert stored.status == "crashed"
    assert stored.metrics("early").num_rows == 1
    assert "late" not in stored.names()


def test_a_child_that_outlives_the_run_logs_no_more_into_it(tmp_path: Path) -> None:
    run = shmlog.init("after", root=tmp_path)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        run.log("late", 2.0)
        os._exit(0)
    run.log("early", 1.0)
    assert run.finish()
    assert shmlog.load(run.dir).status == "success"
    run.log("dropped", 1.0)
    assert run.stats["dropped"]["closed"] == 1
    os.write(write, b"x")
    os.waitpid(pid, 0)
    wait_for_end(run.dir)
    stored = shmlog.load(run.dir)
    assert stored.names() == ["early"]
    assert stored.dropped == {"closed": 2}
    assert stored.status == "success"


def test_finish_returns_when_all_is_sealed(tmp_path: Path) -> None:
    with shmlog.init("sealed", root=tmp_path) as run:
        run.metric("x").extend(np.arange(200_000.0))
        assert run.finish()
        counts = shmlog.load(run.dir).metadata["counts"]
    assert counts["metrics"] == 200_000, "P5: they are in the books"
    wait_for_end(run.dir)


SLOW = """
import os, sys, time
folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
{work}
sys.path.remove(folder)
del sys.modules["pyarrow"]
import pyarrow
"""
BURN = "while time.thread_time() < 5: pass"  # more than the patience of a finish, in which nothing else gets done
HANG = "open(os.path.join(folder, 'pipe')).close()"


def slow_pyarrow(folder: Path, work: str) -> Path:
    """Make a pyarrow that does something before it becomes the real one."""
    package = folder / "slow" / "pyarrow"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(SLOW.format(work=work))
    return package.parent


SLOWLY = "import sys\nsys.path.insert(0, sys.argv[2])\n" + BEGIN


def test_finish_waits_for_a_flusher_that_is_still_getting_ready(tmp_path: Path) -> None:
    """On a busy machine, importing pyarrow takes long."""
    root = tmp_path / "runs"
    done = run_script(SLOWLY + "print(run.finish())", root, slow_pyarrow(tmp_path, BURN), cwd=tmp_path)
    assert done.stdout == "True\n", done.stderr
    wait_for_end(only_run(root))
    assert assert_books_balance(only_run(root), offered=5000).status == "success"


def test_finish_gives_up_on_a_flusher_that_hangs_which_goes_on_when_it_can(tmp_path: Path) -> None:
    """As one whose pyarrow lies on a file system that does not answer."""
    root, slow = tmp_path / "runs", slow_pyarrow(tmp_path, HANG)
    os.mkfifo(slow / "pipe")
    done = run_script(SLOWLY + "print(run.finish())", root, slow, cwd=tmp_path)
    assert done.stdout == "False\n", done.stderr
    run_dir = only_run(root)
    assert shmlog.load(run_dir).status == "success", "it is known how it ended"
    assert shmlog.load(run_dir).metadata["complete"] is False
    (slow / "pipe").write_bytes(b"")
    wait_for_end(run_dir)
    assert assert_books_balance(run_dir, offered=5000).status == "success"


UNSEALED = """
from tests.support.processes import flusher_pid, is_flusher_gone, wait_for_flusher
python, sys.executable = sys.executable, ""
os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
while not is_flusher_gone(run.dir): pass
print(run.finish(), flush=True)
sys.executable = python
"""


def test_an_exit_without_a_flusher_leaves_one_behind_that_closes_the_run(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    done = run_script(BEGIN + UNSEALED, root, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr
    wait_for_end(only_run(root))
    assert assert_books_balance(only_run(root), offered=5000).status == "success"


def test_a_child_does_not_see_to_what_its_parent_has_finished(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    fork = "if os.fork() == 0: sys.exit()\nos.wait()\nprint(flusher_pid(run.dir))\nos._exit(0)"
    done = run_script(BEGIN + UNSEALED + fork, root, cwd=tmp_path)
    assert done.stdout == "False\nNone\n", done.stderr
    assert shmlog.load(only_run(root)).unrecovered
    recover(only_run(root))


def test_finish_refuses_an_unknown_status_and_the_run_goes_on(tmp_path: Path) -> None:
    with shmlog.init("status", root=tmp_path) as run:
        with pytest.raises(ValueError, match="status must be one of"):
            run.finish("great")
        run.log("x", 1.0)
        assert run.status == "running"
    assert run.status == "success"


def test_hooks_of_the_user_still_run(tmp_path: Path) -> None:
    script = "import sys\nsys.excepthook = lambda *a: print('my hook', a[0].__name__)\n" + BEGIN + "raise RuntimeError"
    done = run_script(script, tmp_path / "runs", cwd=tmp_path)
    assert done.stdout == "my hook RuntimeError\n"
