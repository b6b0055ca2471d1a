"""The slots of some frames as columns, and which of their units make sense.

A frame with the right checksum may still hold nonsense, written by a fault of
ours or on purpose. A lane's slots are taken up to the first unit that makes no
sense: behind it neither extents nor sequence numbers can be relied on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shmlog.storage.wal import ENTRY, REASONS, SLOT, Damage, Frame

FLOAT, INT, BOOL, TEXT, LONGTEXT, ROW, EVENT, OWNER, GAP = range(1, 10)
DATA = 31
MEMBER, FILE = 1, 2

DATA_BYTES = 24
GAP_BYTES = 8 * len(REASONS)
_GAP_SLOTS = 3
_SILENT = 0  # the kind of slots that are left out
_INT32_MAX = (1 << 31) - 1
# Which low bytes of a commit word make a unit of one slot.
_PLAIN = np.isin(np.arange(256), [kind << 3 for kind in (FLOAT, INT, BOOL, TEXT)])
# Larger numbers are nonsense; sums of a few smaller ones fit in 64 bits.
_COUNT_MAX = 1 << 56


@dataclass
class Slots:
    """Slots of several frames one after the other, with the lane entries they stand in.

    Attributes
    ----------
    raw : ndarray of SLOT
    low : ndarray of uint8
        Kind and flags as they stand in the commit word.
    kind : ndarray of uint8
        0 where a slot is to be left out.
    member : ndarray of bool
        Whether the slot stands behind the header of a unit.
    entries : ndarray of ENTRY
        The lane entries.
    start : ndarray of int64
        First slot of each entry.
    entry : ndarray of int64
        The entry of each slot.
    frame : ndarray of int64
        The frame of each entry, as a position in ``frames``.
    end : int
        How many slots there are.
    """

    frames: Sequence[Frame]
    raw: NDArray[np.void]
    low: NDArray[np.uint8]
    kind: NDArray[np.uint8]
    member: NDArray[np.bool_]
    entries: NDArray[np.void]
    start: NDArray[np.int64]
    entry: NDArray[np.int64]
    frame: NDArray[np.int64]
    end: int

    def entry_end(self, entry: int) -> int:
        """Return the slot behind the last one of an entry."""
        return int(self.start[entry] + self.entries["slots"][entry])

    def lane(self, i: int) -> int:
        """Return the lane of slot ``i``."""
        return int(self.entries["lane"][self.entry[i]])

    def name_id(self, i: int) -> int:
        """Return the name id of slot ``i``."""
        return int(self.raw["commit"][i]) >> 8 & 0xFFFFFF

    def is_file(self, i: int) -> bool:
        """Whether the payload of slot ``i`` is the path of a file."""
        return bool(int(self.raw["commit"][i]) & FILE)

    def units(self, kind: int) -> list[int]:
        """Return the first slots of the units of a kind."""
        return [int(i) for i in np.flatnonzero((self.kind == kind) & ~self.member)]

    def payload(self, i: int, size: int | None = None) -> bytes:
        """Return the bytes behind the header in slot ``i``, of a unit that makes sense."""
        count = int(self.raw["value"][i]) >> 32 if size is None else size
        slots = -(-count // DATA_BYTES)
        raw = np.ascontiguousarray(self.raw[i + 1 : i + 1 + slots]).view(np.uint8)
        return raw.reshape(-1, SLOT.itemsize)[:, :DATA_BYTES].tobytes()[:count]

    def damage(self, i: int, reason: str) -> Damage:
        """Return a report about slot ``i``."""
        frame = self.frames[self.frame[self.entry[i]]]
        return Damage(frame.path, frame.offset, frame.length, f"lane {self.lane(i)}: {reason}")


def gather(frames: Sequence[Frame], ends: dict[int, int]) -> tuple[Slots, list[Damage]]:
    """Return the slots of ``frames`` that make sense, and what was left out.

    Parameters
    ----------
    frames : sequence of Frame
        In the order of the log.
    ends : dict of int to int
        By lane, the position behind the last slot taken so far; kept up to date.
    """
    entries = np.concatenate([f.lanes for f in frames]) if frames else np.empty(0, ENTRY)
    raw = np.concatenate([f.slots for f in frames]) if frames else np.empty(0, SLOT)
    frame = np.repeat(np.arange(len(frames)), [len(f.lanes) for f in frames])
    sound, damage = _sound_entries(frames, frame, entries, ends)
    if not sound.all():
        raw = raw[np.repeat(sound, entries["slots"].astype(np.int64))]
        entries, frame = entries[sound], frame[sound]
    slots = _columns(frames, frame, entries, raw)
    return slots, damage + _silence_nonsense(slots)


def _columns(
    frames: Sequence[Frame], frame: NDArray[np.int64], entries: NDArray[np.void], raw: NDArray[np.void]
) -> Slots:
    counts = entries["slots"].astype(np.int64)
    low = raw["commit"].astype(np.uint8)
    return Slots(
        frames=frames,
        raw=raw,
        low=low,
        kind=low >> np.uint8(3),
        member=(low & np.uint8(MEMBER)) != 0,
        entries=entries,
        start=np.cumsum(counts) - counts,
        entry=np.repeat(np.arange(len(entries)), counts),
        frame=frame,
        end=len(raw),
    )


# ---- lane entries ----


def _sound_entries(
    frames: Sequence[Frame], frame: NDArray[np.int64], entries: NDArray[np.void], ends: dict[int, int]
) -> tuple[NDArray[np.bool_], list[Damage]]:
    """Return which entries can be taken, in the light of what was taken before."""
    sound = (entries["lane"] <= _INT32_MAX) & (entries["gapped"] <= _COUNT_MAX).all(axis=1)
    sound &= (entries["seq"] <= _COUNT_MAX) & (entries["position"] <= _COUNT_MAX)
    damage: list[Damage] = []
    numbers = zip(*(entries[name].tolist() for name in ("lane", "position", "slots")), strict=True)
    for i, (lane, position, slots) in enumerate(numbers):
        expected = ends.get(lane, position)
        if not sound[i]:
            reason = "an entry with numbers that make no sense"
        elif position < expected:
            reason = f"slots from {position} on, which an earlier frame has told"
            sound[i] = False
        else:
            ends[lane] = position + slots
            if position == expected:
                continue
            reason = f"{position - expected} slots are missing"
        where = frames[frame[i]]
        damage.append(Damage(where.path, where.offset, where.length, f"lane {lane}: {reason}"))
    return sound, damage


# ---- units ----


def _silence_nonsense(slots: Slots) -> list[Damage]:
    """Leave out each entry's slots from its first unit on that makes no sense."""
    damage: list[Damage] = []
    bad = _bad_units(slots)
    entries, first = np.unique(slots.entry[bad], return_index=True)
    for entry, i in zip(entries.tolist(), bad[first].tolist(), strict=True):
        end = slots.entry_end(entry)
        damage.append(slots.damage(i, f"{end - i} slots that make no sense"))
        slots.kind[i:end] = _SILENT
        slots.member[i:end] = True
    return damage


