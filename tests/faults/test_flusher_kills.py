"""The flusher is killed at every system call on the run folder and the segment: FAULTS P3, rows 38 and 39.

What comes next must find the run whole: the same records (I4, I6), no file and no
segment left over (P8), and nothing to do the second time (I6).
"""

from __future__ import annotations

import random
from functools import partial

import pytest

from tests.faults import prepared, sweep, syscalls
from tests.faults.sweep import Bench, Trial
from tests.faults.syscalls import KILL_AFTER, KILL_BEFORE, Fault, Seen


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("kills")
    run = prepared.prepare(folder)
    scratch = folder / "scratch"
    scratch.mkdir()
    return Bench(syscalls.build(folder), run, sweep.expected_content(run, folder), scratch)


def kills_at(seen: list[Seen]) -> list[Fault]:
    """Return a kill before each call, and one after each that has changed anything."""
    before = [Fault(KILL_BEFORE, call.point) for call in seen]
    after = [Fault(KILL_AFTER, call.point) for call in seen if call.changes and call.result >= 0]
    return before + after


def one_of_each(faults: list[Fault], choice: random.Random) -> list[Fault]:
    """Return a fault of every kind at one of the calls of each name on each file."""
    of: dict[tuple[int, str, str], list[Fault]] = {}
    for fault in faults:
        of.setdefault((fault.action, fault.point.call, fault.point.path), []).append(fault)
    return [choice.choice(same) for same in of.values()]


def assert_struck(outcomes: list[sweep.Outcome]) -> None:
    """Assert that nearly all points were reached: some calls depend on who is faster."""
    missed = [str(outcome.trial) for outcome in outcomes if not outcome.struck]
    assert len(missed) <= len(outcomes) // 10, f"{len(missed)} of {len(outcomes)} points not reached: {missed[:10]}"


def test_a_flusher_killed_at_any_call_loses_and_repeats_nothing(bench: Bench) -> None:
    copy = bench.prepared.copy(bench.scratch / "reference")
    seen = sweep.calls_of(bench.library, sweep.follow_flusher, copy, bench.scratch / "calls")
    assert sweep.in_child(lambda: prepared.recover_and_check(bench.prepared, copy, bench.expected)) == ""
    with sweep.pool() as executor:
        trials = [Trial(fault) for fault in kills_at(seen)]
        outcomes = sweep.do_all(executor, partial(sweep.try_kill, bench), trials)
    assert_struck(outcomes)
    print(f"{len(trials)} points")
