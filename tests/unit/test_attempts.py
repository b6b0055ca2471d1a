"""Of a run that was resumed, the later attempt's values are the curve and the earlier ones are marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.folder.description import Description
from shmlog.folder.status import status_of_events
from shmlog.reader.verify.verify import verify
from tests.support.folders import OWNER, Folder
from tests.support.frames import Log


class Point(NamedTuple):
    """A record, and who logged it."""

    attempt: int
    lane: int
    name: str
    step: int


LANES = [0, 2, 2, 5]
"""First lanes of four attempts: the second has logged nothing."""

POINTS = st.builds(
    lambda lane, name, step: Point(sum(first <= lane for first in LANES), lane, name, step),
    st.integers(0, 6), st.sampled_from(["loss", "acc", "lr"]), st.integers(-3, 8),
)  # fmt: skip


def make_run(folder: Path, points: list[Point], *, seal: bool) -> Folder:
    """Return a run of four attempts with these records."""
    made = Folder(folder)
    made.describe(attempt=4, attempts=[{"attempt": i, "first_lane": lane} for i, lane in enumerate(LANES, start=1)])
    log = Log()
    for lane in range(7):
        log.lane(lane).owner({**OWNER, "pid": 41 + lane})
    for i, point in enumerate(points):
        log.lane(point.lane).metric(point.name, float(i), point.step, i)
    log.frame()
    made.add(log)
    if seal:
        made.complete()
    return made


def is_superseded(point: Point, points: list[Point]) -> bool:
    """Return what the rule says, word by word."""
    for attempt in range(point.attempt + 1, len(LANES) + 1):
        steps = [other.step for other in points if (other.attempt, other.name) == (attempt, point.name)]
        if steps and point.step >= min(steps):
            return True
    return False


def marked(rows: list[dict[str, Any]]) -> list[tuple[int, int, bool]]:
    return sorted((int(row["value"]), row["attempt"], row["superseded"]) for row in rows)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=st.lists(POINTS, max_size=30), seal=st.booleans())
def test_the_curve_is_of_the_latest_attempt_that_came_so_far(
    tmp_path_factory: pytest.TempPathFactory, points: list[Point], seal: bool
) -> None:
    made = make_run(tmp_path_factory.mktemp("digits") / "one", points, seal=seal)
    stored = shmlog.load(made.dir)
    due = [(i, point.attempt, is_superseded(point, points)) for i, point in enumerate(points)]
    assert marked(stored.metrics(superseded=True).to_pylist()) == due
    assert marked(stored.metrics().to_pylist()) == [row for row in due if not row[2]]
    assert sorted(stored.to_numpy("loss")[1]) == sorted(
        float(i) for i, _, superseded in due if not superseded and points[i].name == "loss"
    )
    assert verify(made.dir).ok


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=st.lists(POINTS, max_size=30), seal=st.booleans())
def test_sql_marks_the_same(tmp_path_factory: pytest.TempPathFactory, points: list[Point], seal: bool) -> None:
    pytest.importorskip("duckdb")
    root = tmp_path_factory.mktemp("runs")
    stored = shmlog.load(make_run(root / "digits" / "one", points, seal=seal).dir)
    plain = Folder(root / "digits" / "plain")
    log = Log()
    log.lane(3).owner(OWNER)
    log.lane(3).metric("loss", -1.0, 0, 0)
    log.frame()
    plain.add(log)
    query = "select value, attempt, superseded from metrics"
    due = marked(stored.metrics(superseded=True).to_pylist())
    assert marked(stored.sql(query).to_pylist()) == due
    assert marked(shmlog.Store(root).sql(query).to_pylist()) == [(-1, 1, False), *due]


FAULTS: list[Any] = [
    [], {}, "x", [1], [{"attempt": 1}], [{"attempt": 1, "first_lane": 1}], [{"attempt": 2, "first_lane": 0}],
    [{"attempt": 1, "first_lane": 0}, {"attempt": 3, "first_lane": 1}],
    [{"attempt": 1, "first_lane": 0}, {"attempt": 2, "first_lane": -1}],
    [{"attempt": 1, "first_lane": 0}, {"attempt": 2, "first_lane": True}],
]  # fmt: skip


@pytest.mark.parametrize("told", FAULTS, ids=repr)
def test_a_list_that_makes_no_sense_is_told_and_taken_for_one_attempt(tmp_path: Path, told: object) -> None:
    described = Description(status="success", attempts=told)
    assert described.fault_of_attempts()
    assert described.first_lanes(0) == [0]
    assert [attempt["status"] for attempt in described.all_attempts()] == ["success"]
    made = make_run(tmp_path / "digits" / "one", [Point(1, 0, "loss", 1)], seal=True)
    made.describe(attempts=told)
    assert not verify(made.dir).ok
    assert shmlog.load(made.dir).metrics().num_rows == 1


def test_a_resumed_run_has_not_ended_as_its_attempt_before_has() -> None:
    end = {"event_type": "experiment_end", "data": {"status": "failed"}}
    assert status_of_events([end]) == "failed"
    assert status_of_events([end, {"event_type": "experiment_start", "data": {"attempt": 2}}]) is None
