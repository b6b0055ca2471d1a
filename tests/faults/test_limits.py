"""A process with too little of something: descriptors, memory, file size, processes, a home (FAULTS 43, 44, 76)."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

import shmlog
from shmlog.flusher.recover import recover
from tests.support.books import assert_books_balance
from tests.support.cells import SHARED_MEMORY, Cell
from tests.support.processes import only_run, run_script, wait_until

BEGIN = """
import os, resource, signal, sys
import shmlog
def limit(name, soft):
    resource.setrlimit(getattr(resource, name), (soft, soft))
def log(run, count):
    metric = run.metric("x")
    for i in range(count): metric(float(i), i)
"""


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tmp_path)


def assert_ran(cell: Cell, code: str, **environment: str) -> shmlog.StoredRun:
    """Run code that makes a run, to a good end; return the run, whose books balance."""
    done = run_script(BEGIN + code, cell.root, cwd=cell.folder, env=cell.environment() | environment)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: not shmlog.load(cell.run_dir).unrecovered, "the run to be recovered")
    cell.assert_nothing_is_left()
    return assert_books_balance(cell.run_dir)


# ---- limits when init is called, and later (44) ----

INITS = {
    "descriptors": 'low = int(sys.argv[2]); limit("RLIMIT_NOFILE", low)',
    "memory": 'limit("RLIMIT_AS", (int(open("/proc/self/statm").read().split()[0]) + int(sys.argv[2])) * 4096)',
    "file size": 'signal.signal(signal.SIGXFSZ, signal.SIG_IGN); limit("RLIMIT_FSIZE", int(sys.argv[2]))',
    "processes": """
os.setgroups([]); os.setresgid(65534, 65534, 65534)
limit("RLIMIT_NPROC", int(sys.argv[2]))
os.setresuid(65534, 65534, 65534)
""",
}
SIZES = {
    "descriptors": (5, 6, 16),
    "memory": (0, 100, 500),
    "file size": (0, 4096, 1_000_000),
    "processes": (0,),
}
TRY = """
try:
    run = shmlog.init("limits", root=sys.argv[1])
except (shmlog.errors.SegmentError, shmlog.errors.StorageError, MemoryError) as error:
    print("refused", type(error).__name__, error)
    sys.stdout.flush()
    os._exit(0)
log(run, 1000)
run.event("x", {"y": 1})
run.flush()
run.finish()
print("ran", flush=True)
os._exit(0)
"""


PRELOAD = """
import getpass, importlib, logging, posix_ipc, pwd, shutil
shmlog.init, shmlog.errors.SegmentError, shmlog.errors.StorageError
"""


def leftovers(root: Path) -> list[str]:
    """Return what a refused init has left of a run, in its root and in shared memory."""
    left = [str(path) for path in root.glob("*/*")]
    for path in SHARED_MEMORY.glob("shmlog-*"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # other tests' come and go
            if os.fsencode(root) in file.read(4096):
                left.append(path.name)
    return left


@pytest.mark.parametrize("what", INITS)
def test_init_with_too_little(open_folder: Path, what: str) -> None:
    """FAULTS 44: a typed error that says why, and nothing left behind; or a run whose books balance."""
    outcomes = []
    for size in SIZES[what]:
        root = open_folder / f"runs{size}"
        root.mkdir()
        root.chmod(0o1777)
        done = run_script(BEGIN + PRELOAD + INITS[what] + TRY, root, str(size), cwd=open_folder)
        assert done.returncode == 0, f"{what} {size}: {done.stderr}"
        outcomes.append(done.stdout.split()[0])
        print(what, size, done.stdout)
        if outcomes[-1] == "refused":
            assert leftovers(root) == [], f"{what} {size}: {done.stdout}"
        else:
            settle(only_run(root))
    assert "refused" in outcomes, outcomes


def assert_counted(run_dir: Path, metrics: int, events: int) -> None:
    """Assert I4 where so many events may be among the drops."""
    stored = assert_books_balance(run_dir)
    assert metrics <= stored.metrics().num_rows + sum(stored.dropped.values()) <= metrics + events, "I4"


def settle(run_dir: Path) -> None:
    """Wait for the end of a run's flusher, or end the run in its place; its books balance."""
    wait_until(lambda: recover(run_dir).changed or shmlog.load(run_dir).metadata["complete"], "the run to end")
    assert_counted(run_dir, 1000, events=3)