def _bad_units(slots: Slots) -> NDArray[np.int64]:
    """Return the first slots of the units that make no sense, ascending."""
    if _PLAIN[slots.low].all():
        return np.empty(0, np.int64)
    begins = ~slots.member
    begins[slots.start[slots.entries["slots"] > 0]] = True
    unit = np.flatnonzero(begins)
    item = np.flatnonzero(begins | (slots.kind != DATA))
    begins_unit = begins[item]
    items = np.diff(np.flatnonzero(begins_unit), append=len(item))
    bad_items = item[~_items_make_sense(slots, item, begins_unit)]
    unit_ok = _units_make_sense(slots, unit, items)
    unit_ok[np.searchsorted(unit, bad_items, side="right") - 1] = False
    bad: NDArray[np.int64] = unit[~unit_ok]
    return bad


def _items_make_sense(slots: Slots, item: NDArray[np.int64], begins: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Check each slot that is not DATA, with the DATA slots behind it."""
    length = np.diff(item, append=slots.end)
    kind, flags = slots.kind[item], slots.low[item] & 7
    value = slots.raw["value"][item]
    extent, count = (value & 0xFFFFFFFF).astype(np.int64), (value >> np.uint64(32)).astype(np.int64)
    data_slots = (count + DATA_BYTES - 1) // DATA_BYTES
    holds_bytes = (kind == LONGTEXT) | (kind == EVENT) | (kind == OWNER)
    size = np.where(holds_bytes, data_slots + 1, np.where(kind == GAP, _GAP_SLOTS, 1))
    states_size = holds_bytes | (kind == GAP)
    may_be_file = (kind == LONGTEXT) | (kind == EVENT)
    ok: NDArray[np.bool_] = (kind >= FLOAT) & (kind <= GAP) & (length == size)
    ok &= ~states_size | (extent == size)
    ok &= (flags & ~np.uint8(MEMBER) == 0) | (may_be_file & (flags & ~np.uint8(MEMBER) == FILE))
    ok &= np.where(begins, flags & MEMBER == 0, kind <= LONGTEXT)
    for i in np.flatnonzero(ok & (kind == GAP)):
        drops = np.frombuffer(slots.payload(int(item[i]), GAP_BYTES), "<u8")
        ok[i] = bool((drops <= _COUNT_MAX).all())
    return ok


def _units_make_sense(slots: Slots, unit: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Check that a ROW has the slots and records it says, and that no other unit has members."""
    value = slots.raw["value"][unit]
    length = np.diff(unit, append=slots.end)
    is_row = slots.kind[unit] == ROW
    row_ok = ((value & 0xFFFFFFFF) == length) & ((value >> np.uint64(32)) == items - 1) & (items > 1)
    ok: NDArray[np.bool_] = np.where(is_row, row_ok, items == 1)
    return ok


# ---- numbers of each slot ----


def sequence(slots: Slots, weight: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ``seq`` of each slot; ``weight`` says how many numbers each one takes."""
    before = np.cumsum(weight) - weight
    base = slots.entries["seq"].astype(np.int64)
    used = slots.entries["slots"] > 0
    base[used] -= before[slots.start[used]]
    seq: NDArray[np.int64] = before + np.repeat(base, slots.entries["slots"].astype(np.int64))
    return seq


def tenancies(slots: Slots) -> NDArray[np.int64]:
    """Return how many owners the lane of each slot has had by then."""
    begins = ((slots.kind == OWNER) & ~slots.member).astype(np.int64)
    counts = slots.entries["slots"].astype(np.int64)
    base = slots.entries["tenancy"].astype(np.int64)
    if not begins.any():
        return np.repeat(base, counts)
    total = np.cumsum(begins)
    used = counts > 0
    first = slots.start[used]
    base[used] -= total[first] - begins[first]
    tenancy: NDArray[np.int64] = total + np.repeat(base, counts)
    return tenancy


def producer_runs(slots: Slots, tenancy: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[tuple[int, int]]]:
    """Return for each slot the position of its (lane, tenancy) in a list of them."""
    if slots.end == 0:
        return np.empty(0, np.int64), []
    begins = np.zeros(slots.end, bool)
    begins[slots.start[slots.entries["slots"] > 0]] = True
    begins |= (slots.kind == OWNER) & ~slots.member
    first = np.flatnonzero(begins)
    lanes = slots.entries["lane"][slots.entry[first]].tolist()
    producers: dict[tuple[int, int], int] = {}
    pairs = zip(lanes, tenancy[first].tolist(), strict=True)
    number = [producers.setdefault(pair, len(producers)) for pair in pairs]
    lengths = np.diff(first, append=slots.end)
    return np.repeat(np.array(number, np.int64), lengths), list(producers)


# The years 1 to 9999, which is what RFC 3339 and Python can name.
_NS_MAX = 2.0**62
_TS_US_MIN, _TS_US_MAX = -62_135_596_800_000_000, 253_402_300_799_999_999


def times(slots: Slots) -> NDArray[np.int64]:
    """Return the time of each slot in microseconds since 1970, UTC; see docs/format.md."""
    frames = slots.frames
    anchors = np.array([f.anchors for f in frames], np.int64).reshape(-1, 2, 3)
    ticks = anchors[:, 1, 0] - anchors[:, 0, 0]
    spent = (anchors[:, 1, 1] - anchors[:, 0, 1]).astype(np.float64)
    fixed = np.array([f.clock == 0 for f in frames], bool) | (ticks == 0)
    rate = np.where(fixed, 1.0, spent / np.where(ticks == 0, 1, ticks))
    ts_ns = np.array(slots.raw["ts"]).view(np.int64)
    begin = 0
    counts = np.bincount(slots.frame, slots.entries["slots"], len(frames)).astype(np.int64)
    for i, end in enumerate(np.cumsum(counts).tolist()):
        part = ts_ns[begin:end]
        part -= anchors[i, 1, 0]
        if rate[i] != 1.0:
            part[:] = np.nan_to_num(part * rate[i]).clip(-_NS_MAX, _NS_MAX)
        part += anchors[i, 1, 2]
        begin = end
    ts_us: NDArray[np.int64] = ts_ns // 1000
    return ts_us.clip(_TS_US_MIN, _TS_US_MAX, out=ts_us)
