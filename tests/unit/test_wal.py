"""Write-ahead logs: what is written is what is decoded, and damage stays where it is."""

from __future__ import annotations

import json
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shmlog.records.decode import Batch, Decoder
from shmlog.records.lines import event_data, event_lines, human_lines
from shmlog.records.schema import METRICS
from shmlog.records.wal import Damage, Frame, OtherVersion, scan
from tests.support import frames
from tests.support.frames import Happening, Log, Record

PATH = Path("000000.wal")
OWNER = {"pid": 41, "rank": 3, "local_rank": 1, "worker": None, "host": "h", "started_ns": 1, "process": "p"}

# ---- what tests compare ----


def whole_frames(log: Log) -> list[Frame]:
    found = list(scan(log.data, path=PATH, log=log.number, run_id=None))
    assert not [one for one in found if isinstance(one, Damage)]
    return [one for one in found if isinstance(one, Frame)]


def records_of(batch: Batch) -> list[Record]:
    """Return the metrics of a batch as the oracle has them; calls are numbered by their first row."""
    columns = {name: batch.metrics[name].to_pylist() for name in METRICS.names if name != "ts"}
    ts_us = batch.metrics["ts"].cast("int64").to_pylist()
    kinds: dict[str, Callable[[int], Any]] = {
        "float": lambda i: columns["value"][i],
        "int": lambda i: columns["int_value"][i],
        "bool": lambda i: bool(columns["int_value"][i]),
        "text": lambda i: columns["text"][i],
    }
    return [
        Record(
            lane=columns["lane"][i],
            tenancy=-1,
            seq=columns["seq"][i],
            name=columns["name"][i],
            value=kinds[columns["kind"][i]](i),
            step=columns["step"][i],
            ts_us=ts_us[i],
            call=(0, int(batch.unit[i])),
        )
        for i in range(batch.metrics.num_rows)
    ]


def happenings_of(batch: Batch) -> set[tuple[Any, ...]]:
    events = [(e, e.event_type, event_data(e)) for e in batch.events]
    gaps = [(g, None, g.dropped) for g in batch.gaps]
    return {(one.lane, one.tenancy, one.seq, what, str(data), one.ts_us) for one, what, data in events + gaps}


def as_tuples(happenings: list[Happening]) -> set[tuple[Any, ...]]:
    return {(h.lane, h.tenancy, h.seq, h.event_type, str(h.data), h.ts_us) for h in happenings}


def grouping(calls: list[tuple[int, int]]) -> list[int]:
    """Return for each row the first row of its call."""
    first: dict[tuple[int, int], int] = {}
    return [first.setdefault(call, i) for i, call in enumerate(calls)]


def check(batch: Batch, expected: list[Record], happened: list[Happening]) -> None:
    found = records_of(batch)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert Record(**{**vars(one), "tenancy": other.tenancy}).same(other)
    assert grouping([r.call for r in found]) == grouping([r.call for r in expected])
    assert happenings_of(batch) == as_tuples(happened)
    assert batch.metrics.schema == METRICS
    batch.metrics.validate(full=True)


# ---- round trips ----

INT64 = st.integers(-(2**63), 2**63 - 1)
NAMES = st.sampled_from(["loss", "acc", "größe", "a/b c", 'quo"te'])
VALUES = st.one_of(st.floats(), INT64, st.booleans(), st.text(max_size=60))
UNITS = st.one_of(
    st.tuples(st.just("metric"), NAMES, VALUES, INT64),
    st.tuples(st.just("row"), st.dictionaries(NAMES, VALUES, min_size=1), INT64),
    st.tuples(st.just("event"), NAMES, st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=3)),
    st.tuples(st.just("owner"), st.integers(1, 1000)),
    st.tuples(st.just("gap"), st.lists(st.integers(0, 5), min_size=6, max_size=6)),
    st.tuples(st.just("frame")),
)
PROGRAMS = st.lists(st.tuples(st.integers(0, 2), UNITS), max_size=40)


