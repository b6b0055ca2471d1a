"""The C core: put lanes into a state, make one call, look at what came of it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmlog import _bulk, _core
from shmlog.flusher import closing
from shmlog.flusher.loop import LOG_BYTES_MAX, unsealed_logs_max
from shmlog.folder.layout import RunLayout
from shmlog.folder.segmentref import SegmentRef
from shmlog.records.decode import Batch, Decoder
from shmlog.records.wal import Frame, scan
from shmlog.segment import shm
from tests.support.processes import wait_until

SLOTS = 64
SLOT = _core.SLOT_BYTES
OWNER = b'{"pid":7,"rank":null}'
OWNER_SLOTS = 2
TAIL = 128  # of a lane's header


class Producer(_core.RunBase):
    """A producer with hooks that do nothing."""

    def _identity(self) -> bytes:
        return OWNER

    def _ring(self) -> None:
        pass

    def _flusher_lost(self) -> bool:
        return False

    def _first_drop(self, reason: str) -> None:
        pass

    def _spill(self, data: bytes) -> bytes:
        raise OSError("no room")


class Ring:
    """A segment in a file, with producers, a drain and a decoder."""

    def __init__(
        self, folder: Path, lanes: int = 3, slots: int = SLOTS, policy: shm.DropPolicy = shm.NEVER_WAIT
    ) -> None:
        self.folder = folder
        self.path = folder / "segment"
        self.logs = folder / "wal"
        self.logs.mkdir()
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self.segment = _core.Segment.create(
            fd,
            str(self.path),
            run_id="run",
            run_dir=str(folder),
            lanes=lanes,
            lane_slots=slots,
            clock=0,
            drop_policy=policy,
        )
        self.drain = self.new_drain(0)
        self.decoder = Decoder(folder)
        self.seen = 0

    def new_drain(self, log: int) -> _core.Drain:
        return _core.Drain(self.segment, os.open(self.logs, os.O_RDONLY), log, None)

    def producer(self) -> Producer:
        producer = Producer()
        producer._join(self.segment, str(self.path), True, 0)
        return producer

    def begin(self) -> None:
        assert self.drain.next_log() == 0

    def drained(self) -> Batch:
        """Drain, and return what came into the log since the last time."""
        error, _ = self.drain.drain_pass()
        assert error == 0
        frames = self.frames(0)
        new, self.seen = frames[self.seen :], len(frames)
        return self.decoder.decode(new)

    def frames(self, log: int) -> list[Frame]:
        path = self.logs / f"{log:06}.wal"
        return [found for found in scan(path.read_bytes(), path=path, log=log, run_id=None) if isinstance(found, Frame)]

    def slot_at(self, lane: int, position: int) -> int:
        """Return the offset in the file of a slot."""
        return _core.head_bytes(self.segment.lanes) + (lane * SLOTS + position % SLOTS) * SLOT

    def poke(self, offset: int, data: bytes) -> None:
        with open(self.path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    def peek(self, offset: int, size: int) -> bytes:
        with open(self.path, "rb") as file:
            file.seek(offset)
            return file.read(size)


def positions(producer: _core.RunBase) -> tuple[int, int, int]:
    """Return head, tail and synced of its lane."""
    ((_, head, tail, synced),) = producer._positions()
    return head, tail, synced


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(tmp_path)


def values(batch: Batch) -> list[float]:
    return batch.metrics["value"].to_pylist()


# ---- one lane ----


def test_a_record_is_drained_after_its_commit(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    producer.log("x", 1.5, 3)
    batch = ring.drained()
    assert values(batch) == [1.5]
    assert batch.metrics["step"].to_pylist() == [3]
    assert positions(producer)[:2] == (OWNER_SLOTS + 1, OWNER_SLOTS + 1)


def test_a_record_is_invisible_before_its_commit_word(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    producer.log("x", 1.5, 3)
    offset = ring.slot_at(0, OWNER_SLOTS) + 24
    commit = ring.peek(offset, 8)
    ring.poke(offset, b"\0" * 8)
    assert values(ring.drained()) == []
    ring.poke(offset, commit)
    assert values(ring.drained()) == [1.5], "I1: the commit word is the truth, not the head"


@pytest.mark.parametrize("head", [0, OWNER_SLOTS, 2**60])
def test_a_head_that_lies_is_ignored(ring: Ring, head: int) -> None:
    ring.begin()
    producer = ring.producer()
    producer.log("x", 1.5, 3)
    ring.poke(_lane_header(ring, 0), head.to_bytes(8, "little"))
    assert values(ring.drained()) == [1.5], "I1: head is a hint"


def _lane_header(ring: Ring, lane: int) -> int:
    pages = -(-ring.segment.lanes * 384 // 4096) * 4096
    return _core.head_bytes(ring.segment.lanes) - pages + lane * 384


def test_a_full_lane_drops_and_a_gap_tells_it_when_there_is_room(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    for i in range(SLOTS + 10):
        producer.log("x", float(i), i)
    kept = SLOTS - OWNER_SLOTS
    assert producer._counts()["dropped"]["full"] == SLOTS + 10 - kept
    assert values(ring.drained()) == [float(i) for i in range(kept)]
    producer.log("x", -1.0, 0)
    batch = ring.drained()
    assert [gap.dropped for gap in batch.gaps] == [{"full": 12}]
    assert batch.gaps[0].seq == kept
    assert batch.metrics["seq"].to_pylist() == [kept + 12]


def test_who_waits_for_room_waits_as_long_as_the_flusher_seals(tmp_path: Path) -> None:
    """A slow disk holds the drain; that is no reason to drop while parts get written."""
    ring = Ring(tmp_path, policy=shm.DropPolicy(wait=True, max_wait_s=1.0, strict=False))
    ring.begin()
    producer = ring.producer()
    ring.segment.lock(_core.LOCK_FLUSHER)
    _, running = ring.drain.drain_pass(), threading.Thread(target=_seal_then_drain, args=(ring,))
    for i in range(SLOTS - OWNER_SLOTS):
        producer.log("x", float(i), i)
    running.start()
    producer.log("x", -1.0, 0)
    running.join()
    counts = producer._counts()
    assert (sum(counts["dropped"].values()), counts["waits"]) == (0, 1)
    assert counts["waited_s"] > 1.0


class Interrupted(Producer):
    """A producer that is interrupted while it waits for room, when the run has just been closed."""

    def __init__(self, close: Callable[[], object]) -> None:
        self.close = close
        self.late = 0

    def _flusher_lost(self) -> bool:
        self.close()
        raise KeyboardInterrupt

    def _count_late(self, records: int) -> None:
        self.late += records


@pytest.mark.parametrize("ending", ["the flusher closes the run", "another thread leaves"])
def test_the_drop_of_a_wait_that_was_interrupted_is_told_though_the_run_has_ended(tmp_path: Path, ending: str) -> None:
    ring = Ring(tmp_path, policy=shm.DropPolicy(wait=True, max_wait_s=60.0, strict=False))
    ring.begin()

    def close() -> None:
        ring.segment.cut_all()
        assert ring.drain.drain_pass()[0] == 0
        assert not ring.drain.finalize()
        assert ring.drain.settle() == 0

    producer = Interrupted(close)
    if ending == "another thread leaves":
        producer.close = producer._leave
    producer._join(ring.segment, str(ring.path), True, 0)
    for step in range(SLOTS - OWNER_SLOTS):
        producer.log("x", 1.0, step)
    with pytest.raises(KeyboardInterrupt):
        producer.log("x", 1.0, SLOTS)
    assert producer.late == 1, "I4: a drop that nobody tells"
    assert sum(producer._counts()["dropped"].values()) == 1
    assert sum(ring.segment.unlaned.values()) == 0


def _seal_then_drain(ring: Ring) -> None:
    end = time.monotonic() + 1.3
    while time.monotonic() < end:
        ring.segment.add_progress()
        time.sleep(0.01)
    ring.drain.drain_pass()


@given(bursts=st.lists(st.integers(0, 150), max_size=12), row=st.integers(1, 8))
def test_drained_and_dropped_add_up_in_every_lap(
    tmp_path_factory: pytest.TempPathFactory, bursts: list[int], row: int
) -> None:
    ring = Ring(tmp_path_factory.mktemp("ring"))
    ring.begin()
    producer = ring.producer()
    offered, found, number = 0, [], 0
    seqs: list[tuple[int, int]] = []
    for burst in bursts:
        for _ in range(burst):
            producer.log({f"x{k}": float(number + k) for k in range(row)}, number)
            number += row
            offered += row
        batch = ring.drained()
        found += values(batch)
        seqs += [(seq, 1) for seq in batch.metrics["seq"].to_pylist()]
        seqs += [(gap.seq, sum(gap.dropped.values())) for gap in batch.gaps]
    producer._settle()
    batch = ring.drained()
    seqs += [(gap.seq, sum(gap.dropped.values())) for gap in batch.gaps]
    dropped = producer._counts()["dropped"]["full"]
    assert len(found) + dropped == offered, "I4"
    assert found == sorted(found), "I3: in order"
    assert len(found) % row == 0, "I3: a unit is whole or absent"
    expected = 0
    for seq, count in sorted(seqs):
        assert seq == expected
        expected += count
    assert expected == offered, "metrics and gaps number the lane 0 … n"
    assert all(head == tail for _, head, tail, _ in producer._positions()), "I2"


def test_a_row_whose_header_is_missing_is_never_seen_and_its_place_is_used_again(ring: Ring) -> None:
    ring.begin()
    late = ring.producer()
    late.log("x", 0.0, 0)
    late.log({"a": 1.0, "b": 2.0, "c": 3.0}, 1)
    header = ring.slot_at(0, OWNER_SLOTS + 1)
    ring.poke(header + 24, b"\0" * 8)  # as if it had been killed before the last store
    assert values(ring.drained()) == [0.0]
    late._leave()
    heir = ring.producer()
    heir.log("y", 9.0, 9)
    batch = ring.drained()
    assert values(batch) == [9.0], "I3: the slots of a unit without its header read as uncommitted"
    assert batch.metrics["seq"].to_pylist() == [1]
    heir.log("y", 10.0, 10)
    assert values(ring.drained()) == [10.0], "I2: the drain has not gone past the heir"


NUMBERS = st.floats() | st.integers(-(2**63), 2**63 - 1)


@given(
    rows=st.lists(st.dictionaries(st.sampled_from("abcdefgh"), NUMBERS | st.booleans() | st.just("text"), min_size=1))
)
def test_a_dict_is_the_same_whichever_way_it_takes(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """Numbers alone take a fast path, other values a slow one."""
    ring = Ring(tmp_path_factory.mktemp("ring"))
    ring.begin()
    producer, expected, found = ring.producer(), [], []
    for step, row in enumerate(rows):
        producer.log(row, step)
        expected += [(step, name, type(value), repr(value)) for name, value in row.items()]
        table = ring.drained().metrics
        found += [(r["step"], r["name"], type(v := _value(r)), repr(v)) for r in table.to_pylist()]
    assert found == expected, "I3"
    assert producer._counts()["logged"] == len(expected), "I4"


def _value(record: dict[str, Any]) -> Any:
    kind = record["kind"]
    whole = record["int_value"]
    return {"float": record["value"], "int": whole, "bool": bool(whole), "text": record["text"]}[kind]


def test_a_dict_with_one_value_that_is_no_number_is_whole_or_absent(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    producer.log("x", 0.0, 0)
    with pytest.raises(TypeError, match="must be a float"):
        producer.log({"a": 1.0, "b": 2.0, "c": object()}, 1)
    with pytest.raises(OverflowError):
        producer.log({"a": 1.0, "b": 2.0, "c": 2**63}, 1)
    with pytest.raises(UnicodeEncodeError):
        producer.log({"a": 1.0, "\ud800": 2.0}, 1)
    assert values(ring.drained()) == [0.0], "I3: slots without their header don't exist"
    producer.log("y", 9.0, 9)
    assert values(ring.drained()) == [9.0]


def test_a_dict_of_numbers_counts_what_finds_no_name(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    for i in range(20_000):
        producer._intern(f"name{i}")
    producer.log({"name0": 1.0, "too late": 2.0, "name1": 3}, 0)
    assert producer._counts()["dropped"]["names"] == 1, "I4"
    assert values(ring.drained()) == [1.0, 3.0]


def test_lanes_are_made_before_they_are_needed(ring: Ring) -> None:
    ring.segment.keep_spares(1)
    ring.segment.keep_spares(1)
    assert [ring.segment.lane(i)["allotted"] for i in range(3)] == [True, False, False]
    producers = [ring.producer() for _ in range(3)]
    ring.begin()
    for number, producer in enumerate(producers):
        producer.log("x", float(number), 0)
        ring.segment.keep_spares(2)
    assert values(ring.drained()) == [0.0, 1.0, 2.0]
    assert [producer._counts()["lane"] for producer in producers] == [0, 1, 2], "I7"
    ring.segment.keep_spares(2)  # there is none left to make


def test_a_lane_that_somebody_just_takes_is_no_spare(ring: Ring) -> None:
    producer = ring.producer()
    assert producer._allot() == 0
    other = _core.Segment.open(os.open(ring.path, os.O_RDWR), str(ring.path))
    assert other.lock(_core.LOCK_LANE + 1)
    ring.segment.keep_spares(3)
    assert [ring.segment.lane(i)["allotted"] for i in range(3)] == [True, False, True], "I7: its lock is respected"


def test_the_next_owner_continues_at_the_first_uncommitted_slot(ring: Ring) -> None:
    ring.begin()
    first = ring.producer()
    for i in range(5):
        first.log("x", float(i), i)
    first._leave()
    second = ring.producer()
    second.log("x", 5.0, 5)
    assert second._counts()["lane"] == 0
    batch = ring.drained()
    assert values(batch) == [float(i) for i in range(6)]
    assert sorted(batch.counts) == [(0, 1), (0, 2)]


def test_an_heir_that_has_no_room_to_say_who_it_is_drops(tmp_path: Path) -> None:
    ring = Ring(tmp_path, lanes=1)
    ring.begin()
    first = ring.producer()
    kept = SLOTS - OWNER_SLOTS - 1
    for i in range(kept):
        first.log("x", float(i), i)
    first._leave()
    heir = ring.producer()
    heir.log("y", -1.0, 0)
    assert heir._counts()["dropped"]["full"] == 1, "there is one slot"
    assert values(ring.drained()) == [float(i) for i in range(kept)], "I2: nothing is overwritten"
    heir.log("y", -2.0, 0)
    assert values(ring.drained()) == [-2.0]


def test_a_lane_is_given_on_whose_owner_was_killed_before_it_counted_a_drained_record(ring: Ring) -> None:
    ring.begin()
    killed = ring.producer()
    killed.log("x", 0.0, 0)
    killed._leave()
    ring.poke(_lane_header(ring, 0), OWNER_SLOTS.to_bytes(8, "little"))
    ring.drained()
    heir = ring.producer()
    assert heir._allot() == 0, "P1: head is a hint, and may be behind tail"


def test_a_lane_whose_owner_lives_is_not_given_on(ring: Ring) -> None:
    producers = [ring.producer() for _ in range(4)]
    assert [producer._allot() for producer in producers[:3]] == [0, 1, 2], "I7"
    with pytest.raises(OSError, match="unavailable"):
        producers[3]._allot()
    producers[1]._leave()
    assert producers[3]._allot() == 1


def test_drops_of_a_dead_owner_are_told_by_the_next(ring: Ring) -> None:
    ring.begin()
    late = ring.producer()
    for i in range(SLOTS + 5):
        late.log("x", float(i), i)
    late._leave()
    ring.drained()
    heir = ring.producer()
    heir.log("y", 1.0, 1)
    batch = ring.drained()
    assert [(gap.dropped, gap.tenancy) for gap in batch.gaps] == [({"full": 7}, 1)]


def test_settle_tells_the_drops_of_owners_that_nobody_followed(ring: Ring) -> None:
    ring.begin()
    late = ring.producer()
    for i in range(SLOTS + 5):
        late.log("x", float(i), i)
    late._leave()
    ring.drained()
    ring.segment.cut_all()
    assert not ring.drain.finalize()
    frames = ring.drain.frames
    assert ring.drain.settle() == 0
    assert ring.drain.frames == frames + 1
    assert [gap.dropped for gap in ring.drained().gaps] == [{"full": 7}]
    assert ring.drain.settle() == 0
    assert ring.drain.frames == frames + 1, "I6: once more changes nothing"


# ---- names ----


def test_the_same_name_has_the_same_id_in_every_process(ring: Ring) -> None:
    ring.begin()
    first, second = ring.producer(), ring.producer()
    first.log("x", 1.0, 1)
    second.log("x", 2.0, 2)
    second.log("y", 3.0, 3)
    batch = ring.drained()
    assert sorted(batch.metrics["name"].to_pylist()) == ["x", "x", "y"]
    assert len(batch.metrics["name"].combine_chunks().dictionary) == 2


def test_a_new_log_defines_every_name_again(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    producer.log("x", 1.0, 1)
    ring.drained()
    assert ring.drain.next_log() == 0
    producer.log("x", 2.0, 2)
    assert ring.drain.drain_pass() == (0, 1)
    path = ring.logs / "000001.wal"
    frames = [found for found in scan(path.read_bytes(), path=path, log=1, run_id=None) if isinstance(found, Frame)]
    assert frames[0].names == {0: "x"}, "I5"
    batch = Decoder(ring.folder).decode(frames)
    assert batch.metrics["name"].to_pylist() == ["x"]
    assert batch.owner_of[0, 1] == {"pid": 7, "rank": None}, "owners are repeated too"


# ---- a restart, errors ----


def test_a_failed_write_takes_nothing_from_the_lanes(ring: Ring) -> None:
    producer = ring.producer()
    producer.log("x", 1.0, 1)
    error, _ = ring.drain.drain_pass()  # no log is open
    assert error != 0
    assert positions(producer)[1] == 0, "I2: tail never passes what is in the log"
    ring.begin()
    ring.drained()
    assert positions(producer)[1] == OWNER_SLOTS + 1


def test_what_lies_where_the_next_log_would_go_is_left_alone(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    producer.log("x", 1.0, 1)
    assert ring.drain.drain_pass() == (0, OWNER_SLOTS + 1)
    others = [ring.logs / f"{number:06}.wal" for number in (1, 2)]
    for other in others:
        other.write_bytes(b"another's")
    producer.log("x", 2.0, 2)
    assert ring.drain.next_log() == 0
    assert [other.read_bytes() for other in others] == [b"another's"] * 2
    assert ring.drain.closed_below == 3
    assert values(ring.decoder.decode(ring.frames(0) + ring.frames(3))) == [1.0, 2.0]


def test_a_drain_restored_from_its_log_goes_on_without_gap_or_duplicate(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    for i in range(10):
        producer.log("x", float(i), i)
    ring.drained()
    for i in range(10, 15):
        producer.log("x", float(i), i)
    cursor = ring.decoder.cursors[0]
    ring.drain = ring.new_drain(1)
    ring.drain.restore(0, cursor.position, cursor.seq, cursor.tenancy, tuple(cursor.gapped), cursor.owner_json)
    assert ring.drain.next_log() == 0
    batch = ring.decoder.decode(ring.frames(1))
    assert values(batch) == [float(i) for i in range(10, 15)]
    assert batch.metrics["seq"].to_pylist() == list(range(10, 15))


def test_what_is_in_the_log_is_not_drained_again_though_tail_is_behind(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    for i in range(5):
        producer.log("x", float(i), i)
    ring.drained()
    ring.poke(_lane_header(ring, 0) + TAIL, bytes(8))  # as if the flusher had been killed behind its write
    assert positions(producer)[1] == 0
    ring.drain = ring.new_drain(1)
    closing.restore_cursors(ring.drain, ring.segment, RunLayout(ring.folder))
    assert positions(producer)[1] == OWNER_SLOTS + 5, "I2: tail follows what is durable"
    assert ring.drain.next_log() == 0
    path = ring.logs / "000001.wal"
    batch = ring.decoder.decode(
        [f for f in scan(path.read_bytes(), path=path, log=1, run_id=None) if isinstance(f, Frame)]
    )
    assert values(batch) == [], "I6: no record twice"


def test_a_log_that_has_lost_its_end_does_not_move_tail_back(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    producer.log("x", 0.0, 0)
    ring.drained()
    log = ring.logs / "000000.wal"
    kept = log.read_bytes()
    for i in range(40):
        producer.log("x", -1.0, i)
    ring.drained()
    for i in range(40):  # over the first ones, which were given back
        producer.log("x", float(i), i)
    log.write_bytes(kept)
    ring.drain = ring.new_drain(1)
    closing.restore_cursors(ring.drain, ring.segment, RunLayout(ring.folder))
    assert ring.drain.next_log() == 0
    path = ring.logs / "000001.wal"
    batch = ring.decoder.decode(
        [f for f in scan(path.read_bytes(), path=path, log=1, run_id=None) if isinstance(f, Frame)]
    )
    assert values(batch) == [float(i) for i in range(40)], "I2: behind tail nothing is taken"


def test_drops_told_in_a_frame_that_is_lost_are_told_again(ring: Ring) -> None:
    """They are dropped and not lost, whatever became of the frame."""
    ring.begin()
    producer = ring.producer()
    producer.log("x", 0.0, 0)
    ring.drained()
    for step in range(3 * SLOTS):
        producer.log("x", 0.0, step)
    ring.drained()
    producer.log("x", 0.0, 0)  # behind a GAP
    ring.drained()
    dropped = sum(producer._counts()["dropped"].values())
    log = ring.logs / "000000.wal"
    log.write_bytes(log.read_bytes()[: ring.frames(0)[-1].offset])
    ring.drain = ring.new_drain(1)
    closing.restore_cursors(ring.drain, ring.segment, RunLayout(ring.folder))
    offered = ring.drain.offered()[0]
    assert offered == 1 + 3 * SLOTS + 1 - dropped, "the GAP is yet to be told"
    ring.segment.cut_all()
    assert ring.drain.next_log() == 0
    ring.drain.finalize()
    assert ring.drain.settle() == 0
    assert ring.drain.offered()[0] == offered + dropped


def test_what_a_frame_defines_stands_in_the_next_one_too(ring: Ring) -> None:
    """Names and owners, so that one damaged frame costs the others nothing; and then no more."""
    producers = [ring.producer() for _ in range(2)]
    for producer in producers:
        producer.log("x", 0.0, 0)
    ring.begin()
    for name in ("x", "y", "x"):
        for producer in producers:
            producer.log(name, 0.0, 0)
        ring.drained()
    defined = [sorted(frame.names.values()) for frame in ring.frames(0)]
    assert defined == [["x"], ["x"], ["y"], ["y"]]
    assert [sorted(frame.owners) for frame in ring.frames(0)] == [[], [0, 1], [], []]
    assert [len(frame.lanes) for frame in ring.frames(0)] == [2, 2, 2, 2]
    assert ring.drain.next_log() == 0
    producers[0].log("z", 0.0, 0)
    assert ring.drain.drain_pass() == (0, 1)
    producers[0].log("z", 0.0, 0)
    assert ring.drain.drain_pass() == (0, 1)
    names = [sorted(frame.names.values()) for frame in ring.frames(1)]
    assert names == [["x", "y"], ["x", "y", "z"], ["z"]]
    assert [sorted(frame.owners) for frame in ring.frames(1)] == [[0, 1], [0, 1], []]


def test_sync_answers_the_request(ring: Ring) -> None:
    ring.begin()
    producer = ring.producer()
    producer.log("x", 1.0, 1)
    ring.drained()
    assert positions(producer)[2] == 0
    assert ring.drain.sync() == 0
    assert positions(producer)[2] == OWNER_SLOTS + 1


def test_a_drain_that_may_open_no_further_log_lets_the_lanes_fill_and_answers_flushes(ring: Ring) -> None:
    """What is not sealed must not fill the disk (P4); I2 and I4 hold meanwhile."""
    ring.drain.limit(1)
    thread = threading.Thread(target=ring.drain.run, args=(1,))  # each log is full with its first frame
    thread.start()
    producer = ring.producer()
    try:
        wait_until(lambda: ring.drain.log_bytes > 0, "the first log")
        for i in range(3 * SLOTS):
            producer.log("x", float(i), i)
        producer._request_sync()
        wait_until(lambda: positions(producer)[2] >= positions(producer)[1], "the fsync")
        assert [log.name for log in ring.logs.iterdir()] == ["000000.wal"]
        dropped = producer._counts()["dropped"]["full"]
        assert 2 * SLOTS <= dropped < 3 * SLOTS, "the producer drops and counts"
        ring.drain.limit(1000)
        wait_until(lambda: positions(producer)[1] == positions(producer)[0], "the drain goes on")
    finally:
        ring.drain.stop()
        thread.join()
    frames = [frame for number in range(len(list(ring.logs.iterdir()))) for frame in ring.frames(number)]
    assert values(ring.decoder.decode(frames)) == [float(i) for i in range(3 * SLOTS - dropped)], "I3"


def test_a_rotation_is_not_held_up_by_a_producer_that_never_pauses(tmp_path: Path) -> None:
    """What is logged after a finish was asked for is not waited for."""
    lane = 1 << 20  # is filled faster than it is drained, and holds four frames: each pass leaves some
    ring = Ring(tmp_path, lanes=16, slots=lane, policy=shm.DropPolicy(wait=True, max_wait_s=10.0, strict=False))
    drain, metric = threading.Thread(target=ring.drain.run, args=(1 << 40,)), ring.producer().metric("x")
    values, stop = array("d", bytes(8 << 14)), threading.Event()

    def log() -> None:
        while not stop.is_set():
            metric.extend(values)

    producer = threading.Thread(target=log)
    drain.start()
    producer.start()
    try:
        wait_until(lambda: ring.drain.slots > lane, "a lap")
        asked, slots = ring.drain.rotate(), ring.drain.slots
        wait_until(lambda: ring.drain.rotated >= asked, "the rotation")
    finally:
        stop.set()
        producer.join()
        ring.drain.stop()
        drain.join()
    closed = (ring.logs / "000000.wal").stat().st_size // SLOT
    assert closed < slots + 3 * lane, "one lap is in the lane, one may be drained between request and answer"


@pytest.mark.skipif(sys.platform != "linux", reason="needs sched_setaffinity")
def test_a_producer_that_never_pauses_is_drained_in_few_frames(tmp_path: Path) -> None:
    """There are two frames between two naps of a millisecond, and the first of the log."""
    ring = Ring(tmp_path, lanes=1, slots=1 << 18)  # no look finds so much that it is busy
    producer = ring.producer()
    thread = threading.Thread(target=ring.drain.run, args=(1 << 40,))
    thread.start()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # else one core may be given to both, and then no two looks find anything
    os.sched_setaffinity(thread.native_id, {max(cores)})
    log, most = producer.metric("x").log, 0.0
    for _ in range(1_000):
        begun, frames = time.monotonic(), ring.drain.frames
        for step in range(1_000):
            log(float(sum(range(10))), step)
        most = max(most, ring.drain.frames - frames - 2 * (time.monotonic() - begun) * 1e3)
    os.sched_setaffinity(0, cores)
    ring.drain.stop()
    thread.join()
    assert most <= 3, "frames beyond two a millisecond"


def test_who_starts_a_flusher_beside_one_that_runs_does_not_make_it_look_as_if_it_started(ring: Ring) -> None:
    """It may have looked for one before that came up, and said so after it."""
    thread = threading.Thread(target=ring.drain.run, args=(1 << 40,))
    thread.start()
    try:
        wait_until(lambda: ring.segment.flusher_state == 1, "the drain to run")
        for _ in range(3):
            ring.segment.mark_started(ring.segment.mark_starting())
            wait_until(lambda: ring.segment.flusher_state == 1, "the drain to say again that it runs")
    finally:
        ring.drain.stop()
        thread.join()


def test_the_logs_that_may_wait_are_a_share_of_the_free_disk() -> None:
    assert unsealed_logs_max(0) == 4
    assert unsealed_logs_max(1 << 40) == (1 << 40) // 8 // LOG_BYTES_MAX


# ---- hostile bytes ----


def _commit(position: int, name: int, kind: int, flags: int = 0) -> bytes:
    return ((position // SLOTS + 1) << 32 | name << 8 | kind << 3 | flags).to_bytes(8, "little")


DAMAGES = {
    "no kind": (0, 0),
    "an unknown kind": (20, 0),
    "a name that is not defined": (1, 0),
    "an event longer than the lane": (7, 2**32 * 100_000 + 5000),
    "an event without its slots": (7, 2**32 * 24 + 2),
    "an event of no slots": (7, 0),
    "an event of 4 GiB in one slot": (7, 2**32 * (2**32 - 1) + 1),
    "a row of nothing": (6, 1),
    "a row without its records": (6, 2**32 * 3 + 4),
    "an owner that is too long": (8, 2**32 * 600 + 26),
    "a gap of one slot": (9, 1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_lane_affects_only_itself(ring: Ring, damage: str) -> None:
    ring.begin()
    victim, other = ring.producer(), ring.producer()
    victim.log("x", 1.0, 1)
    other.log("x", 2.0, 2)
    kind, value = DAMAGES[damage]
    position = OWNER_SLOTS + 1
    offset = ring.slot_at(0, position)
    ring.poke(offset + 8, value.to_bytes(8, "little"))
    name = 9999 if damage == "a name that is not defined" else 0
    ring.poke(offset + 24, _commit(position, name, kind))
    assert sorted(values(ring.drained())) == [1.0, 2.0]
    assert ring.segment.lane(0)["damaged"], "I10: and the report names it"
    other.log("x", 3.0, 3)
    assert values(ring.drained()) == [3.0]
    late = ring.producer()
    victim._leave()
    assert late._allot() == 2, "a damaged lane is given to nobody"


def test_a_whole_unit_that_is_larger_than_any_is_damage(ring: Ring) -> None:
    ring.begin()
    victim = ring.producer()
    victim.log("x", 1.0, 1)
    slots, header = SLOTS // 4 + 1, OWNER_SLOTS + 1
    for position in range(header + 1, header + slots):
        ring.poke(ring.slot_at(0, position) + 24, _commit(position, 0, kind=31, flags=1))
    ring.poke(ring.slot_at(0, header) + 8, ((slots - 1) * 24 << 32 | slots).to_bytes(8, "little"))
    ring.poke(ring.slot_at(0, header) + 24, _commit(header, 0, kind=7))
    assert values(ring.drained()) == [1.0]
    assert ring.segment.lane(0)["damaged"], "I10: no frame may have room for it, and the drain tries for ever"


ODD_GAPS = {
    "a GAP with a count beyond all": (9, 0, struct.pack("<6Q", 1, 0, 2**56 + 1, 0, 0, 0)),
    "a GAP with a flag": (9, 2, struct.pack("<6Q", 1, 0, 0, 0, 0, 0)),
    "an OWNER with a flag": (8, 2, b'{"pid":8,"rank":null}'.ljust(48)),
}


@pytest.mark.parametrize("unit", ODD_GAPS)
def test_what_no_reader_would_believe_is_damage_to_the_drain(ring: Ring, unit: str) -> None:
    """I10: the numbers of the lane's later records would make no sense to any."""
    kind, flags, data = ODD_GAPS[unit]
    ring.begin()
    ring.producer().log("x", 1.0, 1)
    header = OWNER_SLOTS + 1
    for half in range(2):
        ring.poke(ring.slot_at(0, header + 1 + half), data[24 * half : 24 * half + 24])
        ring.poke(ring.slot_at(0, header + 1 + half) + 24, _commit(header + 1 + half, 0, kind=31, flags=1))
    ring.poke(ring.slot_at(0, header) + 8, (48 << 32 | 3).to_bytes(8, "little"))
    ring.poke(ring.slot_at(0, header) + 24, _commit(header, 0, kind, flags))
    batch = ring.drained()
    assert (values(batch), batch.damage) == ([1.0], []), "it is not in the log"
    assert ring.segment.lane(0)["damaged"], "I10: and the report names it"


