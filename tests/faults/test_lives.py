"""Who lives: equal and reused pids, clocks that jump, processes that stand still, and very many of them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc
import pytest

import shmlog
from shmlog.flusher.recover import recover
from tests.support.books import assert_books_balance, assert_in_order, assert_units_on_disk
from tests.support.cells import Cell
from tests.support.csource import WARNINGS, run_tool
from tests.support.processes import is_flusher_gone, start_script, stop, wait_for_end, wait_for_flusher, wait_until
from tests.support.tools import need


@contextmanager
def in_namespace(cell: Cell, flags: list[str], script: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Start a Python script in namespaces of its own; it has to end well."""
    need("unshare")
    path = cell.folder / f"script{len(list(cell.folder.glob('script*')))}.py"
    path.write_text(script)
    command = ["unshare", *flags, sys.executable, path, *arguments]
    with subprocess.Popen(
        command, cwd=cell.folder, env=cell.environment(), stdin=-1, stdout=-1, stderr=-1, text=True
    ) as process:
        yield process
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err


PIDS = ["-p", "-f", "--mount-proc"]  # a PID namespace


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tmp_path)


# ---- pids (19, 20) ----

REUSED = """
import os, signal, sys, time
import shmlog
def fork_as(pid, work):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file: file.write(str(pid - 1))
    child = os.fork()
    if child == 0:
        if os.getpid() == pid: work()
        os._exit(0)
    if child != pid:  # a thread of the flusher has taken it first
        os.waitpid(child, 0)
        fork_as(pid, work)
def log(number):
    for i in range(100): run.log(f"child{number}", float(i), step=i)
    if number % 2: os.kill(os.getpid(), signal.SIGKILL)
run = shmlog.init("reused", root=sys.argv[1])
for number in range(20):
    fork_as(500, lambda: log(number))
    os.waitpid(500, 0)
run.finish()
"""


def test_a_pid_that_is_used_again_at_once(cell: Cell) -> None:
    """FAULTS 20: lane and membership are those of a lock, not of a pid."""
    with in_namespace(cell, PIDS, REUSED, cell.root):
        pass  # the end of its first process is that of all others, its flusher too
    recover(cell.run_dir)
    cell.assert_nothing_is_left()
    stored = assert_books_balance(cell.run_dir, offered=20 * 100)
    assert_in_order(stored, [f"child{number}" for number in range(20)])
    assert stored.dropped == {}
    assert [producer["pid"] for producer in stored.producers].count(500) == 20


USURPED = """
import os, signal, sys, time
import shmlog
from tests.support.csource import WARNINGS, run_tool
from tests.support.processes import flusher_pid, only_run, wait_for_flusher
def fork_as(pid):
    with open("/proc/sys/kernel/ns_last_pid", "w") as file: file.write(str(pid - 1))
    child = os.fork()
    assert child in (0, pid)
    return child
if fork_as(500) == 0:
    run = shmlog.init("usurped", root=sys.argv[1])
    run.log("x", 1.0)
    assert run.flush()
    os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(500, 0)
if fork_as(500) == 0:
    time.sleep(60)
from pathlib import Path
run_dir = only_run(Path(sys.argv[1]))
assert shmlog.load(run_dir).metadata["pid"] == 500
deadline = time.monotonic() + 5
while shmlog.load(run_dir).status != "crashed":
    assert time.monotonic() < deadline
    time.sleep(0.01)
os.kill(500, signal.SIGKILL)
"""


def test_a_dead_run_whose_pid_somebody_else_has_got(cell: Cell) -> None:
    """FAULTS 20, P8: it reads crashed within 5 s."""
    with in_namespace(cell, PIDS, USURPED, cell.root):
        pass
    recover(cell.run_dir)
    assert_books_balance(cell.run_dir, offered=1)


NAMESAKE = """
import os, sys
import shmlog
run = shmlog.attach(sys.argv[1])
assert os.getpid() == 1
for i in range(1000): run.log(sys.argv[2], float(i), step=i)
print("logged", flush=True)
sys.stdin.readline()
for i in range(1000, 2000): run.log(sys.argv[2], float(i), step=i)
"""


def test_equal_pids_in_two_containers(cell: Cell) -> None:
    """FAULTS 19, I7: each has a lane, neither is taken for the other, and both keep the run open."""
    with (
        shmlog.init("equal", root=cell.root) as run,
        in_namespace(cell, PIDS, NAMESAKE, run.dir, "one") as one,
        in_namespace(cell, PIDS, NAMESAKE, run.dir, "two") as two,
    ):
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "logged\n"
        assert run.finish()
        assert shmlog.load(run.dir).metadata["complete"] is False, "the run was closed though two are attached"
    wait_for_end(run.dir)
    cell.assert_nothing_is_left()
    stored = assert_books_balance(run.dir, offered=4000)
    assert_in_order(stored, ["one", "two"])
    ones = [producer["lane"] for producer in stored.producers if producer["pid"] == 1]
    assert len(ones) == len(set(ones)) == 2


