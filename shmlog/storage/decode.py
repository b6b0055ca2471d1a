"""Slots of the write-ahead log to metrics, events and gaps.

Plain metrics are taken by numpy, all at once; only texts, events, owners and
gaps, which have slots of their own, are looked at one by one. Nothing found
here is trusted: what makes no sense is left out and reported.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shmlog.storage.schema import KINDS, METRICS
from shmlog.storage.wal import ENTRY, REASONS, SLOT, Damage, Frame

FLOAT, INT, BOOL, TEXT, LONGTEXT, ROW, EVENT, OWNER, GAP = range(1, 10)
DATA = 31
MEMBER, FILE = 1, 2
_DATA_BYTES = 24
_LARGE = re.compile(r"large/[A-Za-z0-9._-]+")

Producer = tuple[int, int]  # lane, tenancy


class Event(NamedTuple):
    """A structured event; ``data`` is the JSON object as it was logged."""

    ts_us: int
    event_type: str
    data: str
    lane: int
    tenancy: int
    seq: int
    frame: int


class Gap(NamedTuple):
    """Records that were dropped, by reason, at their place in the lane."""

    ts_us: int
    dropped: dict[str, int]
    lane: int
    tenancy: int
    seq: int
    frame: int


@dataclass
class Count:
    """What a producer has on disk."""

    metrics: int = 0
    events: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass
class Cursor:
    """Where a lane goes on behind the frames decoded so far."""

    position: int
    seq: int
    tenancy: int
    gapped: list[int]
    owner_json: bytes


@dataclass
class Batch:
    """The records of some frames.

    Attributes
    ----------
    metrics : pyarrow.Table
        Schema `METRICS`, in the order of the log.
    unit : ndarray of int64, shape (rows,)
        Rows of one call share a number.
    frame : ndarray of int64, shape (rows,)
        Ordinal of the frame, counted over the life of the decoder.
    producer : ndarray of int64, shape (rows,)
        Position of the row's producer in ``producers``.
    owner_of : dict
        What is known of each producer, by (lane, tenancy).
    """

    metrics: pa.Table
    unit: NDArray[np.int64]
    frame: NDArray[np.int64]
    producer: NDArray[np.int64]
    producers: list[Producer]
    events: list[Event]
    gaps: list[Gap]
    counts: dict[Producer, Count]
    owner_of: dict[Producer, dict[str, Any]]
    unlaned: dict[str, int]
    damage: list[Damage]


@dataclass
class _Slots:
    """The slots of a call of `decode`, as columns, with the lane entries they stand in."""

    raw: NDArray[np.void]
    kind: NDArray[np.uint8]
    member: NDArray[np.bool_]
    entries: NDArray[np.void]
    start: NDArray[np.int64]  # first slot of each entry
    entry: NDArray[np.int64]  # entry of each slot
    frame: NDArray[np.int64]  # frame of each entry
    end: int

    def entry_end(self, i: int) -> int:
        return int(self.start[i] + self.entries["slots"][i])


class Decoder:
    """Decodes the frames of consecutive logs of the run in ``run_dir``."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._codes: dict[int, int] = {}  # name id -> position in _names
        self._names: list[str] = []
        self._owners: dict[Producer, bytes] = {}
        self._frames = 0
        self.cursors: dict[int, Cursor] = {}

    def decode(self, frames: Sequence[Frame]) -> Batch:
        """Return the records of ``frames``, which follow those of the last call."""
        for frame in frames:
            self._learn(frame)
        slots = _columns(frames, self._frames)
        damage: list[Damage] = []
        weight, gaps_found = self._weigh(slots, damage)
        seq = _sequence(slots, weight)
        tenancy = _tenancies(slots)
        self._read_owners(slots, tenancy, damage)
        ts_us = _times(frames, slots)
        batch = self._metrics(slots, seq, tenancy, ts_us, damage)
        batch.events = self._events(slots, seq, tenancy, ts_us, damage)
        batch.gaps = [
            Gap(int(ts_us[i]), dropped, int(slots.entries["lane"][slots.entry[i]]), int(tenancy[i]), int(seq[i]),
                int(slots.frame[slots.entry[i]]))
            for i, dropped in gaps_found
        ]  # fmt: skip
        _count(batch)
        if frames:
            batch.unlaned = dict(zip(REASONS, (int(n) for n in frames[-1].unlaned), strict=True))
        self._frames += len(frames)
        self._move_cursors(slots, weight, tenancy, gaps_found)
        return batch

    # ---- names, owners, gaps ----

    def _learn(self, frame: Frame) -> None:
        for number, name in frame.names.items():
            if number not in self._codes:
                self._codes[number] = len(self._names)
                self._names.append(name)
        for lane, owner in frame.owners.items():
            of_lane = frame.lanes["tenancy"][frame.lanes["lane"] == lane]
            if len(of_lane):
                self._owners[lane, int(of_lane[0])] = owner

    def _weigh(
        self, slots: _Slots, damage: list[Damage]
    ) -> tuple[NDArray[np.int64], list[tuple[int, dict[str, int]]]]:
        """Return how many numbers each slot takes in its lane, and the gaps."""
        weight = ((slots.kind >= FLOAT) & (slots.kind <= LONGTEXT)).astype(np.int64)
        weight[(slots.kind == EVENT) & ~slots.member] = 1
        gaps: list[tuple[int, dict[str, int]]] = []
        gapped: dict[int, list[int]] = {}
        for i in np.flatnonzero((slots.kind == GAP) & ~slots.member):
            entry = int(slots.entry[i])
            told = _payload(slots, int(i), 8 * len(REASONS))
            if told is None:
                damage.append(self._damaged("a gap without its numbers"))
                continue
            before = gapped.setdefault(entry, [int(n) for n in slots.entries["gapped"][entry]])
            total = np.frombuffer(told, "<u8").tolist()
            new = [max(0, now - then) for now, then in zip(total, before, strict=True)]
            gapped[entry] = [then + n for then, n in zip(before, new, strict=True)]
            weight[i] = min(sum(new), 1 << 62)
            gaps.append((int(i), {r: n for r, n in zip(REASONS, new, strict=True) if n}))
        return weight, gaps

    def _read_owners(self, slots: _Slots, tenancy: NDArray[np.int64], damage: list[Damage]) -> None:
        for i in np.flatnonzero((slots.kind == OWNER) & ~slots.member):
            told = _payload(slots, int(i))
            if told is None:
                damage.append(self._damaged("an owner that is cut off"))
                continue
            self._owners[int(slots.entries["lane"][slots.entry[i]]), int(tenancy[i])] = told

    def _owner(self, producer: Producer) -> dict[str, Any]:
        try:
            owner = json.loads(self._owners.get(producer, b"{}"))
        except ValueError:
            return {}
        return owner if isinstance(owner, dict) else {}

    def _damaged(self, reason: str) -> Damage:
        return Damage(self._run_dir, 0, 0, reason)

    def _move_cursors(
        self, slots: _Slots, weight: NDArray[np.int64], tenancy: NDArray[np.int64],
        gaps: list[tuple[int, dict[str, int]]],
    ) -> None:  # fmt: skip
        sums = np.concatenate(([0], np.cumsum(weight)))
        new: dict[int, list[dict[str, int]]] = {}
        for i, dropped in gaps:
            new.setdefault(int(slots.entry[i]), []).append(dropped)
        for i, entry in enumerate(slots.entries):
            lane, begin, end = int(entry["lane"]), int(slots.start[i]), slots.entry_end(i)
            last = int(tenancy[end - 1]) if end > begin else int(entry["tenancy"])
            gapped = [int(n) for n in entry["gapped"]]
            for dropped in new.get(i, ()):
                gapped = [n + dropped.get(r, 0) for n, r in zip(gapped, REASONS, strict=True)]
            self.cursors[lane] = Cursor(
                position=int(entry["position"]) + end - begin,
                seq=int(entry["seq"]) + int(sums[end] - sums[begin]),
                tenancy=last,
                gapped=gapped,
                owner_json=self._owners.get((lane, last), b""),
            )

    # ---- metrics ----

    def _metrics(
        self, slots: _Slots, seq: NDArray[np.int64], tenancy: NDArray[np.int64], ts_us: NDArray[np.int64],
        damage: list[Damage],
    ) -> Batch:  # fmt: skip
        codes = self._name_codes(slots)
        is_record = (slots.kind >= FLOAT) & (slots.kind <= LONGTEXT)
        if (is_record & (codes < 0)).any():
            damage.append(self._damaged("records whose name is not defined"))
            is_record &= codes >= 0
        rows = np.flatnonzero(is_record)
        if len(rows) == slots.end:
            rows = slice(None)  # type: ignore[assignment]  # no copies in the common case
        kind = slots.kind[rows]
        run_of, producers = _producer_runs(slots, tenancy)
        run = run_of[rows]
        owners = [self._owner(producer) for producer in producers]
        columns = self._value_columns(slots, rows, kind, damage)
        columns |= {
            "step": pa.array(slots.raw["step"][rows]),
            "name": pa.DictionaryArray.from_arrays(pa.array(codes[rows]), pa.array(self._names, pa.string())),
            "kind": pa.DictionaryArray.from_arrays(
                pa.array((np.minimum(kind, TEXT) - 1).astype(np.int8)), pa.array(KINDS, pa.string())
            ),
            "ts": pa.array(ts_us[rows]).view(pa.timestamp("us", tz="UTC")),
            "seq": pa.array(seq[rows]),
            "lane": pa.array(np.array([p[0] for p in producers], np.int32)[run]),
            "pid": pa.array(np.array([_int32(o, "pid", -1) for o in owners], np.int32)[run]),
        }
        for name in ("rank", "local_rank", "worker"):
            known = pa.array([_int32(owner, name, None) for owner in owners], pa.int32())
            columns[name] = known.take(pa.array(run)) if known.null_count < len(owners) else pa.nulls(len(run), pa.int32())
        table = pa.Table.from_arrays([columns[f.name] for f in METRICS], schema=METRICS)
        unit = np.cumsum(~slots.member)[rows]
        counts = np.bincount(run, minlength=len(producers))
        return Batch(
            metrics=table, unit=unit, frame=slots.frame[slots.entry[rows]], producer=run,
            producers=producers, events=[], gaps=[],
            counts={p: Count(metrics=int(n)) for p, n in zip(producers, counts, strict=True)},
            owner_of=dict(zip(producers, owners, strict=True)), unlaned={}, damage=damage,
        )  # fmt: skip

    def _name_codes(self, slots: _Slots) -> NDArray[np.int32]:
        table = np.full(1 << 24 if self._codes and max(self._codes) >= 1 << 16 else 1 << 16, -1, np.int32)
        for number, code in self._codes.items():
            if number < len(table):
                table[number] = code
        ids = (slots.raw["commit"] >> np.uint64(8)).astype(np.int64) & 0xFFFFFF
        return table[np.minimum(ids, len(table) - 1)]

    def _value_columns(
        self, slots: _Slots, rows: Any, kind: NDArray[np.uint8], damage: list[Damage]
    ) -> dict[str, pa.Array]:
        bits = np.ascontiguousarray(slots.raw["value"][rows])
        if (kind == FLOAT).all():
            nulls = {"int_value": pa.nulls(len(kind), pa.int64()), "text": pa.nulls(len(kind), pa.string())}
            return {"value": pa.array(bits.view(np.float64)), **nulls}
        is_whole = (kind == INT) | (kind == BOOL)
        is_text = kind >= TEXT
        whole = bits.view(np.int64)
        value = np.where(is_whole, whole.astype(np.float64), bits.view(np.float64))
        return {
            "value": pa.array(value, mask=is_text),
            "int_value": pa.array(whole, mask=~is_whole),
            "text": self._texts(slots, rows, bits, is_text, kind, damage),
        }

    def _texts(
        self, slots: _Slots, rows: Any, bits: NDArray[np.uint64], is_text: NDArray[np.bool_],
        kind: NDArray[np.uint8], damage: list[Damage],
    ) -> pa.Array:  # fmt: skip
        if not is_text.any():
            return pa.nulls(len(kind), pa.string())
        texts: list[str | None] = [None] * len(kind)
        position = np.arange(slots.end)[rows]
        for row in np.flatnonzero(is_text):
            if kind[row] == TEXT:
                data: bytes | None = int(bits[row]).to_bytes(8, "little").rstrip(b"\0")
            else:
                data = self._long_text(slots, int(position[row]), damage)
            texts[row] = "" if data is None else data.decode("utf-8", "replace")
        return pa.array(texts, pa.string())

    def _long_text(self, slots: _Slots, i: int, damage: list[Damage]) -> bytes | None:
        data = _payload(slots, i)
        if data is None:
            damage.append(self._damaged("a text that is cut off"))
        elif int(slots.raw["commit"][i]) & FILE:
            return self._large_text(data, damage)
        return data

    def _large_text(self, name: bytes, damage: list[Damage]) -> bytes | None:
        path = name.decode("utf-8", "replace")
        try:
            if _LARGE.fullmatch(path):
                return (self._run_dir / path).read_bytes()
        except OSError:
            pass
        damage.append(self._damaged(f"a large text whose file {path!r} can't be read"))
        return None

    # ---- events ----

    def _events(
        self, slots: _Slots, seq: NDArray[np.int64], tenancy: NDArray[np.int64], ts_us: NDArray[np.int64],
        damage: list[Damage],
    ) -> list[Event]:  # fmt: skip
        events: list[Event] = []
        for i in np.flatnonzero((slots.kind == EVENT) & ~slots.member):
            data = _payload(slots, int(i))
            code = self._codes.get(int(slots.raw["commit"][i]) >> 8 & 0xFFFFFF)
            if data is None or code is None:
                damage.append(self._damaged("an event that is cut off, or whose type is not defined"))
                continue
            text = data.decode("utf-8", "replace")
            if int(slots.raw["commit"][i]) & FILE:
                text = self._file_event(text)
            entry = int(slots.entry[i])
            lane, frame = int(slots.entries["lane"][entry]), int(slots.frame[entry])
            events.append(
                Event(int(ts_us[i]), self._names[code], text, lane, int(tenancy[i]), int(seq[i]), frame)
            )
        return events

    def _file_event(self, path: str) -> str:
        try:
            size = (self._run_dir / path).stat().st_size if _LARGE.fullmatch(path) else None
        except OSError:
            size = None
        return json.dumps({"file": path, "bytes": size})