def test_whoever_has_opened_a_segment_goes_by_what_its_header_said_then(ring: Ring) -> None:
    ring.begin()
    ring.poke(8, b"\x7f" * 2168)
    child = os.fork()  # what goes wrong ends a process
    if child == 0:
        producer = ring.producer()
        producer.log("x", 1.0, 1)
        os._exit(0 if producer._counts()["lane"] == 0 and values(ring.drained()) == [1.0] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "I11: a process left the lane"


@given(data=st.binary(min_size=SLOTS * SLOT, max_size=SLOTS * SLOT), laps=st.booleans())
def test_no_bytes_in_a_lane_make_the_drain_fail(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, laps: bool
) -> None:
    ring = Ring(tmp_path_factory.mktemp("ring"))
    ring.begin()
    ring.producer().log("x", 1.0, 1)
    noise = bytearray(data)
    if laps:  # make the slots look committed, so that more than the lap is looked at
        for position in range(SLOTS):
            noise[position * SLOT + 28 : position * SLOT + 32] = (1).to_bytes(4, "little")
    ring.poke(ring.slot_at(0, 0), bytes(noise))
    ring.drained()
    ring.drained()


# ---- small things ----


@given(data=st.binary(max_size=300), start=st.integers(0, 2**32 - 1))
def test_crc32_is_zlibs(data: bytes, start: int) -> None:
    assert _bulk.crc32(data) == zlib.crc32(data)
    assert _bulk.crc32(data, start) == zlib.crc32(data, start)


@given(script=st.text(max_size=200), worker=st.none() | st.integers(0, 2**63 - 1))
def test_an_owner_record_is_json_whatever_the_script_is_called(script: str, worker: int | None) -> None:
    record = _core.owner_record(2**62, None, worker, script.replace("\0", ""))
    assert len(record) <= _core.OWNER_BYTES_MAX
    owner = json.loads(record)
    assert list(owner) == ["pid", "rank", "local_rank", "worker", "host", "process", "started_ns"]
    assert (owner["pid"], owner["rank"], owner["worker"]) == (os.getpid(), 2**62, worker)
    printable = re.sub("[\x00-\x1f\x7f]", " ", script.replace("\0", "").encode("utf-8", "replace").decode())
    assert printable.startswith(owner["process"])


def test_an_owner_record_takes_its_ranks_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHMLOG_RANK", "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "-1")  # no number
    monkeypatch.setenv("PMI_RANK", "12")
    monkeypatch.setenv("SLURM_LOCALID", "3")
    owner = json.loads(_core.owner_record(None, None, None, "x"))
    assert (owner["rank"], owner["local_rank"], owner["worker"]) == (12, 3, None)