LATER = {
    "descriptors": """
kept = []
limit("RLIMIT_NOFILE", 64)
try:
    while True: kept.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
""",
    "file size": 'signal.signal(signal.SIGXFSZ, signal.SIG_IGN); limit("RLIMIT_FSIZE", 0)',
    "memory": 'limit("RLIMIT_AS", int(open("/proc/self/statm").read().split()[0]) * 4096 + (1 << 20))\n'
    "run.finish = lambda: os._exit(0)",  # no flusher comes up; waiting for it is not what is tested
    "processes": 'limit("RLIMIT_NPROC", 0)',
}
ON = """
from tests.support.processes import wait_for_flusher, flusher_pid
import time, json
from shmlog.flusher import process
run = shmlog.init("later", root=sys.argv[1], lane_records=4096)
log(run, 1000)
assert run.flush()
flusher = wait_for_flusher(run.dir)
os.kill(flusher, signal.SIGKILL)
while flusher_pid(run.dir) == flusher: time.sleep(0.01)
"""
GO_ON = """
log(run, 20_000)
run.log("text", "t" * 100_000, step=1)
run.event("x", {"long": "y" * 100_000})
pid = os.fork() if len(sys.argv) < 3 else -1
if pid == 0:
    run.log("child", 1.0, step=1)
    os._exit(0)
if pid > 0: assert os.waitpid(pid, 0)[1] == 0
run.finish()
"""


@pytest.mark.parametrize("what", LATER)
def test_too_little_later(cell: Cell, what: str) -> None:
    """FAULTS 44, P7, I9: it drops and counts, with a dead flusher that may not be replaced; the training goes on."""
    done = run_script(BEGIN + ON + LATER[what] + GO_ON, cell.root, cwd=cell.folder, env=cell.environment())
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    run_dir = cell.run_dir
    wait_until(lambda: recover(run_dir).changed or shmlog.load(run_dir).metadata["complete"], "the run to end")
    cell.assert_nothing_is_left()
    assert_counted(run_dir, 21_002, events=2)


FORK = """
pid = os.fork()
if pid == 0:
    log(run, 1000)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
for fd in kept: os.close(fd)
assert run.finish()
"""


def test_a_child_that_is_forked_without_a_descriptor_left_logs(cell: Cell) -> None:
    """FAULTS 44, I4: it needs no more of them than its parent."""
    begin = 'run = shmlog.init("forks", root=sys.argv[1])\nlog(run, 1000)\n'
    stored = assert_ran(cell, begin + LATER["descriptors"] + FORK)
    assert stored.dropped == {}
    assert stored.metrics("x").num_rows == 2000


# ---- descriptors that the program closes though they are not its own (43) ----

CLOSING = """
import subprocess, time
WORKER = "import shmlog, sys; [shmlog.log('x', float(i), step=i) for i in range(2000)]"
run = shmlog.init("closing", root=sys.argv[1], lane_records=4096)
if sys.argv[2] == "after it has logged": log(run, 1000)
os.closerange(3, 4096)
files = [open(f"mine{number}", "w+") for number in range(20)]
worker = subprocess.Popen([sys.executable, "-c", WORKER])
rounds = 0
while worker.poll() is None: log(run, 10); time.sleep(0.001); rounds += 1
log(run, 20_000)
assert worker.returncode == 0 and run.flush()
pid = os.fork()
if pid == 0:
    log(run, 1000)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert run.finish()
for file in files:
    file.write("mine"); file.seek(0)
    assert file.read() == "mine", "a file of the program was closed or written to"
print(10 * rounds + 20_000 + 2000 + 1000 + (1000 if sys.argv[2] == "after it has logged" else 0))
"""


@pytest.mark.parametrize("when", ["before it logs", "after it has logged"])
def test_a_program_closes_descriptors_that_it_does_not_know(cell: Cell, when: str) -> None:
    """I4, I7, P7: its lane stays its own, nothing is lost, and its files are let alone."""
    done = run_script(BEGIN + CLOSING, cell.root, when, cwd=cell.folder, env=cell.environment())
    assert done.returncode == 0, done.stderr
    wait_until(lambda: shmlog.load(cell.run_dir).status != "running", "the end of the run")
    cell.assert_nothing_is_left()
    stored = assert_books_balance(cell.run_dir, offered=int(done.stdout))
    assert stored.dropped == {}


# ---- where a process runs (43, 76) ----

