"""Records of a store: JSON and back, and the statuses that a run may go through."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmlog.errors import CorruptDataError, RunStateError
from shmlog.folder.status import RunStatus
from shmlog.reader.codec import Record
from shmlog.reader.model import ArtifactRecord, ExperimentRecord, GitState, MetricRecord, RunRecord

TEXT = st.text()
TIME = st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(fold=0))
MAYBE_TEXT = st.none() | TEXT
TEXTS = st.lists(TEXT).map(tuple)
PARAMS = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
        max_leaves=10,
    ),
)
PATH = st.just(Path("/a/b/c"))

RUNS = st.builds(
    RunRecord,
    run_id=TEXT, experiment=TEXT, dir=PATH, status=st.sampled_from(RunStatus), live=st.none() | st.booleans(),
    name=TEXT, attempt=st.integers(1), created_at=st.none() | TIME, started_at=st.none() | TIME,
    ended_at=st.none() | TIME, params=PARAMS, tags=TEXTS, description=MAYBE_TEXT, notes=MAYBE_TEXT, group=MAYBE_TEXT,
    git=st.none() | st.builds(GitState, commit=TEXT, branch=MAYBE_TEXT, dirty=st.none() | st.booleans()),
    argv=TEXTS, environment=PARAMS, pinned=st.booleans(), complete=st.booleans(),
    counts=st.none() | st.dictionaries(TEXT, st.integers(0)), problems=TEXTS,
)  # fmt: skip
EXPERIMENTS = st.builds(
    ExperimentRecord, name=TEXT, dir=PATH, display_name=TEXT, description=MAYBE_TEXT, tags=TEXTS,
    created_at=st.none() | TIME, runs=st.integers(0), problems=TEXTS,
)  # fmt: skip
METRICS = st.builds(
    MetricRecord, run_id=TEXT, name=TEXT, step=st.integers(-(2**63), 2**63 - 1),
    value=st.floats() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | TEXT | st.just("NaN"), timestamp=TIME,
    rank=st.none() | st.integers(), seq=st.none() | st.integers(0),
)  # fmt: skip
ARTIFACTS = st.builds(
    ArtifactRecord, run_id=TEXT, path=TEXT, size_bytes=st.integers(0), created_at=TIME, digest=MAYBE_TEXT
)


def refuse(word: str) -> Any:
    raise AssertionError(f"{word} is not JSON")


@given(RUNS | EXPERIMENTS | METRICS | ARTIFACTS)
def test_a_record_comes_back_from_strict_json(record: Record) -> None:
    text = record.to_json()
    json.loads(text, parse_constant=refuse)
    assert "\n" not in text
    assert repr(type(record).from_json(text)) == repr(record)  # of NaN, the text is the same and the number is not


@pytest.mark.parametrize("value", [math.nan, "NaN", math.inf, "-Infinity", -0.0, 1, 1.0, True, 2**63 - 1])
def test_a_metric_keeps_kind_and_value(value: Any) -> None:
    record = MetricRecord(run_id="r", name="loss", step=0, value=value, timestamp=datetime.now(UTC))
    found = MetricRecord.from_json(record.to_json())
    assert (type(found.value), repr(found.value), found.kind) == (type(value), repr(value), record.kind)


def test_numbers_that_json_lacks_are_words_in_params() -> None:
    record = make(params={"a": [math.nan, math.inf], "b": {"c": -math.inf}})
    assert RunRecord.from_json(record.to_json()).params == {"a": ["NaN", "Infinity"], "b": {"c": "-Infinity"}}


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"null", b"{}", b'"x"', b"\xff", b"[" * 100_000, b'{"run_id": 5}',
        b'{"run_id": "a", "experiment": "b", "dir": "c", "name": "d", "status": "nonsense"}',
        b'{"run_id": "a", "experiment": "b", "dir": "c", "name": "d", "status": "running", "tags": ["a", 1]}',
        b'{"run_id": "a", "experiment": "b", "dir": "c", "name": "d", "status": "running", "git": []}',
        b'{"run_id": "a", "experiment": "b", "dir": "c", "name": "d", "status": "running", "git": {"branch": "m"}}',
        b'{"run_id": "a", "experiment": "b", "dir": "c", "name": "d", "status": "running", "started_at": "soon"}',
    ],
)  # fmt: skip
def test_what_is_no_record_is_told(text: bytes) -> None:
    with pytest.raises(CorruptDataError) as error:
        RunRecord.from_json(text)
    assert "\n" not in str(error.value)


def test_a_field_of_a_later_version_is_passed_over() -> None:
    record = make()
    assert RunRecord.from_dict({**record.to_dict(), "colour": "red"}) == record


# ---- statuses ----


def make(status: str = "pending", **fields: Any) -> RunRecord:
    return RunRecord(run_id="r", experiment="e", dir=Path("/e/r"), name="r", status=RunStatus(status), **fields)


TERMINAL = {"success", "failed", "cancelled", "crashed"}
ALLOWED = (
    {("pending", "running"), ("pending", "cancelled")}
    | {("running", end) for end in TERMINAL}
    | {(end, "running") for end in TERMINAL}
)  # fmt: skip


@pytest.mark.parametrize("to", RunStatus)
@pytest.mark.parametrize("status", RunStatus)
def test_only_these_transitions_are_allowed(status: RunStatus, to: RunStatus) -> None:
    if (status, to) in ALLOWED:
        assert status.advance(to) is to
    else:
        with pytest.raises(RunStateError, match=f"{status} can't become {to}"):
            status.advance(to)


def test_a_run_lives_starts_ends_and_is_resumed() -> None:
    pending = make()
    running = pending.start()
    over = running.finish("killed")
    again = over.resume()
    assert [run.status for run in (pending, running, over, again)] == ["pending", "running", "cancelled", "running"]
    assert [run.attempt for run in (pending, running, over, again)] == [1, 1, 1, 2]
    assert running.started_at is not None
    assert over.started_at == running.started_at == again.started_at
    assert over.ended_at is not None
    assert again.ended_at is None
    assert again.finish().status == "success"


@pytest.mark.parametrize(
    ("status", "step"),
    [
        *((status, "start") for status in RunStatus if status != "pending"),
        *((status, "finish") for status in RunStatus if status != "running"),
        *((status, "resume") for status in RunStatus if not status.is_terminal),
    ],
)
def test_a_step_that_is_not_allowed_changes_nothing(status: str, step: str) -> None:
    run = make(status)
    before = run.to_json()
    with pytest.raises(RunStateError):
        getattr(run, step)()
    assert run.to_json() == before


def test_a_running_run_does_not_finish_as_running() -> None:
    with pytest.raises(RunStateError):
        make("running").finish("active")


@pytest.mark.parametrize(
    ("word", "status"),
    [("FINISHED", "success"), (" Completed ", "success"), ("killed", "cancelled"), ("interrupted", "cancelled"),
     ("timed-out", "failed"), ("queued", "pending"), ("active", "running"), ("probably_died", "crashed")],
)  # fmt: skip
def test_words_of_other_trackers_are_understood(word: str, status: str) -> None:
    assert RunStatus.parse(word) == status


def test_a_word_that_nobody_uses_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown status 'splendid'; use one of"):
        RunStatus.parse("splendid")


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "\ud800"])
def test_a_value_that_no_metric_can_have_is_refused_by_name(value: object) -> None:
    told = {"run_id": "r", "name": "x", "step": 1, "value": value, "timestamp": "2026-11-21T00:00:00Z"}
    with pytest.raises(CorruptDataError, match="MetricRecord: value: "):
        MetricRecord.from_dict(told)
