"""Containers: the end of the first process is that of all the others, the flusher's too, and of the shared memory.

``unshare -pf`` is what ``docker run`` is for the processes; with ``--init``, or a shell, Python is not the first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import shmlog
from shmlog.errors import RunStateError
from shmlog.flusher.recover import recover
from tests.support.books import assert_books_balance
from tests.support.cells import Cell
from tests.support.processes import run_script, wait_for_end, wait_until
from tests.support.tools import need

BUSY = 3  # loops for each core
RECORDS = 1000
NAMESPACES = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]
OWN_MEMORY = ["-m", "sh", "-c", 'mount -t tmpfs none /dev/shm && exec "$@"', "sh"]
FIRST = {
    "Python": [],
    "an init": ["sh", "-c", '"$@"; exit $?', "sh"],
}
BEGIN = f"""
import os, signal, sys, time
import shmlog
run = shmlog.init("contained", root=sys.argv[1])
for i in range({RECORDS}): run.log("x", float(i), step=i)
"""
ENDS = {
    "by its exit": ("", 0, "success"),
    "by its exit, some time after a finish": ("run.finish()\nsum(range(10**6))", 0, "success"),
    "with a run": ("with run: run.info('within')", 0, "success"),
    "by an exception": ("raise RuntimeError('boom')", 1, "failed"),
    "by sys.exit": ("sys.exit(143)", 143, "cancelled"),
}


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    need("unshare")
    return Cell(tmp_path)


@pytest.fixture
def busy() -> Iterator[None]:
    """Have more to do than there are cores, each in a session of its own: the kernel is fair among sessions."""
    code = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100000))"
    loops = [
        subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        for _ in range(BUSY * (os.cpu_count() or 1))
    ]
    yield
    for loop in loops:
        loop.kill()
        loop.wait()


def script(cell: Cell, code: str) -> Path:
    path = cell.folder / "script.py"
    path.write_text(code)
    return path


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("first", FIRST)
def test_a_run_is_closed_before_its_container_ends(cell: Cell, first: str, end: str) -> None:
    code, returncode, status = ENDS[end]
    command = [*NAMESPACES, *FIRST[first], sys.executable, str(script(cell, BEGIN + code)), str(cell.root)]
    done = subprocess.run(command, env=cell.environment(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == returncode, done.stderr
    assert list(cell.processes(helpers=True)) == [], "all are dead, whatever they were at"
    cell.assert_nothing_is_left()
    stored = assert_books_balance(cell.run_dir)
    assert (stored.status, stored.unrecovered, stored.metrics("x").num_rows) == (status, False, RECORDS)


# ---- killed with all that is in it ----


@contextmanager
def container(cell: Cell) -> Iterator[subprocess.Popen[str]]:
    """Have a run go on in a container with a shared memory of its own; what it logged is in the log."""
    code = BEGIN + "assert run.flush()\nprint('flushed', flush=True)\ntime.sleep(600)"
    command = [*NAMESPACES, *OWN_MEMORY, sys.executable, str(script(cell, code)), str(cell.root)]
    with subprocess.Popen(command, env=cell.environment(), stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "flushed\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def killed(cell: Cell) -> Path:
    """Return the folder of a run that was killed with its container."""
    with container(cell):
        run_dir = cell.run_dir
        assert (shmlog.load(run_dir).status, shmlog.load(run_dir).live) == ("running", None), "seen from outside"
        with pytest.raises(RunStateError, match="not known here whether"):
            recover(run_dir)
    wait_until(lambda: shmlog.load(run_dir).unrecovered, "the kernel to release its locks")
    return run_dir


def assert_recovered(run_dir: Path, *, without_segment: bool = True) -> None:
    """Assert that the run is recovered, by default without its segment, which has gone with its container."""
    stored = assert_books_balance(run_dir, without_segment=without_segment)
    assert (stored.status, stored.unrecovered, stored.metrics("x").num_rows) == ("crashed", False, RECORDS)


COMMANDS = {
    "show": ["show", "RUN"],
    "runs": ["runs", "--root", "ROOT"],
    "tail": ["tail", "RUN"],
    "tail --no-follow": ["tail", "RUN", "--no-follow"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_next_reader_recovers_a_run_that_was_killed_with_its_container(
    killed: Path, cell: Cell, command: str
) -> None:
    stored = shmlog.load(killed)
    assert (stored.status, stored.unrecovered, stored.metrics("x").num_rows) == ("crashed", True, RECORDS)
    assert shmlog.load(killed).unrecovered, "load() never writes"
    words = [{"RUN": str(killed), "ROOT": str(cell.root)}.get(word, word) for word in COMMANDS[command]]
    for told in (1, 0):
        done = subprocess.run(
            [sys.executable, "-m", "shmlog", *words],
            env=cell.environment(), cwd=cell.folder, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert done.stderr.count("shmlog: recovered ") == told, done.stderr
        assert "unrecovered" not in done.stdout + done.stderr
    assert_recovered(killed)


@pytest.mark.parametrize("where", ["outside", "another container"])
def test_the_next_run_in_its_root_recovers_it(killed: Path, cell: Cell, where: str) -> None:
    wait = "while os.path.exists(sys.argv[2]): time.sleep(0.02)\n"
    code = f"import os, sys, time\nimport shmlog\nwith shmlog.init('next', root=sys.argv[1]):\n    {wait}"
    command = [*NAMESPACES, *OWN_MEMORY] if where == "another container" else []
    done = subprocess.run(
        [*command, sys.executable, str(script(cell, code)), str(cell.root), str(killed / "wal")],
        env=cell.environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_recovered(killed)


def test_containers_that_recover_it_at_once_do_it_once(killed: Path, cell: Cell) -> None:
    """Each has a shared memory of its own, where the others see no lock."""
    command = [*NAMESPACES, *OWN_MEMORY, sys.executable, "-P", "-m", "shmlog", "recover", "--json", str(killed)]
    every = [subprocess.Popen(command, env=cell.environment(), stdout=-1, text=True) for _ in range(4)]
    told = [process.communicate(timeout=60)[0] for process in every]
    assert [process.returncode for process in every] == [0] * 4, told
    assert_recovered(killed)


def test_a_run_that_was_killed_outside_is_recovered_by_the_next_reader_too(cell: Cell) -> None:
    code = BEGIN + "from tests.support.processes import wait_for_flusher\n"
    code += "os.kill(wait_for_flusher(run.dir), signal.SIGKILL)\nos.kill(os.getpid(), signal.SIGKILL)"
    assert run_script(code, cell.root, cwd=cell.folder).returncode == -signal.SIGKILL
    wait_until(lambda: shmlog.load(cell.run_dir).unrecovered, "the kernel to release its locks")
    done = subprocess.run(
        [sys.executable, "-m", "shmlog", "show", str(cell.run_dir)],
        env=cell.environment(), cwd=cell.folder, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr.count("shmlog: recovered ") == 1
    assert_recovered(cell.run_dir, without_segment=False)
    wait_for_end(cell.run_dir)
    cell.assert_nothing_is_left()
