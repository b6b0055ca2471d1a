"""Logs read slot by slot from docs/format.md, and the books of their lanes.

Shares no code with shmlog, so that what the drain wrote is held against the page
and not against another reading of it.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.frames import DATA, EVENT, GAP, LONGTEXT, MEMBER, OWNER, REASONS, ROW

RECORDS = range(1, 6)
HEADER = struct.Struct("<4sIQ10IQ")
ENTRY = struct.Struct("<IIQQII6Q")
FIXED_BYTES = 232
SLOT = struct.Struct("<QQqQ")

Record = tuple[str, int, int | bytes, int]
"""Name, kind, the 64 bits of the value or its text, step."""


@dataclass(frozen=True)
class Unit:
    """What one call logged: its records, or the JSON of an event."""

    records: tuple[Record, ...]
    ts: int


@dataclass
class Tenancy:
    """What one owner of a lane left in it."""

    lane: int
    owner: str
    units: list[Unit] = field(default_factory=list)
    dropped: int = 0
    """Records that the GAPs of this tenancy told."""


@dataclass
class Lane:
    """A lane as far as the log goes."""

    position: int = 0
    seq: int = 0
    gapped: list[int] = field(default_factory=lambda: [0] * len(REASONS))
    tenancies: list[Tenancy] = field(default_factory=list)

    def begin(self, number: int, owner: bytes) -> None:
        """Have another owner."""
        self.tenancies.append(Tenancy(number, json.loads(owner)["who"]))

    def tell(self, totals: bytes) -> None:
        """Take the totals of a GAP."""
        counts = struct.unpack("<6Q", totals)
        new = [max(0, total - told) for total, told in zip(counts, self.gapped, strict=True)]
        self.gapped = [told + more for told, more in zip(self.gapped, new, strict=True)]
        self.seq += sum(new)
        self.tenancies[-1].dropped += sum(new)


Slot = tuple[int, int, int, int]


class Books:
    """The lanes of a log. Reading it asserts that they go on without a hole or a repetition."""

    def __init__(self, lane_slots: int) -> None:
        self.lane_slots = lane_slots
        self.lanes: dict[int, Lane] = {}
        self.names: dict[int, str] = {}
        self._frames: tuple[int, int] = (0, 0)

    def tenancies(self) -> list[Tenancy]:
        """Return the tenancies of all lanes."""
        return [tenancy for number in sorted(self.lanes) for tenancy in self.lanes[number].tenancies]

    def read(self, path: Path) -> Books:
        """Read the next log."""
        data, offset = path.read_bytes(), 0
        while offset < len(data):
            offset += self._read_frame(data, offset)
        self._frames = (self._frames[0] + 1, 0)
        return self

    def _read_frame(self, data: bytes, offset: int) -> int:
        magic, crc, length, log, index, lanes, names, _, slots, _, _, names_bytes, owners_bytes, _ = HEADER.unpack_from(
            data, offset
        )
        assert (magic, log, index) == (b"SLF2", *self._frames), f"frame {log}.{index} follows {self._frames}"
        assert zlib.crc32(data[offset + 8 : offset + length]) == crc, f"frame {log}.{index}: checksum"
        self._frames = (log, index + 1)
        at = offset + FIXED_BYTES
        entries = [ENTRY.unpack_from(data, at + i * ENTRY.size) for i in range(lanes)]
        at += lanes * ENTRY.size
        self._define(data, at, names)
        at += names_bytes + owners_bytes
        for entry in entries:
            self._read_lane(entry, data[at : at + entry[1] * SLOT.size])
            at += entry[1] * SLOT.size
        assert at == offset + length
        assert sum(entry[1] for entry in entries) == slots
        return int(length)

    def _define(self, data: bytes, at: int, count: int) -> None:
        for _ in range(count):
            number, size = struct.unpack_from("<II", data, at)
            text = data[at + 8 : at + 8 + size].decode()
            assert self.names.setdefault(number, text) == text, f"I5: name {number} was {self.names[number]}"
            assert list(self.names.values()).count(text) == 1, f"I5: {text} has two ids"
            at += 8 + -(-size // 8) * 8

    def _read_lane(self, entry: tuple[int, ...], raw: bytes) -> None:
        number, _, position, seq, tenancy, _, *gapped = entry
        lane = self.lanes.setdefault(number, Lane())
        assert position == lane.position, f"I2: lane {number} goes on at {position}, not at {lane.position}"
        assert seq == lane.seq, f"I4: lane {number} goes on at seq {seq}, not at {lane.seq}"
        assert tenancy == len(lane.tenancies), f"lane {number} has tenancy {tenancy}, not {len(lane.tenancies)}"
        assert gapped == lane.gapped, f"I4: lane {number} has told {gapped}, not {lane.gapped}"
        self.take_slots(number, lane, raw)

    def take_slots(self, number: int, lane: Lane, raw: bytes) -> None:
        """Take the next slots of a lane, which are whole units."""
        slots = list(SLOT.iter_unpack(raw))
        for position, (_, _, _, commit) in enumerate(slots, lane.position):
            lap = position // self.lane_slots + 1
            assert commit >> 32 == lap, f"I1: lane {number}: slot {position} is of lap {commit >> 32}"
        while slots:
            unit, slots = _cut(number, lane.position, slots)
            self._take(number, lane, unit)

    def _take(self, number: int, lane: Lane, unit: list[Slot]) -> None:
        ts, value, _, commit = unit[0]
        kind = commit >> 3 & 31
        lane.position += len(unit)
        if kind == OWNER:
            lane.begin(number, _payload(unit, value >> 32))
        elif kind == GAP:
            lane.tell(_payload(unit, 48))
        else:
            assert lane.tenancies, f"lane {number} has a record before any owner"
            records = tuple(self._records(unit))
            lane.seq += len(records)
            lane.tenancies[-1].units.append(Unit(records, ts))

    def _records(self, unit: list[Slot]) -> Iterator[Record]:
        ts, value, step, commit = unit[0]
        if commit >> 3 & 31 != ROW:
            yield self._record(unit)
            return
        assert len(unit) == value & 0xFFFFFFFF, "I3: a row of another length than its header says"
        rest, found = unit[1:], 0
        while rest:
            size = (rest[0][1] & 0xFFFFFFFF) if rest[0][3] >> 3 & 31 == LONGTEXT else 1
            assert (rest[0][0], rest[0][2]) == (ts, step), "I3: a row's records have its time and step"
            yield self._record(rest[:size])
            rest, found = rest[size:], found + 1
        assert found == value >> 32, f"I3: a row with {found} records says {value >> 32}"

    def _record(self, slots: list[Slot]) -> Record:
        _, value, step, commit = slots[0]
        kind, name = commit >> 3 & 31, commit >> 8 & 0xFFFFFF
        assert kind in RECORDS or kind == EVENT, f"I1: no record has kind {kind}"
        assert name in self.names, f"I5: name {name} is not defined"
        content = _payload(slots, value >> 32) if kind in (LONGTEXT, EVENT) else value
        return self.names[name], kind, content, step


def _cut(lane: int, position: int, slots: list[Slot]) -> tuple[list[Slot], list[Slot]]:
    """Return the first unit and the rest."""
    _, value, _, commit = slots[0]
    assert not commit & MEMBER, f"I3: lane {lane}: no unit begins at {position}"
    kind = commit >> 3 & 31
    size = value & 0xFFFFFFFF if kind >= LONGTEXT else 1
    unit = slots[:size]
    assert len(unit) == size, f"I3: lane {lane}: the unit at {position} is cut"
    assert all(slot[3] & MEMBER for slot in unit[1:]), f"I3: lane {lane}: the unit at {position} is torn"
    return unit, slots[size:]


def _payload(slots: list[Slot], size: int) -> bytes:
    assert all(commit >> 3 & 31 == DATA for _, _, _, commit in slots[1:]), "I3: a payload of other slots than DATA"
    data = b"".join(struct.pack("<QQq", *slot[:3]) for slot in slots[1:])
    assert len(data) == -(-size // 24) * 24, "I3: a payload of another length than its header says"
    assert not any(data[size:]), "the last DATA slot is padded with NUL"
    return data[:size]
