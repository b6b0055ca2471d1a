"""Write-ahead logs built byte by byte from docs/format.md, and what they should decode to.

Shares no code with shmlog: it is the oracle that the decoder is held against.
"""

from __future__ import annotations

import itertools
import json
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

FLOAT, INT, BOOL, TEXT, LONGTEXT, ROW, EVENT, OWNER, GAP = range(1, 10)
DATA = 31
MEMBER, FILE, GIVEN = 1, 2, 4
REASONS = ("full", "names", "large", "lane", "closed", "disk")

UTC_OF_TICK_ZERO = 1_790_000_000_000_000_000
"""UTC in ns at tick 0 of the logs built here."""

Value = float | int | bool | str


def slot(ts: int, value: int, step: int, kind: int, name: int = 0, flags: int = 0, lap: int = 1) -> bytes:
    """Return the 32 bytes of a slot; ``value`` are its 64 bits."""
    return struct.pack("<QQqQ", ts, value, step, lap << 32 | name << 8 | kind << 3 | flags)


def data_slots(payload: bytes) -> list[bytes]:
    """Return the DATA slots that hold ``payload``."""
    pieces = [payload[i : i + 24].ljust(24, b"\0") for i in range(0, len(payload), 24)]
    return [piece + struct.pack("<Q", 1 << 32 | DATA << 3 | MEMBER) for piece in pieces]


def extent(slots: int, count: int) -> int:
    """Return the value of a header slot."""
    return count << 32 | slots


@dataclass(frozen=True)
class Record:
    """A metric as it should come back."""

    lane: int
    tenancy: int
    seq: int
    name: str
    value: Value
    step: int
    ts_us: int
    call: tuple[int, int]
    """Lane and position of the unit it was logged with."""

    def same(self, other: Record) -> bool:
        """Whether both are equal, NaN included, bit for bit and type for type."""
        mine, theirs = self.value, other.value
        if isinstance(mine, float) and isinstance(theirs, float):
            bits = struct.pack("<dd", mine, theirs)
            equal = bits[:8] == bits[8:] or (math.isnan(mine) and math.isnan(theirs))
        else:
            equal = type(mine) is type(theirs) and mine == theirs
        keys = ("lane", "tenancy", "seq", "name", "step", "ts_us")
        return equal and all(getattr(self, key) == getattr(other, key) for key in keys)


@dataclass(frozen=True)
class Happening:
    """An event, or a gap (``event_type`` None), as it should come back."""

    lane: int
    tenancy: int
    seq: int
    event_type: str | None
    data: Any
    ts_us: int