def run(log: Log, program: list[tuple[int, tuple[Any, ...]]]) -> None:
    """Log what a program says."""
    now = 0
    for number, (kind, *rest) in program:
        now += 777
        lane = log.lane(number)
        if kind == "metric":
            lane.metric(*rest, now)
        elif kind == "row":
            lane.row(*rest, now)
        elif kind == "event":
            lane.event(*rest, now)
        elif kind == "owner":
            lane.owner({**OWNER, "pid": rest[0]}, now)
        elif kind == "gap":
            lane.gap([told + new for told, new in zip(lane.gapped, rest[0], strict=True)], now)
        else:
            log.frame(now)
    log.frame(now + 1)


@given(PROGRAMS)
def test_what_is_logged_is_what_is_decoded(program: list[tuple[int, tuple[Any, ...]]]) -> None:
    log = Log()
    run(log, program)
    decoder = Decoder(Path())
    batch = decoder.decode(whole_frames(log))
    check(batch, log.records, log.happenings)
    assert batch.damage == []
    for number, lane in log.lanes.items():
        if lane.position == 0:
            continue  # never used
        cursor = decoder.cursors[number]
        assert (cursor.position, cursor.seq, cursor.tenancy) == (lane.position, lane.seq, lane.tenancy)
        assert (cursor.gapped, cursor.owner_json) == (lane.gapped, lane.owner_text)


@given(PROGRAMS, st.integers(0, 10))
def test_it_does_not_matter_in_how_many_calls_frames_are_decoded(
    program: list[tuple[int, tuple[Any, ...]]], cut: int
) -> None:
    log = Log()
    run(log, program)
    found = whole_frames(log)
    whole = Decoder(Path()).decode(found)
    decoder = Decoder(Path())
    parts = [decoder.decode(found[:cut]), decoder.decode(found[cut:])]
    assert [str(r) for part in parts for r in part.metrics.to_pylist()] == [str(r) for r in whole.metrics.to_pylist()]
    lines = [b"".join(event_lines(b, metrics=True)) for b in (*parts, whole)]
    assert lines[0] + lines[1] == lines[2]


@given(PROGRAMS, PROGRAMS)
def test_a_log_is_decoded_the_same_without_the_one_before_it(
    before: list[tuple[int, tuple[Any, ...]]], program: list[tuple[int, tuple[Any, ...]]]
) -> None:
    log = Log()
    run(log, before)
    second = log.next()
    run(second, program)
    alone = Decoder(Path()).decode(whole_frames(second))
    check(alone, second.records, second.happenings)
    decoder = Decoder(Path())
    decoder.decode(whole_frames(log))
    behind = decoder.decode(whole_frames(second))
    assert str(behind.metrics.to_pylist()) == str(alone.metrics.to_pylist())


def test_no_frames_are_no_records() -> None:
    batch = Decoder(Path()).decode([])
    check(batch, [], [])


def test_owners_are_told_with_their_records() -> None:
    log = Log()
    lane = log.lane(2)
    lane.metric("x", 1.0, 0, 1)
    lane.owner(OWNER)
    lane.metric("x", 2.0, 0, 2)
    lane.owner({**OWNER, "pid": 42, "rank": None, "worker": 7})
    lane.metric("x", 3.0, 0, 3)
    log.frame()
    batch = Decoder(Path()).decode(whole_frames(log))
    rows = [tuple(row.values()) for row in batch.metrics.select(["pid", "rank", "worker"]).to_pylist()]
    assert rows == [(-1, None, None), (41, 3, None), (42, None, 7)]
    assert {key: count.metrics for key, count in batch.counts.items()} == {(2, 0): 1, (2, 1): 1, (2, 2): 1}
    assert batch.owner_of[2, 2]["pid"] == 42


