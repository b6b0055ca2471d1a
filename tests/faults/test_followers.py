"""Every record in the right run, whatever starts and keeps the processes: a table of real programs.

Rows are the kinds of workers in tests/support/followers/kinds.py, columns the situations in trainer.py beside it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

import shmlog
from tests.support.books import assert_books_balance
from tests.support.followers import trainer
from tests.support.followers.jobs import AFTERWARDS, calls_returned
from tests.support.followers.kinds import KINDS
from tests.support.followers.trainer import AFTER, BETWEEN, LATE, PER_RUN
from tests.support.processes import (
    is_flusher_gone,
    processes_of_session,
    segments_below,
    start_script,
    wait_for_end,
    wait_until,
)

PROGRAM = """
from tests.support.followers.trainer import main
if __name__ == "__main__":
    main()
"""
BOUND_S = 120.0
BOOKED_S = 20.0  # until what was dropped after a run's end is in its books

PROCESSES = [name for name, kind in KINDS.items() if kind.processes]
DESCENDANTS = [name for name, kind in KINDS.items() if kind.descends]
KEPT = [name for name in PROCESSES if KINDS[name].kept]


class Outcome:
    """What a program has told, printed and left."""

    def __init__(self, out: str, err: str) -> None:
        self.told: dict[str, Any] = json.loads(out)
        self.err = err
        self.runs = [Path(path) for path in self.told["runs"]]

    def warnings(self, reason: str) -> int:
        return sum(f"(reason: {reason})" in line for line in self.err.splitlines())


@contextmanager
def started(cwd: Path, kind: str, situation: str, *options: str) -> Iterator[Any]:
    """Start a program; name its run folders if the test fails, and leave none of its processes behind."""
    with start_script(PROGRAM, kind, situation, cwd, *options, cwd=cwd) as process:
        try:
            yield process
            wait_until(lambda: not processes_of_session(process.pid), "the program's processes to end", BOUND_S)
        except BaseException as error:
            error.add_note(f"runs: {[str(path.parent) for path in cwd.glob('runs/*/*/run.yaml')]}")
            error.add_note(f"processes: {processes_of_session(process.pid)}")
            raise
        finally:
            for pid in processes_of_session(process.pid):
                os.kill(pid, signal.SIGKILL)


def outcome(cwd: Path, kind: str, situation: str, *options: str) -> Outcome:
    """Run a program to its end, and wait for that of its runs."""
    with started(cwd, kind, situation, *options) as process:
        out, err = process.communicate(timeout=BOUND_S)
        assert process.returncode == 0, err
        found = Outcome(out, err)
        print(f"runs: {found.told['runs']}")
        for run_dir in found.runs:
            wait_for_end(run_dir)
    return found


def has(run_dir: Path, dropped: dict[str, int] | None = None, **expected: range) -> shmlog.StoredRun:
    """Assert that a run has these values under these names, and nothing else; and that its books balance."""
    due = dropped or {}
    wait_until(lambda: shmlog.load(run_dir).dropped == due, f"{run_dir} to have dropped {due}", BOOKED_S if due else 0)
    stored = assert_books_balance(run_dir)
    found = {name: sorted(stored.metrics(name)["int_value"].to_pylist()) for name in stored.names()}
    assert found == {name: list(values) for name, values in expected.items() if values}, run_dir
    return stored


@pytest.mark.parametrize("kind", KINDS)
def test_three_runs_over_one_crew_have_their_own(tmp_path: Path, kind: str) -> None:
    runs = outcome(tmp_path, kind, "three_runs").runs
    ways = trainer.ways_of(KINDS[kind])
    for number, run_dir in enumerate(runs):
        values = range(1000 * number, 1000 * number + PER_RUN)
        expected = {way: values for way in ways if way != "event"}
        stored = has(run_dir, other=range(1 - values.stop, 1 - values.start), **expected)
        assert sorted(event["data"]["value"] for event in stored.events("mine")) == list(values), run_dir


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_runs_at_once_each_has_its_own(tmp_path: Path, kind: str) -> None:
    one, two = outcome(tmp_path, kind, "two_at_once").runs
    has(one, {"closed": LATE} if KINDS[kind].processes else {}, given=range(PER_RUN))
    has(two, given=range(1000, 1000 + PER_RUN))


@pytest.mark.parametrize("kind", KINDS)
def test_what_might_belong_to_either_run_is_in_neither(tmp_path: Path, kind: str) -> None:
    found = outcome(tmp_path, kind, "ambiguous")
    wait_until(lambda: sum(sum(shmlog.load(run).dropped.values()) for run in found.runs) == PER_RUN, "drops", BOOKED_S)
    for run in found.runs:
        assert set(shmlog.load(run).dropped) <= {"ambiguous"}
        assert assert_books_balance(run).names() == []
    assert found.warnings("ambiguous") == found.told["pids"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_ends_midway_is_left_at_once(tmp_path: Path, kind: str) -> None:
    """Each value is the time when its call began."""
    found = outcome(tmp_path, kind, "midway")
    calls = {int(worker): count for worker, count in found.told["calls"].items()}
    if KINDS[kind].processes:
        wait_until(lambda: accounted(found.runs) == sum(calls.values()), "each call to be in the books", BOOKED_S)
    first, second = (assert_books_balance(run_dir) for run_dir in found.runs)
    assert accounted(found.runs) <= sum(calls.values())
    assert {*first.dropped, *second.dropped} <= {"closed", "full"}
    full = second.dropped.get("full", 0)
    for worker, count in calls.items():
        of_first, of_second = (stored.metrics(f"busy.{worker}") for stored in (first, second))
        assert pc.max(of_first["int_value"]).as_py() <= found.told["returned"], f"late in {first.dir}"
        early = pc.sum(pc.less(of_second["int_value"], found.told["called"])).as_py() or 0
        assert early <= 1, f"{early - 1} calls that returned before finish are in {second.dir}"  # one was on its way
        if KINDS[kind].descends:
            latest = pc.sum(pc.greater_equal(of_second["step"], count - AFTERWARDS)).as_py() or 0
            assert latest + full >= AFTERWARDS, f"calls that began after init are not in {second.dir}"


def accounted(runs: list[Path]) -> int:
    """Return how many records are on disk or booked as dropped."""
    return sum(stored.counts["metrics"] + sum(stored.dropped.values()) for stored in map(shmlog.load, runs))


@pytest.mark.parametrize("imported", ["before", "later"])
@pytest.mark.parametrize("kind", KINDS)
def test_workers_that_were_there_before_the_run_log_into_it(tmp_path: Path, kind: str, imported: str) -> None:
    (run,) = outcome(tmp_path, kind, "born_before", imported).runs
    has(run, given=range(PER_RUN), name=range(PER_RUN if KINDS[kind].descends else 0))


@pytest.mark.parametrize("kind", DESCENDANTS)
def test_workers_born_between_two_runs_log_into_the_next(tmp_path: Path, kind: str) -> None:
    first, second = outcome(tmp_path, kind, "born_between").runs
    has(first, name=range(1))
    has(second, name=range(PER_RUN))


@pytest.mark.parametrize("kind", KEPT)
def test_what_is_logged_while_there_is_no_run_is_counted_in_the_last(tmp_path: Path, kind: str) -> None:
    found = outcome(tmp_path, kind, "no_run", "lenient")
    first, second = found.runs
    has(first, {"closed": BETWEEN}, name=range(PER_RUN))
    has(second, {"closed": AFTER}, name=range(1000, 1000 + PER_RUN))
    assert found.told["refused"] == [0, 0]
    assert found.warnings("closed") == 2, "one of each run"


@pytest.mark.parametrize("kind", ["pool-fork", "pool-spawn"])
def test_a_strict_run_refuses_what_is_logged_while_there_is_no_run(tmp_path: Path, kind: str) -> None:
    found = outcome(tmp_path, kind, "no_run", "strict")
    assert found.told["refused"] == [BETWEEN, AFTER]
    has(found.runs[0], {"closed": BETWEEN}, name=range(PER_RUN))
    has(found.runs[1], {"closed": AFTER}, name=range(1000, 1000 + PER_RUN))


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_never_logs_keeps_no_run_alive(tmp_path: Path, kind: str) -> None:
    (run,) = outcome(tmp_path, kind, "silent").runs
    stored = has(run, name=range(1, 2))
    assert [attempt["status"] for attempt in stored.attempts] == ["success", "success"]


@pytest.mark.parametrize("kind", PROCESSES)
def test_a_run_whose_owner_is_killed_ends_while_its_workers_log_on(tmp_path: Path, kind: str) -> None:
    with started(tmp_path, kind, "killed") as process:
        (run,) = (Path(path) for path in json.loads(process.stdout.readline())["runs"])
        wait_until(lambda: [n > 1000 for n in calls_returned(tmp_path).values()] == [True, True], "both workers to log")
        returned = calls_returned(tmp_path)
        process.kill()
        wait_until(lambda: shmlog.load(run).status == "crashed", f"{run} to be crashed", BOOKED_S)
        wait_for_end(run)
        (tmp_path / "next").touch()
    calls = calls_returned(tmp_path)
    wait_until(lambda: accounted([run]) == sum(calls.values()), f"each call to be in the books of {run}", BOOKED_S)
    stored = assert_books_balance(run, offered=sum(calls.values()))
    assert stored.status == "crashed"
    assert stored.dropped["closed"] >= AFTERWARDS * len(calls)
    for worker, count in returned.items():
        assert stored.metrics(f"busy.{worker}").num_rows >= count, f"calls that returned are not in {run}"
    wait_until(lambda: is_flusher_gone(run), f"the flusher of {run} to be gone")
    assert list(segments_below(tmp_path)) == []
