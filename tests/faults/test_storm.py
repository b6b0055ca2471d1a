"""Producers are killed at random times under load: FAULTS 21 and 36, promise P2."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.faults.arena import Arena
from tests.faults.stepping import compile_storm
from tests.support.frames import DATA, EVENT, FLOAT, GAP, MEMBER, OWNER, ROW
from tests.support.slots import Books, Lane
from tests.support.tools import need

LANES, LANE_SLOTS = 6, 1024
AT_WORK = 3
ROW_RECORDS, EVENT_BYTES, EVENT_SLOTS = 3, 100, 6
LOG_BYTES = 16 << 20
SLOT = np.dtype([("ts", "<u8"), ("value", "<u8"), ("step", "<u8"), ("commit", "<u8")])
HASH = np.uint64(0x9E3779B97F4A7C15)
EVENT_DATA = np.frombuffer((b"e" * EVENT_BYTES).ljust((EVENT_SLOTS - 1) * 24, b"\0"), "<u8").reshape(-1, 3)
KINDS = np.array([FLOAT] * 64)
KINDS[33] = EVENT
KINDS[7::16] = ROW
WEIGHTS = np.where(KINDS == ROW, ROW_RECORDS, 1)

Numbers = NDArray[Any]


class StormBooks(Books):
    """The books of a log that only storm.c has written. Whole arrays are checked: there are millions of slots."""

    def __init__(self, producers: int) -> None:
        super().__init__(LANE_SLOTS)
        self.found = np.zeros(producers, np.int64)
        """Records on disk, by producer."""
        self.last = np.full(producers, -1)
        """The last call on disk, by producer."""
        self.last_ts: dict[int, int] = {}

    def take_slots(self, number: int, lane: Lane, raw: bytes) -> None:
        slots = np.frombuffer(raw, SLOT)
        if not len(slots):
            return
        commit = slots["commit"]
        laps = (lane.position + np.arange(len(slots))) // LANE_SLOTS + 1
        assert (commit >> 32 == laps).all(), f"I1: lane {number} has a slot of another lap"
        kinds = commit >> 3 & 31
        heads = np.flatnonzero(commit & MEMBER == 0)
        sizes = np.where(kinds[heads] == FLOAT, 1, slots["value"][heads] & 0xFFFFFFFF)
        ends = np.append(heads[1:], len(slots))
        assert heads[0] == 0, f"I3: lane {number} begins in the middle of a unit"
        assert (heads + sizes == ends).all(), f"I3: lane {number} has a torn unit"
        self._check_times(number, slots["ts"][heads])
        self._check_units(slots, kinds, heads)
        self._take_tenancies(number, lane, slots, kinds, heads)
        lane.position += len(slots)

    def _check_times(self, number: int, ts: Numbers) -> None:
        assert (np.diff(ts.astype(np.int64)) >= 0).all(), f"I3: times of lane {number} go back"
        assert ts[0] >= self.last_ts.get(number, 0), f"I3: times of lane {number} go back"
        self.last_ts[number] = int(ts[-1])

    def _check_units(self, slots: Numbers, kinds: Numbers, heads: Numbers) -> None:
        scalars = heads[kinds[heads] == FLOAT]
        assert (slots["value"][scalars] == slots["step"][scalars] * HASH).all(), "I3: a torn record"
        rows = heads[kinds[heads] == ROW]
        assert (slots["value"][rows] >> 32 == ROW_RECORDS).all(), "I3: a row of another length"
        members = rows[:, None] + np.arange(1, ROW_RECORDS + 1)
        steps = slots["step"][rows][:, None]
        assert (kinds[members] == FLOAT).all(), "I3: a row of other records"
        assert (slots["step"][members] == steps).all(), "I3: a torn row"
        assert (slots["value"][members] == steps * HASH).all(), "I3: a torn row"
        events = heads[kinds[heads] == EVENT]
        assert (slots["value"][events] == EVENT_SLOTS | EVENT_BYTES << 32).all(), "I3: an event of another length"
        data = events[:, None] + np.arange(1, EVENT_SLOTS)
        assert (kinds[data] == DATA).all(), "I3: a torn event"
        payload = np.stack([slots[field][data] for field in ("ts", "value", "step")], axis=-1)
        assert (payload == EVENT_DATA).all(), "I3: a torn event"

    def _take_tenancies(self, number: int, lane: Lane, slots: Numbers, kinds: Numbers, heads: Numbers) -> None:
        """Take the calls owner by owner."""
        marks = [int(head) for head in heads[np.isin(kinds[heads], [OWNER, GAP])]]
        for mark, end in zip([None, *marks], [*marks, len(slots)], strict=True):
            if mark is not None:
                data = range(mark + 1, mark + int(slots["value"][mark] & 0xFFFFFFFF))
                payload = b"".join(slots[field][i].tobytes() for i in data for field in SLOT.names[:3])
                if kinds[mark] == OWNER:
                    lane.begin(number, payload[: int(slots["value"][mark] >> 32)])
                else:
                    lane.tell(payload)
            calls = heads[(heads >= (mark or 0)) & (heads < end)]
            calls = calls[np.isin(kinds[calls], [FLOAT, ROW, EVENT])]
            if len(calls):
                self._take_calls(lane, slots["step"][calls], kinds[calls])

    def _take_calls(self, lane: Lane, steps: Numbers, kinds: Numbers) -> None:
        producer = int(lane.tenancies[-1].owner)
        calls = (steps & 0xFFFFFFFF).astype(np.int64)
        assert (steps >> 32 == producer).all(), f"I7: a record of another producer in the tenancy of {producer}"
        assert (kinds == KINDS[calls % 64]).all(), f"I3: producer {producer} has calls of another kind"
        assert (np.diff(calls, prepend=self.last[producer]) > 0).all(), f"I3: producer {producer}'s calls go back"
        records = int(WEIGHTS[calls % 64].sum())
        self.found[producer] += records
        self.last[producer] = calls[-1]
        lane.seq += records


def offered(calls: Numbers) -> Numbers:
    """Return the records that so many calls log."""
    return calls + (calls + 8) // 16 * (ROW_RECORDS - 1)


def check_accounts(books: StormBooks, returned: Numbers, dropped: Numbers) -> None:
    """Assert I4: of each producer, at most the call it was in is missing."""
    booked = books.found + dropped
    short = np.flatnonzero(booked < offered(returned))
    assert not len(short), f"I4: of producer {short[0]} are {(offered(returned) - booked)[short[0]]} records lost"
    over = np.flatnonzero(booked > offered(returned + 1))
    assert not len(over), f"I4: of producer {over[0]} is more than it logged"
    assert (books.last <= returned).all(), "I3: a call that was never made"
    told = sum(tenancy.dropped for tenancy in books.tenancies())
    in_flight = offered(returned + 1) - booked
    assert 0 <= told - dropped.sum() <= in_flight.sum(), f"I4: {dropped.sum()} records were dropped, GAPs tell {told}"


def test_randomly_killed_producers_lose_at_most_the_call_they_were_in(tmp_path: Path, full: bool, seed: int) -> None:
    """FAULTS 21 and 36: 10,000 kills, or 1,000,000; lanes go from owner to owner."""
    need("cc")
    brew(tmp_path, 1_000_000 if full else 10_000, seed)


def brew(tmp_path: Path, kills: int, seed: int) -> None:
    """Kill so many producers, and check what they have left."""
    notes = tmp_path / "returned"
    notes.write_bytes(bytes(16 * (kills + AT_WORK)))
    program = compile_storm(tmp_path)
    books = StormBooks(kills + AT_WORK)
    begun = time.monotonic()
    with contextlib.closing(Arena(tmp_path, lanes=LANES, lap=LANE_SLOTS)) as arena:
        drainer = threading.Thread(target=arena.drain.run, args=(LOG_BYTES,))
        drainer.start()
        storm = subprocess.Popen([program, arena.path, notes, str(kills), str(seed)], start_new_session=True)
        try:
            log = read_while_open(arena, books, storm)
            assert storm.wait() == 0
        finally:
            storm.kill()
            storm.wait()
            arena.drain.stop()
            drainer.join()
        arena.end()
        for number in range(log, arena.drain.closed_below + 1):
            books.read(arena.folder / f"{number:06}.wal")
    seconds = time.monotonic() - begun
    returned, dropped = np.fromfile(notes, np.int64).reshape(-1, 2).T
    check_accounts(books, returned, dropped)
    print(f"{kills} kills in {seconds:.0f} s: {books.found.sum()} records on disk, {dropped.sum()} dropped")


def read_while_open(arena: Arena, books: StormBooks, storm: subprocess.Popen[bytes]) -> int:
    """Read, check and delete closed logs until the storm is over. Returns the next one."""
    log = 0
    while storm.poll() is None:
        if log < arena.drain.closed_below:
            path = arena.folder / f"{log:06}.wal"
            books.read(path)
            path.unlink()
            log += 1
        else:
            time.sleep(0.01)
    return log
