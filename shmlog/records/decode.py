"""Decode slots of the write-ahead log into metrics, events and gaps.

Metrics are decoded in bulk; only long texts, events, owners and gaps are decoded
one by one. No input is trusted: whatever makes no sense is left out and
reported.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shmlog.folder.files import LOCAL, RunFiles
from shmlog.folder.large import large_size, read_large
from shmlog.records.columns import BOOL, EVENT, FLOAT, GAP, INT, LONGTEXT, OWNER, TEXT, Columns, decode_slots
from shmlog.records.reasons import REASONS
from shmlog.records.schema import METRICS
from shmlog.records.texts import UNREAD, kind_column
from shmlog.records.ticks import TickClock
from shmlog.records.wal import Damage, Frame

# Most bytes of large texts that a call of decode() reads from their files.
_LARGE_BYTES_MAX = 1 << 30
# Errors of such a file that another try won't mend: it is missing, or not ours. None: its checksum is wrong.
_LASTING = (None, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_NAME_ID_MAX = 0xFFFFFF  # 24 bits of the commit word

Producer = tuple[int, int]  # lane, tenancy


class Event(NamedTuple):
    """A structured event; ``data`` is its JSON object as it was logged."""

    ts_us: int
    event_type: str
    data: str
    lane: int
    tenancy: int
    seq: int
    frame: int


class Gap(NamedTuple):
    """The number of dropped records, by reason, at their place in the lane."""

    ts_us: int
    dropped: dict[str, int]
    lane: int
    tenancy: int
    seq: int
    frame: int


@dataclass
class Count:
    """How many records of a producer are on disk, and how many were dropped."""

    metrics: int = 0
    events: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass
class Cursor:
    """Where a lane goes on after the frames decoded so far."""

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
    unit : ndarray of int32, shape (rows,)
        Rows of one call share a number.
    stretches : Stretches
        The frames and producers of the rows.
    owner_of : dict
        The owner record of each producer, by (lane, tenancy).
    offered : dict
        By lane, how many records were offered to it up to the end of these frames, logged or dropped.
    """

    metrics: pa.Table
    unit: NDArray[np.int32]
    stretches: Stretches
    producers: list[Producer]
    events: list[Event]
    gaps: list[Gap]
    counts: dict[Producer, Count]
    owner_of: dict[Producer, dict[str, Any]]
    unlaned: dict[str, int]
    offered: dict[int, int]
    damage: list[Damage]


@dataclass
class Stretches:
    """Stretches of consecutive rows of one frame and one producer.

    Attributes
    ----------
    rows : ndarray of int64
        The number of rows of each.
    frames : ndarray of int64
        Ordinal of the frame of each, counted over the life of the decoder.
    producers : ndarray of int64
        Position of the producer of each in the batch's list.
    """

    rows: NDArray[np.int64]
    frames: NDArray[np.int64]
    producers: NDArray[np.int64]

    def frame(self) -> NDArray[np.int64]:
        """Return the frame of each row."""
        return np.repeat(self.frames, self.rows)

    def producer(self) -> NDArray[np.int64]:
        """Return the producer of each row."""
        return np.repeat(self.producers, self.rows)


