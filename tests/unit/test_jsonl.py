"""events.jsonl and run.log: strict JSON, one record a line, and nothing lost on the way back."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmlog.reader.event_lines import read_lines
from shmlog.records.decode import Batch, Decoder
from shmlog.records.lines import event_lines, human_lines
from shmlog.records.wal import Frame, scan
from tests.support import frames
from tests.support.frames import Log

PATH = Path("000000.wal")
OWNER = {"pid": 41, "rank": 3, "local_rank": None, "worker": 7, "host": "h", "started_ns": 1, "process": "p"}
UNUSUAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def decode(log: Log) -> Batch:
    return Decoder(Path()).decode([f for f in scan(log.data, path=PATH, log=0, run_id=None) if isinstance(f, Frame)])


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def lines_of(batch: Batch, *, metrics: bool = True) -> list[dict[str, Any]]:
    text = b"".join(event_lines(batch, metrics=metrics))
    assert text == b"" or text.endswith(b"\n")
    return [json.loads(line, parse_constant=refuse_constant) for line in text.decode().split("\n")[:-1]]


def same(read: Any, logged: Any) -> bool:
    if isinstance(logged, float):
        number = UNUSUAL.get(read, read) if isinstance(read, str) else read
        if math.isnan(logged):
            return isinstance(number, float) and math.isnan(number)
        return type(number) is float and repr(number) == repr(logged)
    return type(read) is type(logged) and read == logged


# ---- metrics ----

INT64 = st.integers(-(2**63), 2**63 - 1)
WHOLE_FLOATS = INT64.map(float)
VALUES = st.one_of(st.floats(), WHOLE_FLOATS, INT64, st.booleans(), st.text(max_size=30))
METRICS = st.dictionaries(st.text(min_size=1, max_size=8), VALUES, min_size=1, max_size=5)
CALLS = st.lists(st.tuples(METRICS, INT64))


@given(CALLS)
def test_a_call_is_a_line_that_reads_back_as_it_was_logged(calls: list[tuple[dict[str, Any], int]]) -> None:
    log = Log()
    lane = log.lane(0)
    for now, (metrics, step) in enumerate(calls):
        lane.row(metrics, step, now * 1000)
    log.frame()
    lines = lines_of(decode(log))
    assert [line["event_type"] for line in lines] == ["metrics"] * len(calls)
    for line, (metrics, step) in zip(lines, calls, strict=True):
        assert line["data"]["step"] == step
        assert list(line["data"]["metrics"]) == list(metrics)
        for name, value in metrics.items():
            assert same(line["data"]["metrics"][name], value)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, -3.0, 0.1, 1e-7, 1e15, 1e16, 1e22, 5e-324, 1.7976931348623157e308, 2.0**53]
)
def test_a_float_stays_a_float(value: float) -> None:
    log = Log()
    log.lane(0).metric("x", value, 0, 0)
    log.frame()
    assert same(lines_of(decode(log))[0]["data"]["metrics"]["x"], value)


def test_a_line_names_time_and_producer() -> None:
    log = Log()
    lane = log.lane(5)
    lane.owner(OWNER)
    lane.metric("x", 1, 2, 123_456_789)
    log.frame()
    (line,) = lines_of(decode(log))
    utc = datetime.datetime.fromtimestamp(frames.UTC_OF_TICK_ZERO // 10**9, datetime.UTC)
    assert line == {
        "timestamp": f"{utc:%Y-%m-%dT%H:%M:%S}.123456Z",
        "event_type": "metrics",
        "data": {"step": 2, "metrics": {"x": 1}},
        "rank": 3,
        "local_rank": None,
        "worker": 7,
        "pid": 41,
        "lane": 5,
        "seq": 0,
    }


@pytest.mark.parametrize("name", ['quo"te', "back\\slash", "new\nline", "\x00", "ünï", "\u2028", "a" * 1000])
def test_any_name_and_text_stays_on_its_line(name: str) -> None:
    log = Log()
    log.lane(0).metric(name, name, 0, 0)
    log.lane(0).event(name, {name: name}, 1)
    log.frame()
    batch = decode(log)
    first, second = lines_of(batch)
    assert first["data"]["metrics"] == {name: name}
    assert (second["event_type"], second["data"]) == (name, {name: name})
    assert len(human_lines(batch, "digits").decode().splitlines()) == 1


# ---- order ----


def test_lines_come_by_frame_and_in_a_frame_by_time() -> None:
    log = Log()
    log.lane(0).metric("x", 1, 0, 5000)
    log.lane(0).event("late", {}, 9000)
    log.lane(1).metric("x", 2, 0, 1000)
    log.lane(1).gap([0, 0, 3, 0, 0, 0], 7000)
    log.frame()
    log.lane(1).event("early", {}, 2000)
    log.frame()
    found = [(line["event_type"], line["lane"]) for line in lines_of(decode(log))]
    assert found == [("metrics", 1), ("metrics", 0), ("gap", 1), ("late", 0), ("early", 1)]
    kept = [line["event_type"] for line in lines_of(decode(log), metrics=False)]
    assert kept == ["gap", "late", "early"]


def test_a_gap_says_what_was_dropped() -> None:
    log = Log()
    log.lane(0).gap([3, 0, 0, 0, 0, 1], 0)
    log.frame()
    lines = lines_of(decode(log))
    assert len(lines) == 1, "I4: a gap has a line"
    line = lines[0]
    assert (line["event_type"], line["data"]) == ("gap", {"dropped": {"full": 3, "disk": 1}})


# ---- events ----

INVALID = [b"", b"[1]", b"{", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": ' + b"[" * 5000, b'{"a":1}{"b":2}']


@pytest.mark.parametrize("data", INVALID)
def test_data_that_is_no_json_object_is_kept_as_text(data: bytes) -> None:
    log = Log()
    log.lane(0).event("e", data, 0)
    log.frame()
    batch = decode(log)
    assert lines_of(batch)[0]["data"] == {"invalid": data.decode()}
    assert human_lines(batch, "digits").count(b"\n") == 1


def test_people_read_messages_without_control_characters() -> None:
    log = Log()
    lane = log.lane(0)
    lane.owner(OWNER)
    lane.event("log", {"level": "warning", "message": "a\x1b[31mb\nc"}, 0)
    lane.event("error", {"type": "ValueError", "message": "bad"}, 1000)
    lane.gap([2, 0, 0, 0, 0, 0], 2000)
    log.lane(1).event("checked", {"a": 1, "b": {"c": [0.5]}}, 3000)
    log.frame()
    assert human_lines(decode(log), "digits", {(1, 0)}).decode().splitlines() == [
        "2026-09-21 14:13:20 - digits - WARNING - a\\x1b[31mb [rank 3, worker 7]",
        "    c",
        "2026-09-21 14:13:20 - digits - ERROR - Error occurred: ValueError: bad [rank 3, worker 7]",
        "2026-09-21 14:13:20 - digits - WARNING - Records were dropped: 2 (full) [rank 3, worker 7]",
        '2026-09-21 14:13:20 - digits - INFO - checked: a=1, b={"c": [0.5]}',
    ]


# ---- reading ----


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_bytes(data)
    return path


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / "none", None)) == []


def test_damaged_lines_are_named_and_the_others_read(tmp_path: Path) -> None:
    data = b'{"a":1}\nnonsense\n\n\xff\n{"b":2}\n[3]\n{"c":'
    lines = list(read_lines(write(tmp_path, data), None))
    assert [line.event for line in lines if line.event is not None] == [{"a": 1}, {"b": 2}]
    assert [data[line.offset : line.offset + line.size] for line in lines if line.event is None] == [
        b"nonsense\n", b"\xff\n", b"[3]\n", b'{"c":',
    ]  # fmt: skip
    assert [line.is_whole for line in lines] == [True] * 5 + [False]


def test_what_a_power_loss_leaves_is_no_event(tmp_path: Path) -> None:
    lines = list(read_lines(write(tmp_path, b'{"a":1}\n' + bytes(4096)), None))
    assert lines[0].event == {"a": 1}
    assert lines[1:] == [(8, 4096, None, False)]


def test_a_line_may_hold_any_other_line_break(tmp_path: Path) -> None:
    text = json.dumps({"a": "\r\x0b\x0c\x1c\x85\u2028\u2029"}, ensure_ascii=False)
    (line,) = read_lines(write(tmp_path, text.encode() + b"\n"), None)
    assert line.event == json.loads(text)


def test_only_the_first_bytes_are_read_when_told(tmp_path: Path) -> None:
    path = write(tmp_path, b'{"a":1}\n{"b":2}\n')
    assert [line.event for line in read_lines(path, 8)] == [{"a": 1}]
    assert list(read_lines(path, 0)) == []


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("x", numbered=True) / "events.jsonl"
    path.write_bytes(data)
    lines = list(read_lines(path, None))
    assert b"".join(data[line.offset : line.offset + line.size] for line in lines) == b"\n".join(
        line for line in data.split(b"\n") if line
    ) + (b"\n" if data.endswith(b"\n") and data.strip(b"\n") else b"")
