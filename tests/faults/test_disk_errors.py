"""Every call of the flusher on the disk fails, once or until it is healed: FAULTS P4, rows 47 to 50.

It must go on by itself and leave the same as if nothing had been: nothing lost (I4),
nothing twice (I6), nothing left over (P8).
"""

from __future__ import annotations

import errno
import random
from functools import partial

from tests.faults import sweep
from tests.faults.sweep import Bench, Trial
from tests.faults.syscalls import FAIL, SHORT, Fault, Seen

ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS)
WRITES = ("write", "writev", "pwrite64")
INTERRUPTED = (*WRITES, "openat", "fsync")


def is_on_disk(call: Seen) -> bool:
    """Whether the call is one on the disk; a large text that can't be read is told as lost, and left out here."""
    where = call.point.path.split("/")[0]
    return where not in ("segment", "doorbell", "large") and call.result >= 0


def faults_at(call: Seen) -> list[Fault]:
    """Return all that may befall a call."""
    faults = []
    if call.changes or call.point.call == "openat":
        for error in ERRORS:
            faults.append(Fault(FAIL, call.point, error=error))
            faults.append(Fault(FAIL, call.point, error=error, sticky=True))
    if call.point.call == "close":
        faults.append(Fault(FAIL, call.point, error=errno.EIO))
    if call.point.call in INTERRUPTED:
        faults.append(Fault(FAIL, call.point, error=errno.EINTR, times=2))
    if call.point.call in WRITES:
        faults += [Fault(SHORT, call.point, bytes=1), Fault(SHORT, call.point, bytes=100, times=5)]
    return faults


def test_a_flusher_outlives_every_error_of_the_disk(bench: Bench, choice: random.Random, full: bool) -> None:
    copy = bench.prepared.copy(bench.scratch / "errors")
    seen = [call for call in sweep.calls_of(bench.library, sweep.follow_flusher, copy, bench.scratch / "errors.log")
            if is_on_disk(call)]  # fmt: skip
    copy.remove()
    calls = seen if full else choice.sample(seen, len(seen) // 2)
    faults = [faults_at(call) for call in calls]
    chosen = [fault for of_call in faults for fault in (of_call if full else choice.sample(of_call, len(of_call))[:1])]
    with sweep.pool() as executor:
        sweep.do_all(executor, partial(sweep.try_error, bench), [Trial(fault) for fault in chosen])
    print(f"{len(chosen)} errors at {len(calls)} of {len(seen)} calls")
