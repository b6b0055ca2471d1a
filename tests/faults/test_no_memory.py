"""Every allocation fails, one after the other: FAULTS P11, row 45, invariant I4."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tests.support.books import assert_books_balance
from tests.support.processes import run_script, wait_for_end

WORKLOAD = Path(__file__).with_name("no_memory_workload.py")
RECORDS_OF = {"row": ("row", "row text", "row int")}
"""Names of the records that a call logs, where it is not the one it is counted under."""

RAISING = ("a new handle", "a new name", "extend with an array", "extend with a list", "event", "Segment.create",
           "Segment.open", "attach", "Drain()")  # fmt: skip
DROPPING = ("log of a large text",)


def test_a_call_without_memory_raises_or_counts_a_drop(tmp_path: Path) -> None:
    """P11: no function of the core crashes, whichever of its allocations fails, and the books balance."""
    if importlib.util.find_spec("_testcapi") is None:
        pytest.fail("this Python has no _testcapi: Debian's package libpython3-testsuite has it")
    done = run_script(WORKLOAD.read_text(), tmp_path / "runs", cwd=tmp_path)
    last = (done.stderr.splitlines() or ["nothing"])[-1]
    assert done.returncode == 0, f"P11: status {done.returncode} at: {last}\n{done.stderr[-3000:]}"
    told = json.loads(done.stdout)
    run_dir = Path(told["run"])
    wait_for_end(run_dir)

    offered = sum(count * len(RECORDS_OF.get(name, (name,))) for name, count in told["count"].items())
    stored = assert_books_balance(run_dir, offered=offered)
    rows = {name: stored.metrics(name).num_rows for name in stored.names()}
    for name, count in told["count"].items():
        for record in RECORDS_OF.get(name, (name,)):
            assert rows[record] <= count, f"I4: calls that raised have logged {record}"
    assert len(stored.events("happened")) == told["events"], "I4: an event that raised is there, or one is missing"
    for what in RAISING:
        assert told["told"][what][0] > 0, f"{what}: no allocation of it was made to fail"
    for what in DROPPING:
        assert told["told"][what][1] > 0, f"{what}: no allocation of it was made to fail"
