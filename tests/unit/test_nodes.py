"""Lanes are numbered on each node by itself: nothing that reads a run takes two of one number for one producer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import shmlog
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.reader.event_lines import metric_lines
from shmlog.reader.follow import Follower
from shmlog.reader.verify.verify import verify
from shmlog.records import parts
from shmlog.records.schema import METRICS, OF_NODES
from tests.support.folders import OWNER, Folder
from tests.support.frames import Log

STEPS = {(0, 0): range(5), (0, 1): range(3, 6), (1, 0): range(9), (1, 1): range(2)}
"""By node and lane, the steps of what it has logged."""

ATTEMPTS = [{"attempt": 1, "first_lane": 0}, {"attempt": 2, "first_lane": 1}]
"""On node 0, lane 1 is of the second attempt."""

QUERY = "select step, value, lane, attempt, superseded from metrics"


def value_of(node: int, lane: int, step: int) -> float:
    return 100.0 * node + 10.0 * lane + step


def log_of(node: int) -> Log:
    """Return what a node has logged: the same owner, names and times on each."""
    log = Log()
    for lane in (0, 1):
        log.lane(lane).owner(OWNER)
        for step in STEPS[node, lane]:
            log.lane(lane).metric("loss", value_of(node, lane, step), step, 1000 * step)
    log.frame()
    return log


def second_node(folder: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Return the part and the producers of node 1, as its own flusher would have made them."""
    made = Folder(folder / "one")
    made.add(log_of(1))
    made.complete()
    return made.layout.part(0), [{"node": 1, **producer} for producer in made.described["producers"]]


def put(part: Path, layout: RunLayout) -> Path:
    """Put a part into the folder of node 1."""
    target = RunLayout(layout.dir, 1).part(0)
    target.parent.mkdir(exist_ok=True)
    return Path(shutil.copy(part, target))


@pytest.fixture
def made(tmp_path: Path) -> Folder:
    """Return a run of two nodes that is over."""
    run = Folder(tmp_path / "runs" / "digits" / "one")
    run.add(log_of(0))
    run.complete()
    part, producers = second_node(tmp_path / "elsewhere")
    put(part, run.layout)
    counts = run.described["counts"]
    run.describe(
        producers=[*run.described["producers"], *producers],
        counts={**counts, "metrics": sum(map(len, STEPS.values()))},
    )
    return run


@pytest.fixture
def live(tmp_path: Path) -> tuple[Folder, Log]:
    """Return a run of two nodes that goes on, of which one log is sealed, and that log."""
    run = Folder(tmp_path / "runs" / "digits" / "one")
    log = log_of(0)
    run.add(log)
    run.seal(1)
    part, producers = second_node(tmp_path / "elsewhere")
    put(part, run.layout)
    books = runfile.read(run.layout.sealed_json)
    books["producers"] += producers
    run.layout.sealed_json.write_bytes(runfile.sealed(json.dumps(books)))
    return run, log


def every_row() -> list[tuple[int, float, int]]:
    return sorted((step, value_of(node, lane, step), lane) for (node, lane), steps in STEPS.items() for step in steps)


def rows_of(table: Any) -> list[tuple[int, float, int]]:
    return sorted(zip(*(table[name].to_pylist() for name in ("step", "value", "lane")), strict=True))


def test_a_run_of_two_nodes_is_read_and_verified(made: Folder) -> None:
    report = verify(made.dir)
    assert (report.findings, report.counts["parts"], report.counts["rows"]) == ([], 2, len(every_row()))
    stored = shmlog.load(made.dir)
    assert rows_of(stored.metrics()) == every_row()
    assert rows_of(stored.scan().to_table()) == every_row()
    assert stored.metrics().column_names[-1] == "superseded"
    nodes = stored.metrics(nodes=True)
    owners = zip(*(nodes[name].to_pylist() for name in ("node", "lane", "step")), strict=True)
    assert sorted(owners) == sorted((*key, step) for key, steps in STEPS.items() for step in steps)
    assert stored.lost == {}


@pytest.mark.parametrize("node", [0, 1])
def test_a_missing_record_is_missed_on_its_node(made: Folder, node: int) -> None:
    path = RunLayout(made.dir, node).part(0)
    rows = parts.read_part(path).to_pylist()
    kept = [row for row in rows if (row["lane"], row["seq"]) != (0, 2)]
    path.unlink()
    table = pa.Table.from_pylist(kept, METRICS)
    parts.write_part(path, table, run_id="one", first=0, last=0, progress=lambda: None)
    messages = [finding.message for finding in verify(made.dir).findings]
    lane = "lane 0" if node == 0 else "lane 0 of node 1"
    assert f"{lane}: 1 numbers are missing, the first is 2" in messages
    count = len(STEPS[node, 0])
    assert f"{lane}, pid 41: {count} metrics are booked, the files hold {count - 1}" in messages
    assert len(messages) == 2