# ---- clocks (46) ----

DAY_S = 86400
STEPS = {
    "30 days on": 30 * DAY_S, "30 days back": -30 * DAY_S, "1970": 10 - int(time.time()),
    "2038": 2**31 - 2 - int(time.time()), "2106": 2**32 - 2 - int(time.time()),
}  # fmt: skip
STEPPED = """
import struct, sys, time
import shmlog
done = 0
for number, offset in enumerate(sys.argv[3:]):
    with open(sys.argv[2], "r+b") as file: file.write(struct.pack("q", int(offset)))
    if number == 0:
        run = shmlog.init("clock", root=sys.argv[1])
    for i in range(100):
        run.log("x", float(done), step=done)
        done += 1
    assert run.flush()
    print(time.time(), flush=True)
    sys.stdin.readline()
run.finish()
"""


@pytest.mark.parametrize("first", STEPS)
def test_the_wall_clock_jumps(cell: Cell, first: str) -> None:
    """FAULTS 46: while the run goes on, and before it; a live run never reads crashed, and order is that of seq."""
    clock = cell.folder / "clock"
    clock.write_bytes(bytes(8))
    offsets = [STEPS[first], *STEPS.values(), 0]
    flags = with_clock(cell, clock)
    with in_namespace(cell, flags, STEPPED, cell.root, clock, *map(str, offsets)) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        for offset in offsets:
            assert abs(float(process.stdout.readline()) - time.time() - offset) < 60, "the clock did not jump"
            assert shmlog.load(cell.run_dir).status == "running", "P8: a live run reads crashed"
            process.stdin.write("\n")
            process.stdin.flush()
    cell.assert_nothing_is_left()
    stored = assert_books_balance(cell.run_dir, offered=100 * len(offsets))
    assert stored.status == "success"
    assert_units_on_disk(stored, "x", 100 * len(offsets), in_flight=0)
    times = stored.metrics("x")["ts"].cast("int64")
    assert pc.max(times).as_py() - pc.min(times).as_py() > 60 * DAY_S * 10**6, "the flusher's clock did not jump"


def with_clock(cell: Cell, clock: Path) -> list[str]:
    """Return flags of unshare by which all processes, whatever environment they are given, have another wall clock."""
    library, etc = cell.folder / "clock.so", cell.folder / "etc"
    run_tool("gcc", *WARNINGS, "-shared", "-fPIC", Path(__file__).with_name("clock.c"), "-o", library)
    shutil.copytree("/etc", etc, symlinks=True)
    (etc / "ld.so.preload").write_text(f"{library}\n")  # a flusher is started without LD_PRELOAD
    shell = 'mount --bind "$0" /etc && CLOCK_OFFSET="$1" && export CLOCK_OFFSET && shift && exec "$@"'
    return ["-m", "sh", "-c", shell, str(etc), str(clock)]


AHEAD = """
import os, signal, sys, time
import shmlog
run = shmlog.attach(sys.argv[1])
for i in range(1000): run.log("ahead", float(i), step=i)
assert run.flush()
print(time.monotonic(), flush=True)
sys.stdin.readline()
run._segment.mark_starting()  # as who finds the flusher dead, and is killed before it starts another
"""


def test_the_monotonic_clock_of_a_container_is_ahead(cell: Cell) -> None:
    """FAULTS 46, I9: a time namespace shifts it; nobody waits for a flusher that starts in the future."""
    with shmlog.init("ahead", root=cell.root, lane_records=64) as run:
        run.log("x", 1.0)
        assert run.flush()
        with in_namespace(cell, ["-T", "-f", "--monotonic", "1000000"], AHEAD, run.dir) as process:
            assert process.stdout is not None
            assert float(process.stdout.readline()) > 1_000_000
            os.kill(wait_for_flusher(run.dir), signal.SIGKILL)
            wait_until(lambda: is_flusher_gone(run.dir), "the flusher's death")
        assert not run._segment.flusher_is_starting
        begun = time.monotonic()
        for i in range(1000):
            run.log("y", float(i), step=i)
        assert time.monotonic() - begun < 30
    wait_for_end(run.dir)
    cell.assert_nothing_is_left()
    stored = assert_books_balance(run.dir, offered=2001)
    assert_in_order(stored, ["ahead"])


