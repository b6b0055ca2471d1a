"""The oracle of all fault tests: a run's books must balance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import shmlog
from shmlog.reader.event_lines import is_call
from shmlog.reader.tally import gap_of
from shmlog.reader.verify.report import ERROR
from shmlog.reader.verify.verify import verify


def lane_numbers(stored: shmlog.StoredRun) -> dict[int, list[tuple[int, int]]]:
    """Return for each lane the (seq, count) of its metrics, events and gaps, sorted."""
    lanes: dict[int, list[tuple[int, int]]] = defaultdict(list)
    table = stored.metrics(superseded=True)
    for lane, seq in zip(table["lane"].to_pylist(), table["seq"].to_pylist(), strict=True):
        lanes[lane].append((seq, 1))
    for event in stored.events():
        if is_call(event):
            continue
        gap = gap_of(event)
        count = 1 if gap is None else sum(gap.values())
        lanes[event["lane"]].append((event["seq"], count))
    return {lane: sorted(numbers) for lane, numbers in lanes.items()}


def assert_books_balance(
    run_dir: Path, *, offered: int | None = None, killed: int = 0, without_segment: bool = False
) -> shmlog.StoredRun:
    """Assert I4: offered = on disk + dropped by reason + at most one unit per killed producer.

    And that each lane's metrics, events and gaps are numbered 0 … n without a
    hole or a duplicate. ``offered`` counts metric records. ``without_segment``: the run was recovered without its
    shared memory, and that must be all that `verify` finds.
    """
    stored = shmlog.load(run_dir)
    report = verify(run_dir)
    unknown = [finding for finding in report.findings if "shared memory was gone" in finding.message]
    assert len(unknown) == without_segment, f"I6: verify found {report.findings}"
    errors = [finding for finding in report.findings if finding.severity == ERROR and finding not in unknown]
    assert not errors, f"I4: verify found {errors}"
    for lane, numbers in lane_numbers(stored).items():
        expected = 0
        for seq, count in numbers:
            assert seq == expected, f"I4: lane {lane} has seq {seq} where {expected} is due"
            expected += count
    rows = stored.metrics(superseded=True).num_rows
    assert stored.counts["metrics"] == rows, "I4: run.yaml and the parts differ"
    if offered is not None:
        missing = offered - rows - sum(stored.dropped.values())
        assert 0 <= missing <= killed, f"I4: {missing} of {offered} records are neither on disk nor dropped"
    return stored


def assert_in_order(stored: shmlog.StoredRun, names: Iterable[str]) -> None:
    """Assert I3 for producers that logged step = value = 0, 1, 2 … under names of their own."""
    for name in names:
        table = stored.metrics(name).sort_by([("lane", "ascending"), ("seq", "ascending")])
        steps = table["step"].to_pylist()
        assert steps == list(range(len(steps))), f"I3: {name} is not 0 … n in the order logged"
        assert table["value"].to_pylist() == [float(step) for step in steps], f"I3: values of {name}"


def assert_units_on_disk(stored: shmlog.StoredRun, name: str, returned: int, *, in_flight: int) -> None:
    """Assert I3 for a producer that logged step = value = 0, 1, 2 … under a name of its own.

    ``returned`` of its calls had returned when it ended; of those in flight, at
    most ``in_flight``, each is there or not.
    """
    assert_in_order(stored, [name])
    rows = stored.metrics(name).num_rows
    assert returned <= rows <= returned + in_flight, f"I3: {name}: {rows} units on disk, {returned} calls returned"
