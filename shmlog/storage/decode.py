"""Slots of the write-ahead log to metrics, events and gaps.

Plain metrics are taken by numpy, all at once; only texts, events, owners and
gaps, which have slots of their own, are looked at one by one. Nothing found
here is trusted: what makes no sense is left out and reported.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shmlog.storage.large import large_size, read_large
from shmlog.storage.schema import KINDS, METRICS
from shmlog.storage.slots import (
    BOOL,
    EVENT,
    FLOAT,
    GAP,
    GAP_BYTES,
    INT,
    LONGTEXT,
    OWNER,
    TEXT,
    Slots,
    gather,
    producer_runs,
    sequence,
    tenancies,
    times,
)
from shmlog.storage.wal import REASONS, Damage, Frame

# What a call of decode() may read from files of large texts, in bytes.
_LARGE_BYTES_MAX = 1 << 30

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


class Decoder:
    """Decodes the frames of consecutive logs of the run in ``run_dir``."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._codes: dict[int, int] = {}  # name id -> position in _names, or -1
        self._names: list[str] = []
        self._code_of: dict[str, int] = {}
        self._owners: dict[Producer, bytes] = {}
        self._ends: dict[int, int] = {}
        self._frames = 0
        self._damage: list[Damage] = []
        self._large_bytes = 0
        self.cursors: dict[int, Cursor] = {}

    def decode(self, frames: Sequence[Frame]) -> Batch:
        """Return the records of ``frames``, which follow those of the last call."""
        self._damage = []
        self._large_bytes = 0
        for frame in frames:
            self._learn(frame)
        slots, damage = gather(frames, self._ends)
        self._damage += damage
        weight, gaps_found = self._weigh(slots)
        seq = sequence(slots, weight)
        tenancy = tenancies(slots)
        for i in slots.units(OWNER):
            self._owners[slots.lane(i), int(tenancy[i])] = slots.payload(i)
        ts_us = times(slots)
        batch = self._metrics(slots, seq, tenancy, ts_us)
        batch.events = self._events(slots, seq, tenancy, ts_us)
        batch.gaps = [
            Gap(int(ts_us[i]), dropped, slots.lane(i), int(tenancy[i]), int(seq[i]), self._ordinal(slots, i))
            for i, dropped in gaps_found
            if dropped
        ]
        _count(batch)
        if frames:
            batch.unlaned = dict(zip(REASONS, (int(n) for n in frames[-1].unlaned), strict=True))
        self._frames += len(frames)
        self._move_cursors(slots, weight, tenancy, gaps_found)
        return batch

    def _ordinal(self, slots: Slots, i: int) -> int:
        return self._frames + int(slots.frame[slots.entry[i]])

    # ---- names, owners, gaps ----

    def _learn(self, frame: Frame) -> None:
        for number, name in frame.names.items():
            code = self._code_of.setdefault(name, len(self._names))
            if code == len(self._names):
                self._names.append(name)
            if self._codes.setdefault(number, code) != code:
                reason = f"name {number} is defined again, differently"
                self._damage.append(Damage(frame.path, frame.offset, frame.length, reason))
                self._codes[number] = -1
        for lane, owner in frame.owners.items():
            of_lane = frame.lanes["tenancy"][frame.lanes["lane"] == lane]
            if len(of_lane):
                self._owners[lane, int(of_lane[0])] = owner

    def _weigh(self, slots: Slots) -> tuple[NDArray[np.int64], list[tuple[int, dict[str, int]]]]:
        """Return how many numbers each slot takes in its lane, and the gaps."""
        weight = ((slots.kind >= FLOAT) & (slots.kind <= LONGTEXT)).astype(np.int64)
        weight[slots.kind == EVENT] = 1
        gaps: list[tuple[int, dict[str, int]]] = []
        gapped: dict[int, list[int]] = {}
        for i in slots.units(GAP):
            entry = int(slots.entry[i])
            before = gapped.setdefault(entry, [int(n) for n in slots.entries["gapped"][entry]])
            total = np.frombuffer(slots.payload(i, GAP_BYTES), "<u8").tolist()
            new = [max(0, now - then) for now, then in zip(total, before, strict=True)]
            gapped[entry] = [then + n for then, n in zip(before, new, strict=True)]
            weight[i] = sum(new)
            gaps.append((i, {r: n for r, n in zip(REASONS, new, strict=True) if n}))
        return weight, gaps

    def _owner(self, producer: Producer) -> dict[str, Any]:
        try:
            owner = json.loads(self._owners.get(producer, b"{}"))
        except (ValueError, RecursionError):
            return {}
        return owner if isinstance(owner, dict) else {}

    def _move_cursors(
        self, slots: Slots, weight: NDArray[np.int64], tenancy: NDArray[np.int64],
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
        self, slots: Slots, seq: NDArray[np.int64], tenancy: NDArray[np.int64], ts_us: NDArray[np.int64]
    ) -> Batch:
        codes = self._name_codes(slots)
        is_record = (slots.kind >= FLOAT) & (slots.kind <= LONGTEXT)
        nameless = np.flatnonzero(is_record & (codes < 0))
        if len(nameless):
            reason = f"{len(nameless)} records whose name is not defined"
            self._damage.append(slots.damage(int(nameless[0]), reason))
            is_record[nameless] = False
        texts = self._texts(slots, is_record)
        rows: Any = np.flatnonzero(is_record)
        if len(rows) == slots.end:
            rows = slice(None)  # no copies in the common case
        kind = slots.kind[rows]
        run_of, producers = producer_runs(slots, tenancy)
        run = run_of[rows]
        owners = [self._owner(producer) for producer in producers]
        columns: dict[str, Any] = {
            **_value_columns(slots, rows, kind, texts),
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
            empty = known.null_count == len(owners)
            columns[name] = pa.nulls(len(run), pa.int32()) if empty else known.take(pa.array(run))
        table = pa.Table.from_arrays([columns[f.name] for f in METRICS], schema=METRICS)
        unit = np.cumsum(~slots.member)[rows]
        counts = np.bincount(run, minlength=len(producers))
        return Batch(
            metrics=table, unit=unit, frame=self._frames + slots.frame[slots.entry[rows]], producer=run,
            producers=producers, events=[], gaps=[],
            counts={p: Count(metrics=int(n)) for p, n in zip(producers, counts, strict=True)},
            owner_of=dict(zip(producers, owners, strict=True)), unlaned={}, damage=self._damage,
        )  # fmt: skip

    def _name_codes(self, slots: Slots) -> NDArray[np.int32]:
        """Return for each slot the position of its name, or -1."""
        ids = (slots.raw["commit"] >> np.uint64(8)).astype(np.uint32) & 0xFFFFFF
        known = [number for number in self._codes if number <= 0xFFFFFF]
        table = np.full(max(known, default=-1) + 2, -1, np.int32)
        table[known] = [self._codes[number] for number in known]
        codes: NDArray[np.int32] = table[np.minimum(ids, len(table) - 1)]
        return codes

    # ---- texts ----

    def _texts(self, slots: Slots, is_record: NDArray[np.bool_]) -> Any:
        """Return the texts of the records in their order; clears ``is_record`` where there is none."""
        rows = np.flatnonzero(is_record & (slots.kind >= TEXT))
        short = slots.kind[rows] == TEXT
        packed = _short_texts(slots.raw["value"][rows[short]])
        if short.all():
            found = packed
        else:
            long = pa.array([self._long_text(slots, int(i)) for i in rows[~short]], pa.binary())
            order = np.where(short, np.cumsum(short) - 1, len(packed) + np.cumsum(~short) - 1)
            both: Any = pa.concat_arrays([packed, long])
            found = both.take(pa.array(order))
        good = _is_utf8(found)
        if not good.all():
            for i in rows[~good]:
                self._damage.append(slots.damage(int(i), "a text that can't be read, or is not UTF-8"))
            is_record[rows[~good]] = False
            found = found.filter(pa.array(good))
        return found.cast(pa.string())

    def _long_text(self, slots: Slots, i: int) -> bytes | None:
        data = slots.payload(i)
        if not slots.is_file(i):
            return data
        path = data.decode("utf-8", "replace")
        try:
            self._large_bytes += large_size(self._run_dir, path)
            return read_large(self._run_dir, path) if self._large_bytes <= _LARGE_BYTES_MAX else None
        except OSError:
            return None

    # ---- events ----

    def _events(
        self, slots: Slots, seq: NDArray[np.int64], tenancy: NDArray[np.int64], ts_us: NDArray[np.int64]
    ) -> list[Event]:
        events: list[Event] = []
        for i in slots.units(EVENT):
            code = self._codes.get(slots.name_id(i), -1)
            data = self._event_data(slots, i)
            if code < 0 or data is None:
                why = "of a type that is not defined" if code < 0 else "that is not UTF-8"
                self._damage.append(slots.damage(i, f"an event {why}"))
                continue
            where = slots.lane(i), int(tenancy[i]), int(seq[i]), self._ordinal(slots, i)
            events.append(Event(int(ts_us[i]), self._names[code], data, *where))
        return events

    def _event_data(self, slots: Slots, i: int) -> str | None:
        try:
            text = slots.payload(i).decode("utf-8")
        except UnicodeDecodeError:
            return None
        if not slots.is_file(i):
            return text
        try:
            size: int | None = large_size(self._run_dir, text)
        except OSError as error:
            self._damage.append(slots.damage(i, f"the file of an event can't be read ({error})"))
            size = None
        return json.dumps({"file": text, "bytes": size})


# ---- columns ----


def _value_columns(slots: Slots, rows: Any, kind: NDArray[np.uint8], texts: Any) -> dict[str, Any]:
    bits = np.ascontiguousarray(slots.raw["value"][rows])
    if (kind == FLOAT).all():
        nulls = {"int_value": pa.nulls(len(kind), pa.int64()), "text": pa.nulls(len(kind), pa.string())}
        return {"value": pa.array(bits.view(np.float64)), **nulls}
    is_whole = (kind == INT) | (kind == BOOL)
    is_text = kind >= TEXT
    whole = np.where(kind == BOOL, bits != 0, bits.view(np.int64))
    value = np.where(is_whole, whole.astype(np.float64), bits.view(np.float64))
    place = pa.array(np.cumsum(is_text) - 1, mask=~is_text)
    return {
        "value": pa.array(value, mask=is_text),
        "int_value": pa.array(whole, mask=~is_whole),
        "text": texts.take(place) if len(texts) else pa.nulls(len(kind), pa.string()),
    }


def _short_texts(bits: NDArray[np.uint64]) -> Any:
    """Return texts of up to 8 bytes, padded with NUL; null where there is a NUL inside."""
    bits = np.ascontiguousarray(bits)
    length = np.zeros(len(bits), np.int32)
    for byte in range(8):
        length += bits >= np.uint64(1 << 8 * byte)
    matrix = bits.view(np.uint8).reshape(-1, 8)
    padding = np.arange(8, dtype=np.int32) >= length[:, None]
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(length, dtype=np.int32)])
    valid = np.packbits(((matrix != 0) | padding).all(axis=1), bitorder="little")
    buffers: Any = [pa.py_buffer(array.tobytes()) for array in (valid, offsets, matrix[~padding])]
    return pa.Array.from_buffers(pa.binary(), len(bits), buffers)


def _is_utf8(texts: Any) -> NDArray[np.bool_]:
    """Return which texts are there and are UTF-8."""
    there: NDArray[np.bool_] = texts.is_valid().to_numpy(zero_copy_only=False)
    try:
        texts.cast(pa.string())
    except pa.ArrowInvalid:
        for i, text in enumerate(texts.to_pylist()):
            there[i] = there[i] and text.decode("utf-8", "ignore").encode() == text
    return there


def _int32(owner: dict[str, Any], name: str, missing: int | None) -> int | None:
    value = owner.get(name)
    return value if type(value) is int and -(2**31) <= value < 2**31 else missing


def _count(batch: Batch) -> None:
    for event in batch.events:
        batch.counts.setdefault((event.lane, event.tenancy), Count()).events += 1
    for gap in batch.gaps:
        dropped = batch.counts.setdefault((gap.lane, gap.tenancy), Count()).dropped
        for reason, count in gap.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