def test_a_producer_joins_once(ring: Ring) -> None:
    producer = ring.producer()
    with pytest.raises(RuntimeError, match="joined before"):
        producer._join(ring.segment, str(ring.path), True, 0)


def test_a_producer_that_has_left_drops_and_counts(ring: Ring) -> None:
    producer = ring.producer()
    metric = producer.metric("x")
    producer._leave()
    metric(1.0, 1)
    metric.extend([1.0, 2.0])
    producer.log({"a": 1, "b": 2})
    producer._put_event("e", b"{}")
    assert producer._counts()["dropped"]["closed"] == 6
    assert ring.segment.unlaned["closed"] == 0, "they are late, whatever the flusher has booked by then"


def test_a_segment_cannot_be_joined_while_it_is_closed(ring: Ring) -> None:
    assert ring.segment.lock(_core.LOCK_MEMBER)
    with pytest.raises(OSError, match="unavailable"):
        ring.producer()
    ring.segment.unlock(_core.LOCK_MEMBER)
    ring.segment.cut_all()
    with pytest.raises(OSError, match="unavailable"):
        ring.producer()


def test_the_member_lock_is_held_as_long_as_any_producer_lives(ring: Ring) -> None:
    first, second = ring.producer(), ring.producer()
    assert ring.segment.probe(_core.LOCK_MEMBER)
    first._leave()
    assert ring.segment.probe(_core.LOCK_MEMBER)
    second._leave()
    assert not ring.segment.probe(_core.LOCK_MEMBER)