# ---- columns ----


def _columns(frames: Sequence[Frame], first_frame: int) -> _Slots:
    entries = np.concatenate([f.lanes for f in frames]) if frames else np.empty(0, ENTRY)
    raw = np.concatenate([f.slots for f in frames]) if frames else np.empty(0, SLOT)
    counts = entries["slots"].astype(np.int64)
    low = raw["commit"].astype(np.uint32)
    return _Slots(
        raw=raw,
        kind=((low >> np.uint32(3)) & np.uint32(31)).astype(np.uint8),
        member=(low & np.uint32(MEMBER)) != 0,
        entries=entries,
        start=np.cumsum(counts) - counts,
        entry=np.repeat(np.arange(len(entries)), counts),
        frame=np.repeat(first_frame + np.arange(len(frames)), [len(f.lanes) for f in frames]),
        end=len(raw),
    )


def _payload(slots: _Slots, i: int, size: int | None = None) -> bytes | None:
    """Return the bytes behind the header in slot ``i``; None if they are not all there."""
    extent = int(slots.raw["value"][i])
    count = extent >> 32 if size is None else size
    data = -(-count // _DATA_BYTES)
    begin, end = i + 1, i + 1 + data
    if end > slots.entry_end(int(slots.entry[i])) or not (slots.kind[begin:end] == DATA).all():
        return None
    raw = np.ascontiguousarray(slots.raw[begin:end]).view(np.uint8).reshape(data, SLOT.itemsize)
    return raw[:, :_DATA_BYTES].tobytes()[:count]


def _sequence(slots: _Slots, weight: NDArray[np.int64]) -> NDArray[np.int64]:
    before = np.cumsum(weight) - weight
    base = slots.entries["seq"].astype(np.int64)
    used = slots.entries["slots"] > 0
    base[used] -= before[slots.start[used]]
    seq: NDArray[np.int64] = before + np.repeat(base, slots.entries["slots"].astype(np.int64))
    return seq


def _tenancies(slots: _Slots) -> NDArray[np.int64]:
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


def _producer_runs(slots: _Slots, tenancy: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Producer]]:
    """Return for each slot the position of its producer in a list of producers."""
    if slots.end == 0:
        return np.empty(0, np.int64), []
    begins = np.zeros(slots.end, bool)
    begins[slots.start[slots.entries["slots"] > 0]] = True
    begins |= (slots.kind == OWNER) & ~slots.member
    first = np.flatnonzero(begins)
    lanes = slots.entries["lane"][slots.entry[first]].astype(np.int64)
    producers: dict[Producer, int] = {}
    number = [producers.setdefault(p, len(producers)) for p in zip(lanes.tolist(), tenancy[first].tolist(), strict=True)]
    lengths = np.diff(np.append(first, slots.end))
    return np.repeat(np.array(number, np.int64), lengths), list(producers)