def test_producers_are_counted_by_node_when_the_books_are_lost(made: Folder) -> None:
    made.describe(producers=None)
    counted = shmlog.load(made.dir).producers
    assert [(p.get("node", 0), p["lane"], p["tenancy"], p["metrics"]) for p in counted] == [
        (node, lane, 1, len(steps)) for (node, lane), steps in STEPS.items()
    ]


def test_statistics_by_producer_are_of_a_node(made: Folder) -> None:
    rows = shmlog.load(made.dir).statistics(by="producer").to_pylist()
    assert [(row["node"], row["lane"], row["count"], row["first"], row["last"]) for row in rows] == [
        (node, lane, len(steps), value_of(node, lane, steps[0]), value_of(node, lane, steps[-1]))
        for (node, lane), steps in STEPS.items()
    ]


def test_a_lane_of_another_node_is_not_of_the_attempt_that_has_its_number_here(made: Folder) -> None:
    made.describe(attempt=2, attempts=ATTEMPTS)
    due = sorted(
        (value_of(node, lane, step), 2 if (node, lane) == (0, 1) else 1, (node, lane) == (0, 0) and step >= 3)
        for (node, lane), steps in STEPS.items()
        for step in steps
    )
    stored = shmlog.load(made.dir)

    def marks(table: Any) -> list[Any]:
        return sorted(zip(*(table[name].to_pylist() for name in ("value", "attempt", "superseded")), strict=True))

    assert marks(stored.metrics(superseded=True)) == due
    assert marks(stored.metrics()) == [row for row in due if not row[2]]
    pytest.importorskip("duckdb")
    assert marks(stored.sql(QUERY)) == due
    assert marks(shmlog.Store(made.dir.parent.parent).sql(QUERY)) == due


def test_sql_reads_the_parts_of_all_nodes(made: Folder) -> None:
    pytest.importorskip("duckdb")
    table = shmlog.load(made.dir).sql("select * from metrics")
    assert rows_of(table) == every_row()
    assert "node" not in table.column_names


def test_a_live_run_goes_on_beside_the_records_of_another_node(live: tuple[Folder, Log]) -> None:
    run, log = live
    assert not verify(run.dir).findings
    follower = Follower(run.dir)
    shown = follower.history(100)
    assert sorted(line["data"]["metrics"]["loss"] for line in shown) == sorted(value for _, value, _ in every_row())
    following = log.next()
    following.lane(0).metric("loss", -1.0, 5, 9000)  # below the numbers that node 1 has of its lane 0
    following.frame()
    run.add(following)
    assert [line["data"] for line in follower.poll()] == [{"step": 5, "metrics": {"loss": -1.0}}]
    assert follower.rest() == []
    counts = [(p.get("node", 0), p["lane"], p["metrics"]) for p in shmlog.load(run.dir).producers]
    assert counts == [(0, 0, len(STEPS[0, 0]) + 1), *((*key, len(steps)) for key, steps in STEPS.items() if any(key))]
    assert not verify(run.dir).findings


@pytest.mark.filterwarnings("ignore::shmlog.ShmlogWarning")
def test_what_may_stand_twice_is_told_apart_by_node(live: tuple[Folder, Log]) -> None:
    run, log = live
    run.layout.log(0).write_bytes(log.of_run("one"))  # its records stand in a part, too
    run.layout.sealed_json.write_bytes(b"damaged")
    assert rows_of(shmlog.load(run.dir).metrics()) == every_row()


def test_calls_of_two_nodes_are_not_one_line() -> None:
    rows = [
        {"name": name, "value": 1.0, "kind": "float", "step": 0, "ts": 0, "pid": 7, "lane": 0, "seq": 0, "node": node}
        for node, name in enumerate(("a", "b"))
    ]
    lines = metric_lines(pa.Table.from_pylist(rows, OF_NODES))
    assert [line["data"]["metrics"] for line in lines] == [{"a": 1.0}, {"b": 1.0}]


def test_a_folder_of_another_node_that_is_a_link_is_refused(made: Folder, tmp_path: Path) -> None:
    folder = RunLayout(made.dir, 1).metrics
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(shmlog.errors.RefusedError, match="node=1: is a link: refused"):
        shmlog.load(made.dir).metrics()
