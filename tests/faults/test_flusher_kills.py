"""The flusher is killed at every system call on the run folder and the segment: FAULTS P3, rows 38 and 39.

What comes next must find the run whole: the same records (I4, I6), no file and no
segment left over (P8), and nothing to do the second time (I6).
"""

from __future__ import annotations

import random
from functools import partial

from tests.faults import prepared, sweep
from tests.faults.sweep import Bench, Trial
from tests.faults.syscalls import KILL_AFTER, KILL_BEFORE, Fault, Seen

PAIRS = 40
MERGED = "part-000000-000001.parquet"  # the merge at the end makes one of more logs


def kills_at(seen: list[Seen]) -> list[Fault]:
    """Return a kill before each call, and one after each that has changed anything."""
    before = [Fault(KILL_BEFORE, call.point) for call in seen]
    after = [Fault(KILL_AFTER, call.point) for call in seen if call.changes and call.result >= 0]
    return before + after


def assert_struck(outcomes: list[sweep.Outcome]) -> None:
    """Assert that nearly all points were reached: some calls depend on who is faster."""
    missed = [str(outcome.trial) for outcome in outcomes if not outcome.struck]
    print(f"{len(outcomes)} points, {len(missed)} of them not reached")
    assert len(missed) <= len(outcomes) // 10, f"{len(missed)} of {len(outcomes)} points not reached: {missed[:10]}"


def test_a_flusher_killed_at_any_call_loses_and_repeats_nothing(
    bench: Bench, choice: random.Random, full: bool
) -> None:
    copy = bench.prepared.copy(bench.scratch / "reference")
    seen = sweep.calls_of(bench.library, sweep.follow_flusher, copy, bench.scratch / "calls")
    assert sweep.in_child(lambda: prepared.recover_and_check(bench.prepared, copy, bench.expected)) == ""
    assert any(call.point.path.endswith(MERGED) for call in seen), "parts are merged while the run lives"
    points = kills_at(seen)
    trials = [Trial(fault) for fault in (points if full else choice.sample(points, len(points) // 2))]
    with sweep.pool() as executor:
        outcomes = sweep.do_all(executor, partial(sweep.try_kill, bench), trials)
    assert_struck(outcomes)


def test_a_flusher_of_a_resumed_run_killed_at_any_call_loses_and_repeats_nothing(
    resumed_bench: Bench, choice: random.Random, full: bool
) -> None:
    bench = resumed_bench
    copy = bench.prepared.copy(bench.scratch / "reference")
    points = kills_at(sweep.calls_of(bench.library, sweep.follow_flusher, copy, bench.scratch / "calls"))
    assert sweep.in_child(lambda: prepared.recover_and_check(bench.prepared, copy, bench.expected)) == ""
    trials = [Trial(fault) for fault in (points if full else choice.sample(points, PAIRS))]
    with sweep.pool() as executor:
        outcomes = sweep.do_all(executor, partial(sweep.try_kill, bench), trials)
    assert_struck(outcomes)


def test_a_recovery_killed_too_is_done_by_the_next(bench: Bench, choice: random.Random, full: bool) -> None:
    """FAULTS P3, the compound: at each point of the flusher, points of the recovery after it."""
    copy = bench.prepared.copy(bench.scratch / "pairs")
    firsts = kills_at(sweep.calls_of(bench.library, sweep.follow_flusher, copy, bench.scratch / "firsts"))
    copy.remove()
    trials = []
    for first in firsts if full else choice.sample(firsts, PAIRS):
        copy = bench.prepared.copy(bench.scratch / "pairs")
        sweep.follow_flusher(bench.library, copy, first)
        log = bench.scratch / "seconds"
        log.unlink(missing_ok=True)
        seconds = kills_at(sweep.calls_of(bench.library, sweep.follow_recover, copy, log))
        copy.remove()
        trials += [Trial(first, second) for second in choice.sample(seconds, min(len(seconds), 8 if full else 1))]
    with sweep.pool() as executor:
        outcomes = sweep.do_all(executor, partial(sweep.try_kill, bench), trials)
    assert_struck(outcomes)