class Decoder:
    """Decodes the frames of consecutive logs of the run in ``run_dir``.

    Parameters
    ----------
    run_dir : Path
        Folder of the run, with its large texts.
    takes_all : bool
        For a caller that deletes the logs afterwards: there is no limit for the size of all texts together, and
        `decode` raises OSError if one can't be read at the moment; then another decoder has to try again. Large
        texts stay in their files, see `shmlog.records.texts`.
    """

    def __init__(self, run_dir: Path, *, takes_all: bool = False, files: RunFiles = LOCAL) -> None:
        self._run_dir = run_dir
        self._files = files
        self._takes_all = takes_all
        self._codes: dict[int, int] = {}  # name id -> position in _names, or -1
        self._names: list[str] = []
        self._code_of: dict[str, int] = {}
        self._owners: dict[Producer, bytes] = {}
        self._ends: dict[int, int] = {}
        self._clock = TickClock()
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
        columns, damage = decode_slots(frames, self._ends, self._code_table(), self._clock)
        self._damage += damage
        new_owners = columns.items[columns.items["kind"] == OWNER]
        for item in new_owners:
            self._owners[_producer(columns, item)] = columns.payload(item)
        batch = self._metrics(columns)
        batch.events = self._events(columns)
        batch.gaps = self._gaps(columns)
        _count(batch)
        if frames:
            batch.unlaned = dict(zip(REASONS, (int(n) for n in frames[-1].unlaned), strict=True))
        self._frames += len(frames)
        self._move_cursors(columns)
        if len(new_owners):
            self._forget_owners()
        batch.offered = {lane: self.cursors[lane].seq for lane in columns.after["lane"].tolist()}
        return batch

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

    def _code_table(self) -> NDArray[np.int32]:
        """Return, by name id, the position of its name, or -1."""
        ids = [number for number in self._codes if number <= _NAME_ID_MAX]
        table = np.full(max(ids, default=-1) + 1, -1, np.int32)
        table[ids] = [self._codes[number] for number in ids]
        return table

    def _owner(self, producer: Producer) -> dict[str, Any]:
        try:
            owner = json.loads(self._owners.get(producer, b"{}"))
        except (ValueError, RecursionError):
            return {}
        return owner if isinstance(owner, dict) else {}

    def _origin(self, columns: Columns, item: np.void) -> tuple[int, int, int, int]:
        """Return lane, tenancy, seq and frame of an item."""
        frame = self._frames + int(columns.frame[item["entry"]])
        return (*_producer(columns, item), int(item["seq"]), frame)

    def _gaps(self, columns: Columns) -> list[Gap]:
        gaps: list[Gap] = []
        for item in columns.items[columns.items["kind"] == GAP]:
            dropped = {r: n for r, n in zip(REASONS, item["dropped"].tolist(), strict=True) if n}
            if dropped:
                gaps.append(Gap(int(item["ts_us"]), dropped, *self._origin(columns, item)))
        return gaps

    def _move_cursors(self, columns: Columns) -> None:
        for entry in columns.after:
            lane, tenancy = int(entry["lane"]), int(entry["tenancy"])
            self.cursors[lane] = Cursor(
                position=int(entry["position"]),
                seq=int(entry["seq"]),
                tenancy=tenancy,
                gapped=entry["gapped"].tolist(),
                owner_json=self._owners.get((lane, tenancy), b""),
            )

    def _forget_owners(self) -> None:
        """Forget those whose tenancy is over: no later frame has records of theirs."""
        latest = {lane: cursor.tenancy for lane, cursor in self.cursors.items()}
        self._owners = {
            (lane, tenancy): owner for (lane, tenancy), owner in self._owners.items() if tenancy >= latest.get(lane, 0)
        }

    # ---- metrics ----

    def _metrics(self, columns: Columns) -> Batch:
        texts = self._texts(columns)
        stretches, producers = self._stretches(columns)
        owners = [self._owner(producer) for producer in producers]

        def of_producer(values: list[int]) -> Any:
            return pa.array(np.repeat(np.array(values, np.int32)[stretches.producers], stretches.rows))

        arrays: dict[str, Any] = {
            **_value_columns(columns, texts),
            "step": pa.array(columns.step),
            "name": pa.DictionaryArray.from_arrays(pa.array(columns.name), pa.array(self._names, pa.string())),
            "kind": kind_column(columns.kind.view(np.int8)),
            "ts": pa.array(columns.ts_us).view(pa.timestamp("us", tz="UTC")),
            "seq": pa.array(columns.seq),
            "lane": of_producer([lane for lane, _ in producers]),
            "pid": of_producer([_int32(owner, "pid", -1) or 0 for owner in owners]),
        }
        for name in ("rank", "local_rank", "worker"):
            values = pa.array([_int32(owner, name, None) for owner in owners], pa.int32())
            is_empty = values.null_count == len(owners)
            rows = len(columns.step)
            arrays[name] = pa.nulls(rows, pa.int32()) if is_empty else values.take(pa.array(stretches.producer()))
        table = pa.Table.from_arrays([arrays[f.name] for f in METRICS], schema=METRICS)
        counts = np.bincount(stretches.producers, stretches.rows, len(producers)).astype(np.int64)
        return Batch(
            metrics=table, unit=columns.unit, stretches=stretches, producers=producers, events=[], gaps=[],
            counts={p: Count(metrics=n) for p, n in zip(producers, counts.tolist(), strict=True)},
            owner_of=dict(zip(producers, owners, strict=True)), unlaned={}, offered={}, damage=self._damage,
        )  # fmt: skip

    def _stretches(self, columns: Columns) -> tuple[Stretches, list[Producer]]:
        starts = columns.stretches
        entry = starts["entry"]
        pairs = zip(columns.entries["lane"][entry].tolist(), starts["tenancy"].tolist(), strict=True)
        producers: dict[Producer, int] = {}
        number = np.array([producers.setdefault(pair, len(producers)) for pair in pairs], np.int64)
        bounds = np.append(starts["row"], len(columns.step)).astype(np.int64)
        stretches = Stretches(bounds[1:] - bounds[:-1], self._frames + columns.frame[entry], number)
        return stretches, list(producers)

    # ---- texts ----

    def _texts(self, columns: Columns) -> Any:
        """Return the texts of the rows in their order; remove the rows whose text can't be read."""
        if not columns.kinds >> TEXT & 1:
            return pa.nulls(0, pa.string())
        rows = np.flatnonzero(columns.kind == TEXT - FLOAT)
        items = columns.items[columns.items["kind"] == LONGTEXT]
        texts = _short_texts(columns.value[rows])
        if len(items):
            long = pa.array([self._long_text(columns, item) for item in items], pa.binary())
            order = np.arange(len(rows))
            order[np.searchsorted(rows, items["row"])] = len(rows) + np.arange(len(items))
            both: Any = pa.concat_arrays([texts, long])
            texts = both.take(pa.array(order))
        is_valid = _is_utf8(texts)
        if not is_valid.all():
            for row in rows[~is_valid].tolist():
                stretch = int(np.searchsorted(columns.stretches["row"], row, side="right")) - 1
                entry = int(columns.stretches["entry"][stretch])
                self._damage.append(columns.damage(entry, "a text that can't be read, or is not UTF-8"))
            columns.remove(rows[~is_valid])
            texts = texts.filter(pa.array(is_valid))
        return texts.cast(pa.string())

    def _long_text(self, columns: Columns, item: np.void) -> bytes | None:
        data = columns.payload(item)
        if not item["is_file"]:
            return data
        text = self._large_text(data.decode("utf-8", "replace"))
        if text is None or not self._takes_all:
            return text
        columns.kind[item["row"]], columns.value[item["row"]] = UNREAD, len(text)
        return data if _is_utf8(pa.array([text], pa.binary())).all() else None

    def _large_text(self, path: str) -> bytes | None:
        try:
            self._large_bytes += large_size(self._run_dir, path, self._files)
            is_too_much = self._large_bytes > _LARGE_BYTES_MAX and not self._takes_all
            return None if is_too_much else read_large(self._run_dir, path, self._files)
        except OSError as error:
            self._refuse_passing(error)
            return None

    def _refuse_passing(self, error: OSError) -> None:
        """Raise ``error`` if another try may succeed and nothing may be left out."""
        if self._takes_all and error.errno not in _LASTING:
            raise error

    # ---- events ----

    def _events(self, columns: Columns) -> list[Event]:
        events: list[Event] = []
        for item in columns.items[columns.items["kind"] == EVENT]:
            code = self._codes.get(int(item["name"]), -1)
            data = self._event_data(columns, item)
            if code < 0 or data is None:
                why = "of a type that is not defined" if code < 0 else "that is not UTF-8"
                self._damage.append(columns.damage(int(item["entry"]), f"an event {why}"))
                continue
            events.append(Event(int(item["ts_us"]), self._names[code], data, *self._origin(columns, item)))
        return events

    def _event_data(self, columns: Columns, item: np.void) -> str | None:
        try:
            text = columns.payload(item).decode("utf-8")
        except UnicodeDecodeError:
            return None
        if not item["is_file"]:
            return text
        try:
            size: int | None = large_size(self._run_dir, text, self._files)
        except OSError as error:
            self._refuse_passing(error)
            reason = f"the file of an event can't be read ({error})"
            self._damage.append(columns.damage(int(item["entry"]), reason))
            size = None
        return json.dumps({"file": text, "bytes": size})