@dataclass
class Lane:
    """A producer's side of the log."""

    log: Log
    number: int
    position: int = 0
    seq: int = 0
    tenancy: int = 0
    gapped: list[int] = field(default_factory=lambda: [0] * 6)
    owner_text: bytes = b""
    slots: list[bytes] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._before = self._state()

    def _state(self) -> tuple[int, int, int, list[int], bytes]:
        return self.position, self.seq, self.tenancy, list(self.gapped), self.owner_text

    def _put(self, slots: list[bytes]) -> None:
        self.slots += slots
        self.position += len(slots)

    def _expect(self, name: str, value: Value, step: int, ts: int, position: int) -> None:
        ts_us = (UTC_OF_TICK_ZERO + ts) // 1000
        call = (self.number, position)
        self.records.append(Record(self.number, self.tenancy, self.seq, name, value, step, ts_us, call))
        self.seq += 1

    def _record(self, name: str, value: Value, step: int, ts: int, flags: int) -> list[bytes]:
        number = self.log.name_id(name)
        if isinstance(value, bool):
            return [slot(ts, int(value), step, BOOL, number, flags)]
        if isinstance(value, int):
            return [slot(ts, value % 2**64, step, INT, number, flags)]
        if isinstance(value, float):
            return [slot(ts, struct.unpack("<Q", struct.pack("<d", value))[0], step, FLOAT, number, flags)]
        text = value.encode("utf-8")
        if len(text) <= 8 and b"\0" not in text:
            return [slot(ts, int.from_bytes(text.ljust(8, b"\0"), "little"), step, TEXT, number, flags)]
        return self._long(LONGTEXT, text, step, ts, number, flags)

    @staticmethod
    def _long(kind: int, payload: bytes, step: int, ts: int, name: int = 0, flags: int = 0) -> list[bytes]:
        data = data_slots(payload)
        return [slot(ts, extent(1 + len(data), len(payload)), step, kind, name, flags), *data]

    def metric(self, name: str, value: Value, step: int, ts: int) -> None:
        """Log one metric; ``ts`` in ns."""
        self._expect(name, value, step, ts, self.position)
        self._put(self._record(name, value, step, ts, 0))

    def given(self, name: str, value: Value, step: int, us: int) -> None:
        """Log one metric with a time of its own."""
        self._expect(name, value, step, 1000 * us - UTC_OF_TICK_ZERO, self.position)
        self._put(self._record(name, value, step, us % 2**64, GIVEN))

    def row(self, metrics: Mapping[str, Value], step: int, ts: int) -> None:
        """Log several as one unit."""
        members: list[bytes] = []
        for name, value in metrics.items():
            self._expect(name, value, step, ts, self.position)
            members += self._record(name, value, step, ts, MEMBER)
        self._put([slot(ts, extent(1 + len(members), len(metrics)), step, ROW), *members])

    def file_metric(self, name: str, path: str, text: str, step: int, ts: int) -> None:
        """Log a text that lies in the file ``path``, whose content is ``text``."""
        self._expect(name, text, step, ts, self.position)
        self._put(self._long(LONGTEXT, path.encode(), step, ts, self.log.name_id(name), FILE))

    def event(self, event_type: str, data: Any, ts: int) -> None:
        """Log a structured event; ``data`` is an object, or bytes to be put as they are."""
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        self._happen(event_type, data, ts)
        self._put(self._long(EVENT, payload, 0, ts, self.log.name_id(event_type)))
        self.seq += 1

    def file_event(self, event_type: str, path: str, size: int, ts: int) -> None:
        """Log an event whose data lie in the file ``path``."""
        self._happen(event_type, {"file": path, "bytes": size}, ts)
        self._put(self._long(EVENT, path.encode(), 0, ts, self.log.name_id(event_type), FILE))
        self.seq += 1

    def owner(self, owner: Mapping[str, Any], ts: int = 0) -> None:
        """Begin another tenancy."""
        self.owner_text = json.dumps(owner).encode()
        self.tenancy += 1
        self._put(self._long(OWNER, self.owner_text, 0, ts))

    def gap(self, totals: list[int], ts: int) -> None:
        """Tell the lane's drops so far."""
        new = [max(0, total - told) for total, told in zip(totals, self.gapped, strict=True)]
        data = {reason: n for reason, n in zip(REASONS, new, strict=True) if n}
        if data:
            self._happen(None, data, ts)
        payload = data_slots(struct.pack("<6Q", *totals))
        self._put([slot(ts, extent(3, 48), 0, GAP), *payload])
        self.gapped = [told + n for told, n in zip(self.gapped, new, strict=True)]
        self.seq += sum(new)

    def _happen(self, event_type: str | None, data: Any, ts: int) -> None:
        ts_us = (UTC_OF_TICK_ZERO + ts) // 1000
        self.happenings.append(Happening(self.number, self.tenancy, self.seq, event_type, data, ts_us))

    def take(self) -> tuple[bytes, bytes, bytes]:
        """Return the lane entry, the slots and the owner before them, and start over."""
        position, seq, tenancy, gapped, owner = self._before
        slots = self.slots
        entry = struct.pack("<IIQQII6Q", self.number, len(slots), position, seq, tenancy, 0, *gapped)
        self.slots = []
        self._before = self._state()
        return entry, b"".join(slots), owner