# ---- stopped, and dead (42) ----

LIVING = """
import sys
import shmlog
run = shmlog.init("living", root=sys.argv[1])
for i in range(1000): run.log("x", float(i), step=i)
assert run.flush()
print("ready", flush=True)
sys.stdin.readline()
for i in range(1000, 2000): run.log("x", float(i), step=i)
"""


def start_living(cell: Cell) -> subprocess.Popen[str]:
    process = start_script(LIVING, cell.root, cwd=cell.folder, env=cell.environment(), stdin=-1)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def assert_reads_running(run_dir: Path, seconds: float) -> None:
    """Assert that a run reads as one that lives, for so long, and that nobody recovers it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        stored = shmlog.load(run_dir)
        assert (stored.status, stored.unrecovered) == ("running", False), "P8: a stopped run is alive"
        assert not recover(run_dir).changed
        time.sleep(0.1)


@pytest.mark.parametrize("who", ["flusher", "both"])
def test_a_run_that_stands_still_is_alive(cell: Cell, full: bool, who: str) -> None:
    """FAULTS 38, 42, P8: stopped is not dead, however long."""
    process = start_living(cell)
    pids = [wait_for_flusher(cell.run_dir)] + ([process.pid] if who == "both" else [])
    for pid in pids:
        stop(pid)
    assert_reads_running(cell.run_dir, 60 if full else 2)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    cell.assert_nothing_is_left()
    stored = assert_books_balance(cell.run_dir, offered=2000)
    assert stored.status == "success"
    assert_units_on_disk(stored, "x", 2000, in_flight=0)


def test_a_zombie_is_dead(cell: Cell) -> None:
    """FAULTS 42, P8: its parent has not waited for it, and the run reads crashed within 5 s."""
    process = start_living(cell)
    os.kill(wait_for_flusher(cell.run_dir), signal.SIGKILL)
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: shmlog.load(cell.run_dir).status == "crashed", "P8: the status crashed", timeout=5.0)
    assert Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    wait_until(lambda: recover(cell.run_dir).changed, "the flusher's lock")
    process.communicate()
    cell.assert_nothing_is_left()
    assert_units_on_disk(assert_books_balance(cell.run_dir, offered=1000), "x", 1000, in_flight=0)


# ---- very many (17, 36) ----

SHORT_LIVES = """
import os, sys
import shmlog
count = int(sys.argv[2])
descriptors = lambda: len(os.listdir("/proc/self/fd"))
with shmlog.init("short", root=sys.argv[1], lanes=8, lane_records=1024, sinks=["parquet"]) as run:
    before = descriptors()
    living = set()
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            for i in range(5): run.log("x", float(number), step=i)
            os._exit(0)
        living.add(pid)
        if len(living) == 4:
            pid, status = os.wait()
            assert status == 0
            living.remove(pid)
    for pid in living: os.waitpid(pid, 0)
    assert descriptors() == before
"""


def test_short_lived_producers(cell: Cell, full: bool) -> None:
    """FAULTS 36, P8: their lanes are used again, nothing is lost, nothing is left."""
    count = 10_000 if full else 1_000
    process = start_script(SHORT_LIVES, cell.root, str(count), cwd=cell.folder, env=cell.environment())
    _, err = process.communicate(timeout=60 + count / 20)
    assert process.returncode == 0, err
    cell.assert_nothing_is_left()
    stored = assert_books_balance(cell.run_dir, offered=5 * count)
    assert stored.dropped == {}
    assert stored.metrics("x").num_rows == 5 * count
    assert len(stored.producers) == count + 1
    assert {producer["lane"] for producer in stored.producers} <= set(range(8))


CROWD = """
import os, sys
import shmlog
told, tell = os.pipe()
waiting, end = os.pipe()
with shmlog.init("crowd", root=sys.argv[1], lanes=256, lane_records=64) as run:
    for number in range(300):
        if os.fork() == 0:
            os.close(end)
            for i in range(10): run.log("x", float(number), step=i)
            os.write(tell, b".")
            os.read(waiting, 1)  # until the last has logged
            os._exit(0)
    for _ in range(300): os.read(told, 1)
    os.close(end)
    for _ in range(300): assert os.wait()[1] == 0
"""


def test_more_producers_at_a_time_than_lanes(cell: Cell) -> None:
    """FAULTS 17, I4: those without a lane drop, and each drop is counted."""
    process = start_script(CROWD, cell.root, cwd=cell.folder, env=cell.environment())
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    cell.assert_nothing_is_left()
    stored = assert_books_balance(cell.run_dir, offered=3000)
    assert stored.dropped == {"lane": 10 * (300 + 1 - 256)}