def test_ticks_become_utc_by_the_anchors_of_their_frame() -> None:
    log = Log()
    log.lane(0).metric("x", 1.0, 0, 30_000)
    log.lane(0).metric("x", 1.0, 0, 3_000_000)
    log.frame(1_000_000, ticks_per_ns=3.0)
    batch = Decoder(Path()).decode(whole_frames(log))
    ts_us = np.array(batch.metrics["ts"].cast("int64"))
    assert (ts_us - frames.UTC_OF_TICK_ZERO // 1000).tolist() == [10, 1000]


S = 1_000_000_000
PER_NS = 3.0


def logs_with_a_restart(at_s: float, drained_before: bool, until_s: float) -> tuple[list[Log], list[float]]:
    """Return two logs of a run that logs each tenth of a second, and whose counter begins anew; and when it logged.

    A frame is written each half second; what was logged since the last one, the first behind the restart has, too.
    The second log begins with the second of those.
    """
    logs, times, began_s = [Log()], [], 0.0
    for tenth in range(1, round(until_s * 10)):
        now_s = tenth / 10
        if began_s == 0 and now_s >= at_s:
            began_s = at_s
            if drained_before:
                logs[0].frame(round((at_s - 0.01) * S), PER_NS)
        times.append(now_s)
        logs[-1].lane(0).metric("x", now_s, 0, round((now_s - began_s) * S * PER_NS))
        if tenth % 5 == 0:
            logs[-1].frame(round((now_s + 0.001) * S), PER_NS, round(began_s * S))
            if began_s and len(logs) == 1:
                logs.append(logs[0].next())
    logs[1].frame(round(until_s * S), PER_NS, round(began_s * S))
    return logs, times


def times_of(batches: list[Any]) -> list[float]:
    found = np.concatenate([np.array(batch.metrics["ts"].cast("int64")) for batch in batches])
    return [round(us / 1e6, 3) for us in (found - frames.UTC_OF_TICK_ZERO // 1000).tolist()]


@pytest.mark.parametrize("drained_before", [True, False])
@pytest.mark.parametrize("at_a_time", [1, 100])
@pytest.mark.parametrize("until_s", [3.0, 9.0])
def test_a_counter_that_begins_anew_keeps_times(drained_before: bool, at_a_time: int, until_s: float) -> None:
    """At the end it has counted further than before it began anew, or not yet."""
    logs, times = logs_with_a_restart(2.32, drained_before, until_s)
    decoder, whole = Decoder(Path()), [frame for log in logs for frame in whole_frames(log)]
    batches = [decoder.decode(whole[i : i + at_a_time]) for i in range(0, len(whole), at_a_time)]
    assert times_of(batches) == times


@pytest.mark.parametrize("until_s", [3.0, 9.0])
def test_a_reader_that_comes_after_the_counter_began_anew_has_its_times(until_s: float) -> None:
    (_, later), times = logs_with_a_restart(0.75, True, until_s)
    batch = Decoder(Path()).decode(whole_frames(later))
    assert times_of([batch]) == times[-batch.metrics.num_rows :] != []


def test_events_from_before_the_counter_began_anew_have_their_times() -> None:
    log = Log()
    log.lane(0).metric("x", 1.0, 0, 3 * S)
    log.frame(S, PER_NS)
    log.lane(0).event("e", {}, 6 * S)
    log.lane(0).event("e", {}, 3 * S // 10)
    log.frame(2 * S + S // 2, PER_NS, 2 * S)
    (first, second) = Decoder(Path()).decode(whole_frames(log)).events
    assert [(event.ts_us - frames.UTC_OF_TICK_ZERO // 1000) / 1e6 for event in (first, second)] == [2.0, 2.1]


def test_a_given_time_is_no_count_of_a_clock() -> None:
    """It may be later than its frame: then only what the counter says was logged before that began anew."""
    log = Log()
    log.lane(0).metric("x", 1.0, 0, 3 * S)
    log.frame(S, PER_NS)
    ahead_us = frames.UTC_OF_TICK_ZERO // 1000 + 10**9
    log.lane(0).given("x", 1.0, 1, ahead_us)
    log.lane(0).given("x", "a text of more than eight bytes", 2, -5)
    log.lane(0).given("x", 1.0, 3, 1 << 62)
    log.frame(2 * S + S // 2, PER_NS, 2 * S)
    batch = Decoder(Path()).decode(whole_frames(log))
    assert batch.damage == []
    last_us = 253_402_300_799_999_999
    assert batch.metrics["ts"].cast("int64").to_pylist()[1:] == [ahead_us, -5, last_us]


def test_drops_without_a_lane_are_told() -> None:
    log = Log(unlaned=[0, 0, 0, 5, 1, 0])
    log.frame()
    told = Decoder(Path()).decode(whole_frames(log)).unlaned
    assert {reason: n for reason, n in told.items() if n} == {"lane": 5, "closed": 1}


# ---- large payloads in files of their own ----


def test_a_text_in_a_file_comes_back_as_the_text(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    text = "größer " * 1000
    (tmp_path / "large" / "1.txt").write_text(text, encoding="utf-8")
    log = Log()
    log.lane(0).file_metric("x", "large/1.txt", text, 1, 1)
    log.lane(0).file_event("e", "large/1.txt", len(text.encode()), 2)
    log.frame()
    batch = Decoder(tmp_path).decode(whole_frames(log))
    check(batch, log.records, log.happenings)


OUTSIDE = ["/etc/passwd", "large/../secret", "large/gone", "large/..", "large/link", ""]


@pytest.mark.parametrize("takes_all", [False, True], ids=["reader", "flusher"])
@pytest.mark.parametrize("path", OUTSIDE)
def test_no_file_outside_the_folder_is_read(tmp_path: Path, path: str, takes_all: bool) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "link").symlink_to(tmp_path / "secret")
    log = Log()
    log.lane(0).file_metric("x", path, "", 1, 1)
    log.lane(0).file_event("e", path, 0, 2)
    log.lane(0).metric("x", 1.0, 1, 3)
    log.frame()
    batch = Decoder(tmp_path, takes_all=takes_all).decode(whole_frames(log))
    assert batch.damage
    assert "secret" not in str(batch.metrics.to_pylist())
    assert batch.metrics["seq"].to_pylist()[-1] == 2


@pytest.mark.parametrize("takes_all", [False, True], ids=["reader", "flusher"])
def test_a_text_in_a_file_that_is_not_utf_8_is_left_out(tmp_path: Path, takes_all: bool) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "1.txt").write_bytes(b"\xff" * 1000)
    log = Log()
    log.lane(0).file_metric("x", "large/1.txt", "", 1, 1)
    log.lane(0).metric("x", 1.0, 1, 3)
    log.frame()
    batch = Decoder(tmp_path, takes_all=takes_all).decode(whole_frames(log))
    assert [damage.reason for damage in batch.damage] == ["lane 0: a text that can't be read, or is not UTF-8"]
    assert batch.metrics["seq"].to_pylist() == [1]


# ---- damage ----


def three_frames() -> Log:
    log = Log()
    log.lane(0).owner(OWNER)
    for i in range(3):
        log.lane(0).metric("x", float(i), i, i)
        log.lane(1).row({"a": i, "b": "a text that is long"}, i, i)
        log.frame(10 + i)
    return log


def found_in(data: bytes, log: int = 0) -> list[int | str]:
    """Return the indices of the frames found, and the reasons of the damage between."""
    return [one.index if isinstance(one, Frame) else one.reason for one in scan(data, path=PATH, log=log, run_id=None)]


def test_the_stretches_of_a_scan_cover_the_log() -> None:
    data = b"garbage" + three_frames().data + b"SLF2 and so on"
    at = 0
    for one in scan(data, path=PATH, log=0, run_id=None):
        assert one.offset == at
        at += one.length
    assert at == len(data)


def test_a_log_cut_anywhere_gives_its_whole_frames() -> None:
    log = three_frames()
    for end in range(len(log.data)):
        whole = sum(start <= end for start in [*log.frames[1:], len(log.data)])
        torn = [] if end in [*log.frames, len(log.data)] else ["torn tail"]
        assert found_in(log.data[:end]) == [*range(whole), *torn]


def test_a_damaged_frame_costs_only_itself() -> None:
    log = three_frames()
    at = log.frames[1] + 200
    data = log.data[:at] + bytes([log.data[at] ^ 1]) + log.data[at + 1 :]
    assert found_in(data) == [0, "wrong checksum", 2]


def test_scanning_begins_where_it_is_told() -> None:
    log = three_frames()
    found = [
        one for one in scan(log.data, path=PATH, log=0, run_id=None, start=log.frames[1]) if isinstance(one, Frame)
    ]
    assert [(one.index, one.offset) for one in found] == [(1, log.frames[1]), (2, log.frames[2])]


def test_frames_of_another_log_are_left_out() -> None:
    first, second = three_frames(), three_frames().next()
    second.frame()
    assert found_in(first.data + second.data, log=1) == ["frames of log 0", 0]
    assert found_in(second.data + first.data, log=1) == [0, "frames of log 0"]


def test_frames_of_another_run_are_left_out_wherever_they_stand() -> None:
    """Also where what was in front of one is gone. Those that follow each other are told of once."""
    log = three_frames()
    foreign, end = log.of_run("other"), log.frames[1]
    pieces = (foreign, log.data[:end], foreign[end:], foreign[:100])
    found = list(scan(b"".join(pieces), path=PATH, log=0, run_id="run"))
    assert [(type(one).__name__, one.offset, one.length) for one in found] == [
        ("Foreign", 0, len(foreign)),
        ("Frame", len(foreign), end),
        ("Foreign", len(foreign) + end, len(foreign) - end),
        ("Damage", 2 * len(foreign), 100),
    ]
    assert [one.reason for one in found if isinstance(one, Damage)] == [*["frames of run 'other'"] * 2, "torn tail"]


def test_frames_of_an_earlier_version_are_told_as_such() -> None:
    data = frames.reseal(three_frames().data.replace(b"SLF2", b"SLF1"))
    (piece,) = scan(data, path=PATH, log=0, run_id=None)
    assert isinstance(piece, OtherVersion)
    assert (piece.offset, piece.length) == (0, len(data))
    assert "earlier version of shmlog" in piece.reason


def test_what_a_power_loss_leaves_is_a_torn_tail() -> None:
    log = three_frames()
    assert found_in(log.data + bytes(4096)) == [0, 1, 2, "torn tail"]
    assert found_in(bytes(4096)) == ["torn tail"]


def test_a_hole_between_frames_is_reported() -> None:
    log = three_frames()
    data = log.data[: log.frames[1]] + log.data[log.frames[2] :]
    batch = Decoder(Path()).decode([one for one in scan(data, path=PATH, log=0, run_id=None) if isinstance(one, Frame)])
    assert any("missing" in damage.reason for damage in batch.damage)
    assert [r.seq for r in records_of(batch) if r.name == "x"] == [0, 2]


def test_a_frame_that_comes_twice_counts_once() -> None:
    log = three_frames()
    data = log.data + log.data[log.frames[1] : log.frames[2]]
    batch = Decoder(Path()).decode([one for one in scan(data, path=PATH, log=0, run_id=None) if isinstance(one, Frame)])
    assert batch.metrics.num_rows == len(log.records)
    assert batch.damage


def one_frame(*slots: bytes, name: bytes = b"x", lane: int = 0, seq: int = 0) -> list[Frame]:
    """Return a frame with a right checksum around any slots."""
    entry = struct.pack("<IIQQII6Q", lane, len(slots), 0, seq, 1, 0, *[0] * 6)
    names = struct.pack("<II", 0, len(name)) + name.ljust(8, b"\0")
    owners = struct.pack("<II", 0, 2) + b"{}".ljust(8, b"\0")
    rest = struct.pack("<6IIIQ", 1, 1, 1, len(slots), 1, 0, len(names), len(owners), 0)
    rest += struct.pack("<6q6Q72s", *[0] * 6, *[0] * 6, b"run") + entry + names + owners + b"".join(slots)
    return [one for one in scan(frames.seal(0, 0, rest), path=PATH, log=0, run_id=None) if isinstance(one, Frame)]


GOOD = frames.slot(1, 5, 1, frames.INT)
DATA = frames.data_slots(b"some text")[0]
MEMBER = frames.slot(1, 5, 1, frames.INT, flags=frames.MEMBER)


@pytest.mark.parametrize(
    "slots",
    [
        [MEMBER],
        [DATA],
        [frames.slot(1, 5, 1, 0)],
        [frames.slot(1, 5, 1, 17)],
        [GOOD, DATA],
        [frames.slot(1, frames.extent(2, 9), 1, frames.LONGTEXT)],
        [frames.slot(1, frames.extent(3, 9), 1, frames.LONGTEXT), DATA],
        [frames.slot(1, frames.extent(2, 99), 1, frames.LONGTEXT), DATA],
        [frames.slot(1, frames.extent(2, 2**32 - 1), 1, frames.EVENT), DATA],
        [frames.slot(1, frames.extent(2, 9), 1, frames.EVENT), GOOD],
        [frames.slot(1, frames.extent(2, 2), 1, frames.ROW), MEMBER],
        [frames.slot(1, frames.extent(3, 1), 1, frames.ROW), MEMBER, MEMBER],
        [frames.slot(1, frames.extent(3, 2), 1, frames.ROW), MEMBER],
        [frames.slot(1, frames.extent(1, 0), 1, frames.ROW)],
        [frames.slot(1, frames.extent(3, 48), 1, frames.GAP), DATA],
        [frames.slot(1, frames.extent(2, 9), 1, frames.OWNER)],
    ],
    ids=range(16),
)
def test_a_unit_that_makes_no_sense_is_reported_and_gives_no_record(slots: list[bytes]) -> None:
    batch = Decoder(Path()).decode(one_frame(GOOD, *slots))
    assert set(batch.metrics["int_value"].to_pylist()) <= {5}  # whole units before it stay
    assert batch.events == []
    assert [damage.path for damage in batch.damage] == [PATH]


@pytest.mark.parametrize("kind", [frames.TEXT, frames.LONGTEXT, frames.EVENT])
def test_text_that_is_not_utf8_is_reported_and_left_out(kind: int) -> None:
    text = b"\xff\xfe"
    value = int.from_bytes(text, "little") if kind == frames.TEXT else frames.extent(2, 2)
    tail = [] if kind == frames.TEXT else frames.data_slots(text)
    batch = Decoder(Path()).decode(one_frame(frames.slot(1, value, 1, kind), *tail, GOOD))
    assert batch.metrics["int_value"].to_pylist() == [5]
    assert batch.metrics["seq"].to_pylist() == [1]
    assert batch.events == []
    assert batch.damage


def test_a_name_that_is_not_defined_is_reported() -> None:
    batch = Decoder(Path()).decode(one_frame(frames.slot(1, 5, 1, frames.INT, name=7), GOOD))
    assert batch.metrics["seq"].to_pylist() == [1]
    assert batch.damage
    assert Decoder(Path()).decode(one_frame(GOOD, name=b"\xff")).metrics.num_rows == 0


@pytest.mark.parametrize(("lane", "seq"), [(2**31, 0), (2**32 - 1, 0), (0, 2**63), (0, 2**64 - 1)])
def test_numbers_that_do_not_fit_are_reported(lane: int, seq: int) -> None:
    batch = Decoder(Path()).decode(one_frame(GOOD, lane=lane, seq=seq))
    assert batch.metrics.num_rows == 0
    assert batch.damage


NO_OWNERS = [b"[" * 400, b"\xff", b"[1]", b'{"pid": 1e99}', b'{"pid": true, "rank": "x"}']


@pytest.mark.parametrize("owner", NO_OWNERS)
def test_an_owner_that_makes_no_sense_leaves_the_records(owner: bytes) -> None:
    data = frames.data_slots(owner)
    header = frames.slot(1, frames.extent(1 + len(data), len(owner)), 0, frames.OWNER)
    batch = Decoder(Path()).decode(one_frame(header, *data, GOOD))
    assert batch.metrics.select(["int_value", "pid", "rank"]).to_pylist() == [{"int_value": 5, "pid": -1, "rank": None}]


# ---- hostile bytes ----


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def decode_anything(data: bytes) -> None:
    """Scan and decode; whatever the bytes are, it ends, and what comes out is valid."""
    at = 0
    found = []
    for one in scan(data, path=PATH, log=0, run_id=None):
        assert one.offset == at
        assert one.length > 0
        at += one.length
        if isinstance(one, Frame):
            found.append(one)
    assert at == len(data)
    batch = Decoder(Path("no such folder")).decode(found)
    batch.metrics.validate(full=True)
    assert len(batch.unit) == batch.stretches.rows.sum() == batch.metrics.num_rows
    for chunk in event_lines(batch, metrics=True):
        for line in chunk.splitlines():
            assert isinstance(json.loads(line, parse_constant=refuse_constant), dict)
    human_lines(batch, "digits").decode("utf-8")


@given(st.binary(max_size=600))
@example(b"SLF2" * 100)
def test_any_bytes_are_survived(data: bytes) -> None:
    decode_anything(data)


def base_log() -> Log:
    log = Log()
    for number in range(2):
        lane = log.lane(number)
        lane.owner(OWNER, 5)
        lane.metric("x", 1.5, 1, 10)
        lane.metric("y", "a text that is long enough", 1, 11)
        lane.row({"x": 1, "y": "another text that is long", "z": True}, 2, 12)
        lane.event("e", {"k": "v" * 30}, 13)
        lane.gap([1, 2, 0, 0, 0, 0], 14)
        lane.metric("t", "short", 3, 15)
    log.frame(20)
    log.lane(0).metric("x", 2.5, 1, 30)
    log.frame(40)
    return log


BASE = base_log()
INTERESTING = (0, 1, 2, 3, 7, 8, 31, 127, 128, 255)
BYTES = st.sampled_from(INTERESTING) | st.integers(0, 255)
MUTATIONS = st.lists(st.tuples(st.integers(0, len(BASE.data) - 1), BYTES), min_size=1, max_size=8)


@settings(max_examples=300)
@given(MUTATIONS, st.booleans())
def test_mutated_frames_are_survived(mutations: list[tuple[int, int]], checksums_are_right: bool) -> None:
    data = bytearray(BASE.data)
    for at, byte in mutations:
        data[at] = byte
    if checksums_are_right:
        begin, end = BASE.frames[1], len(data)
        data = bytearray(frames.reseal(bytes(data[:begin])) + frames.reseal(bytes(data[begin:end])))
    decode_anything(bytes(data))


def test_a_log_made_to_slow_the_search_down_is_survived() -> None:
    size = 2_000_000
    slots = (size - 64 - 232) // 32
    header = struct.pack("<4sIQ10IQ", b"SLF2", 0, 232 + 32 * slots, 0, 0, 0, 0, 0, slots, 0, 0, 0, 0, 0)
    data = header * (size // len(header))
    begin = time.monotonic()
    assert [one for one in scan(data, path=PATH, log=0, run_id=None) if isinstance(one, Frame)] == []
    assert time.monotonic() - begin < 30


def test_random_slots_are_survived() -> None:
    rng = random.Random(1)
    for _ in range(200):
        slots = [
            frames.slot(
                rng.getrandbits(64),
                rng.choice([rng.getrandbits(64), frames.extent(rng.randrange(6), rng.randrange(80))]),
                rng.getrandbits(63),
                rng.choice([*range(11), 31, 31, 31]),
                rng.choice([0, 0, 1]),
                rng.randrange(8) & rng.randrange(8),
            )
            for _ in range(rng.randrange(1, 30))
        ]
        data = one_frame(*slots)
        batch = Decoder(Path("no such folder")).decode(data)
        batch.metrics.validate(full=True)
        list(event_lines(batch, metrics=True))