def _times(frames: Sequence[Frame], slots: _Slots) -> NDArray[np.int64]:
    """Return the time of each slot in microseconds since 1970, UTC; see docs/format.md."""
    anchors = np.array([f.anchors for f in frames], np.int64).reshape(-1, 2, 3)
    ticks = anchors[:, 1, 0] - anchors[:, 0, 0]
    spent = (anchors[:, 1, 1] - anchors[:, 0, 1]).astype(np.float64)
    fixed = np.array([f.clock == 0 for f in frames], bool) | (ticks == 0)
    rate = np.where(fixed, 1.0, spent / np.where(ticks == 0, 1, ticks))
    counts = np.array([len(f.slots) for f in frames], np.int64)
    age = (np.repeat(anchors[:, 1, 0], counts) - slots.raw["ts"].view(np.int64)).astype(np.float64)
    with np.errstate(invalid="ignore"):
        age_ns = np.nan_to_num(age * np.repeat(rate, counts)).clip(-(2.0**62), 2.0**62).astype(np.int64)
    utc: NDArray[np.int64] = (np.repeat(anchors[:, 1, 2], counts) - age_ns) // 1000
    return utc


def _int32(owner: dict[str, Any], name: str, missing: int | None) -> int | None:
    value = owner.get(name)
    return value if isinstance(value, int) and -(2**31) <= value < 2**31 else missing


def _count(batch: Batch) -> None:
    for event in batch.events:
        batch.counts.setdefault((event.lane, event.tenancy), Count()).events += 1
    for gap in batch.gaps:
        dropped = batch.counts.setdefault((gap.lane, gap.tenancy), Count()).dropped
        for reason, count in gap.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
