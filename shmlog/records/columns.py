"""The slots of some frames as columns, as far as they are valid.

A frame with the right checksum may still hold nonsense, because of a fault of
ours or on purpose. A lane's slots are read up to the first unit that makes no
sense: after it neither extents nor sequence numbers are reliable.

C code reads the slots (csrc/bulk/decode.c); this module allocates its columns, and
checks the lane entries against those read before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shmlog import _bulk
from shmlog.records.ticks import FrameClock, TickClock
from shmlog.records.wal import ENTRY, SLOT, Damage, Frame

FLOAT, INT, BOOL, TEXT, LONGTEXT, ROW, EVENT, OWNER, GAP = range(1, 10)

_DATA_BYTES = 24
_INT32_MAX = (1 << 31) - 1
# Larger numbers are nonsense; sums of a few smaller ones fit in 64 bits.
COUNT_MAX = 1 << 56
_SHIFT_US_MAX = 1 << 61

ITEM = np.dtype(
    [
        ("row", "<u8"),
        ("slot", "<u8"),
        ("seq", "<i8"),
        ("ts_us", "<i8"),
        ("dropped", "<u8", (6,)),
        ("entry", "<u4"),
        ("tenancy", "<u4"),
        ("bytes", "<u4"),
        ("name", "<u4"),
        ("kind", "<u4"),
        ("is_file", "<u4"),
    ]
)
STRETCH = np.dtype([("row", "<u8"), ("entry", "<u4"), ("tenancy", "<u4")])


@dataclass
class Columns:
    """The records in the slots of several frames.

    Rows are the metric records whose name is known, in the order of the log.

    Attributes
    ----------
    entries : ndarray of ENTRY
        The lane entries that are valid.
    after : ndarray of ENTRY
        The same, with the counters after their slots.
    frame : ndarray of int64
        The frame of each entry, as a position in ``frames``.
    step, ts_us, seq : ndarray of int64
        By row.
    value : ndarray of uint64
        The bits of each row's value.
    name, unit : ndarray of int32
        Code of each row's name; number of its call.
    kind : ndarray of uint8
        Position in `KINDS`.
    kinds : int
        Bit FLOAT, INT, BOOL, TEXT for each kind that occurs.
    items : ndarray of ITEM
        Long texts, events, owners and gaps, in the order of the log.
    stretches : ndarray of STRETCH
        From ``row`` on, rows are of this entry and tenancy.
    """

    frames: Sequence[Frame]
    entries: NDArray[np.void]
    after: NDArray[np.void]
    frame: NDArray[np.int64]
    slots: list[NDArray[np.void]]
    step: NDArray[np.int64]
    value: NDArray[np.uint64]
    ts_us: NDArray[np.int64]
    seq: NDArray[np.int64]
    name: NDArray[np.int32]
    kind: NDArray[np.uint8]
    unit: NDArray[np.int32]
    items: NDArray[np.void]
    stretches: NDArray[np.void]
    kinds: int

    def payload(self, item: np.void) -> bytes:
        """Return the bytes that an item carries."""
        first = self._first_slot(int(item["entry"])) + int(item["slot"]) + 1
        count = int(item["bytes"])
        raw = self.slots[self.frame[item["entry"]]][first : first + -(-count // _DATA_BYTES)]
        return np.ascontiguousarray(raw).view(np.uint8).reshape(-1, SLOT.itemsize)[:, :_DATA_BYTES].tobytes()[:count]

    def remove(self, rows: NDArray[np.int64]) -> None:
        """Remove some rows."""
        keep = np.ones(len(self.step), bool)
        keep[rows] = False
        new_row = np.cumsum(keep) - keep
        self.stretches["row"] = np.append(new_row, keep.sum())[self.stretches["row"]]
        for name in ("step", "value", "ts_us", "seq", "name", "kind", "unit"):
            setattr(self, name, getattr(self, name)[keep])

    def _first_slot(self, entry: int) -> int:
        """Return where an entry begins among the slots of its frame."""
        before = self.entries["slots"][:entry][self.frame[:entry] == self.frame[entry]]
        return int(before.sum(dtype=np.int64))

    def damage(self, entry: int, reason: str) -> Damage:
        """Return a report about something in a lane entry."""
        frame = self.frames[self.frame[entry]]
        return Damage(frame.path, frame.offset, frame.length, f"lane {self.entries['lane'][entry]}: {reason}")


def decode_slots(
    frames: Sequence[Frame], ends: dict[int, int], codes: NDArray[np.int32], clock: TickClock
) -> tuple[Columns, list[Damage]]:
    """Return the records in the slots of ``frames``, and the damage that was left out.

    Parameters
    ----------
    frames : sequence of Frame
        In the order of the log.
    ends : dict of int to int
        By lane, the position after the last slot read so far; updated.
    codes : ndarray of int32
        By name id, the code of the name, or -1.
    clock : TickClock
        The clock of the frames read so far; updated.
    """
    entries = np.concatenate([f.lanes for f in frames]) if frames else np.empty(0, ENTRY)
    frame = np.repeat(np.arange(len(frames)), [len(f.lanes) for f in frames])
    sound, damage = _sound_entries(frames, frame, entries, ends)
    slots = [f.slots for f in frames]
    if not sound.all():
        for i in np.unique(frame[~sound]).tolist():
            slots[i] = slots[i][np.repeat(sound[frame == i], entries["slots"][frame == i])]
        entries, frame = entries[sound], frame[sound]
    columns, slot_damage = _walk(frames, entries, frame, slots, codes, clock.clocks(frames))
    return columns, damage + slot_damage


def _shift_us(clock: FrameClock) -> int:
    return int(max(-_SHIFT_US_MAX, min(clock.shift_ns / 1000, _SHIFT_US_MAX)))


def _walk(
    frames: Sequence[Frame], entries: NDArray[np.void], frame: NDArray[np.int64], slots: list[NDArray[np.void]],
    codes: NDArray[np.int32], clocks: Sequence[FrameClock],
) -> tuple[Columns, list[Damage]]:  # fmt: skip
    count = sum(len(part) for part in slots)
    after = entries.copy()
    bounds = np.searchsorted(frame, np.arange(len(frames) + 1))
    inputs = [
        (after[bounds[i] : bounds[i + 1]], np.ascontiguousarray(slots[i]), *clock[:3], _shift_us(clock))
        for i, clock in enumerate(clocks)
    ]
    arrays = (
        step := np.empty(count, np.int64), value := np.empty(count, np.uint64), ts_us := np.empty(count, np.int64),
        seq := np.empty(count, np.int64), name := np.empty(count, np.int32), kind := np.empty(count, np.uint8),
        unit := np.empty(count, np.int32), items := np.empty(count, ITEM),
        stretches := np.empty(count + len(entries), STRETCH), sane := np.empty(len(entries), np.uint32),
    )  # fmt: skip
    rows, item_count, stretch_count, kinds, nameless, nameless_entry = _bulk.decode(inputs, codes, arrays)
    columns = Columns(
        frames, entries, after, frame, slots,
        step=step[:rows], value=value[:rows], ts_us=ts_us[:rows], seq=seq[:rows], name=name[:rows], kind=kind[:rows],
        unit=unit[:rows], items=items[:item_count], stretches=stretches[:stretch_count], kinds=kinds,
    )  # fmt: skip
    lost = entries["slots"] - sane
    damage = [columns.damage(i, f"{lost[i]} slots that make no sense") for i in np.flatnonzero(lost).tolist()]
    if nameless:
        damage.append(columns.damage(nameless_entry, f"{nameless} records whose name is not defined"))
    return columns, damage


def _sound_entries(
    frames: Sequence[Frame], frame: NDArray[np.int64], entries: NDArray[np.void], ends: dict[int, int]
) -> tuple[NDArray[np.bool_], list[Damage]]:
    """Return which entries are valid after those read before, and the damage of the others."""
    sound = (entries["lane"] <= _INT32_MAX) & (entries["gapped"] <= COUNT_MAX).all(axis=1)
    sound &= (entries["seq"] <= COUNT_MAX) & (entries["position"] <= COUNT_MAX)
    sound &= entries["tenancy"] <= _INT32_MAX
    damage: list[Damage] = []
    numbers = zip(*(entries[name].tolist() for name in ("lane", "position", "slots")), strict=True)
    for i, (lane, position, slots) in enumerate(numbers):
        expected = ends.get(lane, position)
        if not sound[i]:
            reason = "an entry with numbers that make no sense"
        elif position < expected:
            reason = f"slots from {position} on, which an earlier frame already has"
            sound[i] = False
        else:
            ends[lane] = position + slots
            if position == expected:
                continue
            reason = f"{position - expected} slots are missing"
        where = frames[frame[i]]
        damage.append(Damage(where.path, where.offset, where.length, f"lane {lane}: {reason}"))
    return sound, damage