def test_a_forked_child_takes_no_lock_from_its_parent(ring: Ring) -> None:
    parent = ring.producer()
    assert parent._allot() == 0
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert ring.segment.probe(_core.LOCK_MEMBER), "I7: the parent is attached"
    assert ring.producer()._allot() == 1, "I7: and has its lane"


def test_a_child_that_is_forked_while_a_flusher_is_started_is_not_taken_for_one(ring: Ring) -> None:
    """Else nobody would start another, as long as the child lives."""
    producer = ring.producer()
    lock = ring.segment.mark_starting()
    assert ring.segment.flusher_lives
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    ring.segment.mark_started(lock)
    wait_until(lambda: not ring.segment.flusher_lives, "I9: no flusher to be starting", 5)
    assert producer._is_member
    os.close(write_end)
    assert os.waitpid(child, 0)[1] == 0


def test_a_program_that_was_started_holds_no_lock(ring: Ring) -> None:
    producer = ring.producer()
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, close_fds=False):
        producer._leave()
        # Its descriptors are closed one by one while it is being started.
        wait_until(lambda: not ring.segment.probe(_core.LOCK_MEMBER), "P8: nobody to be attached", 5)


def test_a_forked_child_that_lives_on_holds_no_lock_of_its_parent(ring: Ring) -> None:
    parent = ring.producer()
    assert parent._allot() == 0
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    parent._leave()
    wait_until(lambda: not ring.segment.probe(_core.LOCK_MEMBER), "P1: nobody to be attached", 5)
    assert ring.producer()._allot() == 0, "P1: the lane is free"
    os.close(write_end)
    assert os.waitpid(child, 0)[1] == 0