def _texts(items: Mapping[int, bytes]) -> bytes:
    padded = {number: text.ljust(-(-len(text) // 8) * 8, b"\0") for number, text in items.items()}
    return b"".join(struct.pack("<II", n, len(items[n])) + padded[n] for n in items)


@dataclass
class Log:
    """A write-ahead log under construction, and the records of its frames in log order."""

    number: int = 0
    index: int = 0
    data: bytes = b""
    frames: list[int] = field(default_factory=list)
    """Offset of each frame."""
    lanes: dict[int, Lane] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    unlaned: list[int] = field(default_factory=lambda: [0] * 6)
    run_id: str = "run"
    records: list[Record] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    _defined: set[int] = field(default_factory=set)

    def lane(self, number: int) -> Lane:
        """Return lane ``number``."""
        return self.lanes.setdefault(number, Lane(self, number))

    def name_id(self, name: str) -> int:
        """Return the id of a name, which the next frame defines if it is new."""
        return self.names.setdefault(name, len(self.names))

    def frame(self, now: int = 0, ticks_per_ns: float | None = None, began: int = 0) -> bytes:
        """Write a frame with what the lanes hold; ``now`` in ns is the time of its anchor.

        ``ticks_per_ns`` makes its clock a time-stamp counter; the ``ts`` of its slots
        are ticks then. ``began`` in ns is when that has begun anew.
        """
        first = self.index == 0
        wanted = [lane for lane in self.lanes.values() if lane.slots or first]
        taken = [lane.take() for lane in wanted]
        for lane in wanted:
            self.records += lane.records
            self.happenings += lane.happenings
            lane.records, lane.happenings = [], []
        new = {i: name.encode() for name, i in self.names.items() if i not in self._defined}
        self._defined |= set(new)
        owners = {lane.number: owner for lane, (_, _, owner) in zip(wanted, taken, strict=True) if owner}
        anchors = self._anchors(now, ticks_per_ns, began)
        sections = [
            anchors + struct.pack("<6Q72s", *self.unlaned, self.run_id.encode()),
            b"".join(entry for entry, _, _ in taken),
            _texts(new),
            _texts(owners) if first else b"",
            b"".join(slots for _, slots, _ in taken),
        ]
        counts = (len(taken), len(new), len(owners) if first else 0, len(sections[4]) // 32)
        clock = 0 if ticks_per_ns is None else 1
        rest = struct.pack("<6I", *counts, int(first), clock)
        rest += struct.pack("<IIQ", len(sections[2]), len(sections[3]), 0)
        frame = seal(self.number, self.index, rest + b"".join(sections))
        self.frames.append(len(self.data))
        self.data += frame
        self.index += 1
        return frame

    @staticmethod
    def _anchors(now: int, ticks_per_ns: float | None, began: int) -> bytes:
        ticks = now if ticks_per_ns is None else round((now - began) * ticks_per_ns)
        return struct.pack("<6q", 0, 0, UTC_OF_TICK_ZERO, ticks, now, UTC_OF_TICK_ZERO + now)

    def of_run(self, run_id: str) -> bytes:
        """Return the log as it is in run ``run_id``."""
        bounds = itertools.pairwise([*self.frames, len(self.data)])
        made_over = [
            self.data[begin : begin + 160] + struct.pack("72s", run_id.encode()) + self.data[begin + 232 : end]
            for begin, end in bounds
        ]
        return b"".join(map(reseal, made_over))

    def next(self) -> Log:
        """Return the log that follows: same lanes and names, all to be told again."""
        log = Log(self.number + 1, lanes=self.lanes, names=self.names, unlaned=list(self.unlaned), run_id=self.run_id)
        for lane in log.lanes.values():
            lane.log = log
        return log


def seal(log: int, index: int, rest: bytes) -> bytes:
    """Return a frame with the right length and checksum; ``rest`` begins with the lane count."""
    body = struct.pack("<QII", 16 + 8 + len(rest), log, index) + rest
    return b"SLF2" + struct.pack("<I", zlib.crc32(body)) + body


def reseal(frame: bytes) -> bytes:
    """Return ``frame`` with its checksum made right, whatever was done to it."""
    return frame[:4] + struct.pack("<I", zlib.crc32(frame[8:])) + frame[8:]