DAEMON = """
import time
for _ in range(2):
    if os.fork(): os._exit(0)
    os.setsid()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
os.chdir("/")
for fd in range(3): os.close(fd)
"""
NO_CWD = """
os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
"""
RUN = """
with shmlog.init("places", root=sys.argv[1]) as run:
    log(run, 1000)
    run.event("x", {"text": "\\u00fc"})
"""
PLACES = {
    "closed 0 to 2": "for fd in range(3): os.close(fd)\n",
    "closed standard error": "os.close(2)\nsys.stderr = None\n",
    "daemon": DAEMON,
    "no current folder": NO_CWD,
    "ignored SIGCHLD": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n",
    "blocked signals": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_process_in_an_odd_place(cell: Cell, place: str) -> None:
    """FAULTS 43, 76: it works, and its files are its own: no descriptor 0 to 2 of ours is written to by others."""
    process = cell.folder / "job.py"
    process.write_text(BEGIN + PLACES[place] + RUN)
    assert cell.start(process, cell.root).wait(60) == 0, cell.output()
    wait_until(lambda: list(cell.root.glob("*/*/run.yaml")), "the run")
    wait_until(lambda: shmlog.load(cell.run_dir).status != "running", "the end of the run")
    cell.assert_nothing_is_left()
    stored = assert_books_balance(cell.run_dir, offered=1000)
    assert stored.status == "success"
    assert stored.metrics("x").num_rows == 1000


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "locale C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "no such locale": {"LC_ALL": "xx_YY.nonsense"},
    "odd TZ": {"TZ": "Nowhere/At\udcffAll+99:99:99"},
    "time zone ahead": {"TZ": "UTC-14"},
    "no PATH": {"PATH": ""},
    "no user": {"USER": "", "LOGNAME": "", "HOME": "/nonexistent"},
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_an_odd_environment(cell: Cell, name: str) -> None:
    """FAULTS 76: it makes no difference."""
    unset = 'for name in ("HOME", "XDG_RUNTIME_DIR"): os.environ.pop(name, None)\n'
    stored = assert_ran(cell, unset + RUN, **ENVIRONMENTS[name])
    assert stored.metrics("x").num_rows == 1000
    assert stored.status == "success"


HOSTILE = (
    "",
    "-1",
    "99999999999999999999999",
    "\udcff\udcfe",
    "NaN",
    "a:b",
    ":",
    "/shmlog-0:/",
    "x" * 100_000,
    "../../..:..",
)


@pytest.mark.parametrize("variable", ["SHMLOG_RUN", "SHMLOG_MODE"])
def test_variables_with_nonsense(tmp_path: Path, variable: str) -> None:
    """FAULTS 76: a typed error, or as if there were none; init makes a run of its own whatever SHMLOG_RUN says."""
    script = (
        BEGIN
        + """
for number, value in enumerate(sys.argv[2:]):
    os.environ[NAME] = value
    for call in (lambda: shmlog.log("x", 1.0), shmlog.current, shmlog.attach) if NAME == "SHMLOG_RUN" else ():
        try: call()
        except shmlog.ShmlogError as error: pass
    if NAME == "SHMLOG_RUN" and number >= 3: continue
    try: run = shmlog.init("nonsense", root=sys.argv[1])
    except ValueError as error:
        assert NAME == "SHMLOG_MODE" and "$SHMLOG_MODE must be" in str(error), error
        continue
    log(run, 10)
    run.finish()
""".replace("NAME", repr(variable))
    )
    done = run_script(script, tmp_path / "runs", *HOSTILE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = [path.parent for path in (tmp_path / "runs").glob("*/*/run.yaml")]
    assert len(runs) == (3 if variable == "SHMLOG_RUN" else 1)
    for run_dir in runs:
        wait_until(lambda: shmlog.load(run_dir).metadata["complete"], "the end")  # noqa: B023
        stored = assert_books_balance(run_dir)
        assert stored.metrics().num_rows == 10  # what a call without a run meant came after its end


# ---- handlers of the user (23) ----

HANDLERS = """
import time
numbers = [n for n in signal.valid_signals() if n not in (signal.SIGKILL, signal.SIGSTOP, 32, 33)]
heard = []
def handler(number, frame): heard.append(number)
for number in numbers: signal.signal(number, handler)
run = shmlog.init("handlers", root=sys.argv[1])
for number in numbers:
    run.log("x", float(number), step=number)
    signal.raise_signal(number)
assert set(heard) == set(numbers) and len(heard) <= len(numbers) + 1  # SIGCHLD of what starts the flusher
assert all(signal.getsignal(number) is handler for number in numbers)
run.finish()
assert all(signal.getsignal(number) is handler for number in numbers)
"""


def test_handlers_of_the_user_stay(cell: Cell) -> None:
    """FAULTS 23: shmlog sets none, and what each interrupts goes on."""
    stored = assert_ran(cell, HANDLERS)
    assert stored.metrics("x").num_rows == len(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, 32, 33})


@pytest.mark.parametrize("name", ["SIGQUIT", "SIGABRT", "SIGBUS", "SIGXCPU", "SIGUSR1", "SIGALRM"])
def test_signals_that_end_a_process(cell: Cell, name: str) -> None:
    """FAULTS 23, P8: what was logged is there, the run has crashed, nothing is left."""
    job = cell.folder / "job.py"
    job.write_text(
        BEGIN
        + f"""
limit("RLIMIT_CORE", 0)
run = shmlog.init("ends", root=sys.argv[1])
log(run, 1000)
os.kill(os.getpid(), signal.{name})
signal.pause()
"""
    )
    assert cell.start(job, cell.root).wait(60) == -signal.Signals[name]
    cell.assert_reads_soon("crashed")
    cell.assert_nothing_is_left()
    assert assert_books_balance(cell.run_dir, offered=1000).metrics("x").num_rows == 1000