def close_all_of(path: Path) -> list[int]:
    """Close the descriptors of a file, as programs do with all that they don't know; return their numbers."""
    descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    closed = [fd for fd in descriptors if os.path.realpath(f"/proc/self/fd/{fd}") == str(path)]
    for fd in closed:
        os.close(fd)
    return closed


def test_a_lane_is_its_owners_after_the_program_has_closed_its_descriptor(ring: Ring) -> None:
    ring.begin()
    first = ring.producer()
    assert first._allot() == 0
    assert len(close_all_of(ring.path)) == 2
    assert ring.segment.probe(_core.LOCK_MEMBER), "P1: it is attached"
    second = ring.producer()  # its descriptor has the number that the first one's had
    assert second._allot() == 1, "I7: a lane is given on while its owner can still write"
    first.log("x", 1.0, step=1)
    second.log("x", 2.0, step=1)
    assert values(ring.drained()) == [1.0, 2.0]
    first._leave()
    third = ring.producer()
    assert third._allot() == 0, "P2: a lane that was given back is given on"
    assert ring.producer()._allot() == 2, "I7: the second one's lock went with the first one's"
    second.log("x", 3.0, step=2)
    assert values(ring.drained()) == [3.0]


def test_files_of_the_program_under_the_numbers_of_ours_are_left_alone(ring: Ring, tmp_path: Path) -> None:
    producer = ring.producer()
    closed = close_all_of(ring.path)
    files = [os.open(tmp_path / f"{fd}", os.O_RDWR | os.O_CREAT) for fd in closed]
    assert files == closed
    assert producer._allot() == 0
    child = os.fork()
    if child == 0:
        lane = -10
        try:
            lane = producer._allot()
        finally:
            os._exit(10 + lane)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11, "I7: a forked child takes the next lane"
    assert ring.producer()._allot() == 1
    producer._leave()
    ring.segment.probe(_core.LOCK_FLUSHER)
    del producer
    for fd in files:
        assert os.fstat(fd).st_size == 0, "P7: a file of the program was made longer"
        again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        found = fcntl.fcntl(again, fcntl.F_OFD_GETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        assert struct.unpack("hhqqi4x", found)[0] == fcntl.F_UNLCK, "P7: a file of the program is locked"
        os.close(again)
        os.close(fd)


def test_without_a_descriptor_and_a_segment_to_open_it_drops_and_counts(ring: Ring) -> None:
    producer = ring.producer()
    close_all_of(ring.path)
    ring.path.rename(ring.folder / "elsewhere")
    ring.path.touch()
    producer.log("x", 1.0, step=1)
    assert producer._counts()["dropped"]["lane"] == 1
    assert ring.segment.unlaned["lane"] == 1


def test_a_producer_without_a_lane_sees_at_once_that_the_run_is_closed(tmp_path: Path) -> None:
    ring = Ring(tmp_path, lanes=1)
    owner, producer = ring.producer(), ring.producer()
    owner._allot()
    producer.log("x", 1.0, step=1)
    ring.segment.cut_all()
    producer.log("x", 2.0, step=2)
    dropped = producer._counts()["dropped"]
    assert (dropped["lane"], dropped["closed"]) == (1, 1), "I4: nobody reads what is counted in the segment any more"
    assert ring.segment.unlaned["lane"] == 1


@pytest.mark.parametrize(("lanes", "slots"), [(0, 64), (1, 63), (1, 32), (5000, 64), (1, 2**27)])
def test_an_impossible_geometry_is_refused(tmp_path: Path, lanes: int, slots: int) -> None:
    fd = os.open(tmp_path / "segment", os.O_RDWR | os.O_CREAT, 0o600)
    with pytest.raises(OSError, match="lanes must be"):
        _core.Segment.create(fd, "segment", run_id="run", run_dir="", lanes=lanes, lane_slots=slots, clock=0)
    os.close(fd)


def test_handles_and_their_producer_form_no_leak(ring: Ring) -> None:
    import gc
    import weakref

    producer: Any = ring.producer()
    producer.metric("x")
    gone = weakref.ref(producer)
    del producer
    gc.collect()
    assert gone() is None
    assert not ring.segment.probe(_core.LOCK_MEMBER)


def test_shared_memory_objects_are_removed_with_their_doorbell(tmp_path: Path) -> None:
    placed = shm.create("run", tmp_path, lanes=1, lane_records=64, clock="auto", private=tmp_path / "segment")
    ref = SegmentRef(placed.name, placed.path)
    assert shm.open_segment(ref).run_id == "run"
    shm.unlink(ref)
    shm.unlink(ref)
    with pytest.raises(FileNotFoundError):
        shm.open_segment(ref)