def _producer(columns: Columns, item: np.void) -> Producer:
    return int(columns.entries["lane"][item["entry"]]), int(item["tenancy"])


# ---- columns ----


def _value_columns(columns: Columns, texts: Any) -> dict[str, Any]:
    bits, rows = columns.value, len(columns.value)
    if columns.kinds & ~(1 << FLOAT) == 0:
        nulls = {"int_value": pa.nulls(rows, pa.int64()), "text": pa.nulls(rows, pa.string())}
        return {"value": pa.array(bits.view(np.float64)), **nulls}
    kind = columns.kind + FLOAT
    is_whole = (kind == INT) | (kind == BOOL)
    is_unread = columns.kind == UNREAD
    is_text = (kind == TEXT) | is_unread
    whole = np.where(kind == BOOL, bits != 0, bits.view(np.int64))
    value = np.where(is_whole, whole.astype(np.float64), bits.view(np.float64))
    place = pa.array(np.cumsum(is_text) - 1, mask=~is_text)
    return {
        "value": pa.array(value, mask=is_text),
        "int_value": pa.array(whole, mask=~(is_whole | is_unread)),
        "text": texts.take(place) if len(texts) else pa.nulls(rows, pa.string()),
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
    """Return which texts are not null and are UTF-8."""
    is_valid: NDArray[np.bool_] = texts.is_valid().to_numpy(zero_copy_only=False)
    try:
        texts.cast(pa.string())
    except pa.ArrowInvalid:
        for i, text in enumerate(texts.to_pylist()):
            is_valid[i] = is_valid[i] and text.decode("utf-8", "ignore").encode() == text
    return is_valid


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
