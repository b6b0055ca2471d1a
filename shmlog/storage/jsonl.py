"""events.jsonl and run.log: structured events as lines, for programs and for people.

Metrics are formatted in bulk by Arrow, without a Python object per record.
"""

from __future__ import annotations

import datetime
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from shmlog.storage.decode import Batch, Event, Gap, Producer
from shmlog.storage.wal import TORN_TAIL, Damage

pc: Any = pyarrow.compute  # its stubs refuse most of the calls it takes

GAP_TYPE = "gap"
_CHUNK_UNITS = 131_072
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_PRODUCER_FIELDS = ("rank", "local_rank", "worker", "pid")


def timestamp(ts_us: int) -> str:
    """Return microseconds since 1970 as RFC 3339 in UTC."""
    seconds, rest = divmod(ts_us, 1_000_000)
    return f"{_second(seconds)}{rest:06d}Z"


def _second(seconds: int) -> str:
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (OverflowError, ValueError, OSError):
        return "1970-01-01T00:00:00."  # a clock that was nowhere near
    return f"{moment:%Y-%m-%dT%H:%M:%S}."


# ---- events, one by one ----


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse(text: str) -> dict[str, Any] | None:
    """Return the JSON object that ``text`` is; None if it is none, by RFC 8259."""
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(found, allow_nan=False)  # 1e999 is read as an infinity, which is not JSON
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def event_data(event: Event) -> dict[str, Any]:
    """Return the data of an event; ``{"invalid": text}`` if it is no JSON object."""
    data = _parse(event.data)
    return {"invalid": event.data} if data is None else data


def _suffix(batch: Batch, producer: Producer) -> str:
    owner = batch.owner_of.get(producer, {})
    fields = {name: owner.get(name) for name in _PRODUCER_FIELDS}
    return json.dumps({**fields, "lane": producer[0]}, separators=(",", ":"))[1:-1]


def _line(batch: Batch, found: Event | Gap) -> str:
    if isinstance(found, Gap):
        event_type, data = GAP_TYPE, json.dumps({"dropped": found.dropped}, separators=(",", ":"))
    else:
        event_type, data = found.event_type, json.dumps(event_data(found), separators=(",", ":"))
    suffix = _suffix(batch, (found.lane, found.tenancy))
    return (
        f'{{"timestamp":"{timestamp(found.ts_us)}","event_type":{json.dumps(event_type)},"data":{data},'
        f'{suffix},"seq":{found.seq}}}\n'
    )


# ---- metrics, in bulk ----


def _json_strings(values: list[str]) -> Any:
    return pa.array([json.dumps(value) for value in values], pa.string())


def _values(table: pa.Table) -> Any:
    """Return the values as JSON: floats so that they read back the same, ints exact."""
    value = table["value"].combine_chunks()
    text = _floats(value)
    if not pc.all(pc.is_finite(value)).as_py():
        for unusual, name in ((pc.is_nan(value), "NaN"), (pc.equal(value, np.inf), "Infinity")):
            text = pc.if_else(pc.fill_null(unusual, False), json.dumps(name), text)
        text = pc.if_else(pc.fill_null(pc.equal(value, -np.inf), False), '"-Infinity"', text)
    kind: Any = table["kind"].combine_chunks()
    codes = kind.indices.to_numpy()
    if not codes.any():
        return text
    whole = table["int_value"].combine_chunks()
    text = pc.if_else(pa.array(codes == 1), pc.cast(whole, pa.string()), text)
    truth = pc.if_else(pc.fill_null(pc.equal(whole, 1), False), "true", "false")
    text = pc.if_else(pa.array(codes == 2), truth, text)
    return _with_texts(text, table, np.flatnonzero(codes == 3))


def _floats(value: Any) -> Any:
    """Return floats as text, the shortest that reads back the same, and never as an integer."""
    text = pc.cast(value, pa.string())
    numbers = value.to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(numbers == np.trunc(numbers))
    if not len(rows):
        return text
    whole = text.take(pa.array(rows))
    has_exponent = pc.match_substring(whole, "e")
    mask = np.zeros(len(text), bool)
    mask[rows] = True
    return pc.replace_with_mask(
        text, pa.array(mask), pc.if_else(has_exponent, whole, pc.binary_join_element_wise(whole, ".0", ""))
    )


def _with_texts(text: Any, table: Any, rows: NDArray[np.intp]) -> Any:
    if not len(rows):
        return text
    quoted = _json_strings(table["text"].take(pa.array(rows)).to_pylist())
    mask = np.zeros(len(text), bool)
    mask[rows] = True
    return pc.replace_with_mask(text, pa.array(mask), quoted)


def _timestamps(ts_us: NDArray[np.int64]) -> Any:
    """Return the times as text: each run of equal seconds is formatted once."""
    seconds, rest = np.divmod(ts_us, 1_000_000)
    first = np.flatnonzero(np.diff(seconds, prepend=seconds[0] - 1))
    texts: Any = pa.array([_second(int(s)) for s in seconds[first]], pa.string())
    run = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(seconds))))
    digits = pc.utf8_slice_codeunits(pc.cast(pa.array(rest + 1_000_000), pa.string()), 1)
    return pc.binary_join_element_wise(texts.take(pa.array(run)), digits, "")


def _metric_lines(batch: Batch, begin: int, end: int, firsts: NDArray[np.int64]) -> Any:
    """Return the lines of the calls whose rows are ``begin`` … ``end``; ``firsts`` are their first rows."""
    table = batch.metrics.slice(begin, end - begin)
    names: Any = table["name"].combine_chunks()
    keys = _json_strings(names.dictionary.to_pylist()).take(names.indices)
    pairs = pc.binary_join_element_wise(keys, _values(table), ":")
    first = firsts - begin
    if len(first) < end - begin:
        offsets: Any = pa.array(np.append(first, end - begin).astype(np.int32))
        pairs = pc.binary_join(pa.ListArray.from_arrays(offsets, pairs), ",")
        table = table.take(first)
    suffixes: Any = pa.array([_suffix(batch, producer) for producer in batch.producers], pa.string())
    ts_us = table["ts"].combine_chunks().cast(pa.int64()).to_numpy()
    return pc.binary_join_element_wise(
        '{"timestamp":"',
        _timestamps(ts_us),
        'Z","event_type":"metrics","data":{"step":',
        pc.cast(table["step"].combine_chunks(), pa.string()),
        ',"metrics":{',
        pairs,
        "}},",
        suffixes.take(pa.array(batch.stretches.producer()[firsts])),
        ',"seq":',
        pc.cast(table["seq"].combine_chunks(), pa.string()),
        "}\n",
        "",
    )


def _in_order(lines: Any, frame: NDArray[np.int64], ts_us: NDArray[np.int64]) -> bytes:
    order = np.lexsort((ts_us, frame))
    if (np.diff(order) != 1).any():
        lines = lines.take(pa.array(order))
    return _bytes(lines)


def _bytes(lines: Any) -> bytes:
    _, offsets, data = lines.buffers()
    bounds = np.frombuffer(offsets, np.int32, len(lines) + 1, lines.offset * 4)
    return bytes(memoryview(data)[bounds[0] : bounds[-1]]) if data is not None else b""


def event_lines(batch: Batch, *, metrics: bool) -> Iterator[bytes]:
    """Yield the lines of events.jsonl for a batch, by frame and in a frame by time.

    Parameters
    ----------
    metrics : bool
        Whether metrics get lines too, one per call.
    """
    others: list[Event | Gap] = [*batch.events, *batch.gaps]
    other_frames = np.array([found.frame for found in others], np.int64)
    other_lines = [_line(batch, found) for found in others]
    other_ts = np.array([found.ts_us for found in others], np.int64)
    if not metrics or batch.metrics.num_rows == 0:
        if others:
            yield _in_order(pa.array(other_lines, pa.string()), other_frames, other_ts)
        return
    firsts = np.flatnonzero(np.diff(batch.unit, prepend=-1))
    frame = batch.stretches.frame()
    bounds = _chunk_bounds(frame[firsts])
    ts_us = batch.metrics["ts"].combine_chunks().cast(pa.int64()).to_numpy()
    done = -1  # frame up to which the others are written
    for begin, end in itertools.pairwise(bounds):
        of_chunk = firsts[begin:end]
        last_row = firsts[end] if end < len(firsts) else batch.metrics.num_rows
        last_frame = int(frame[of_chunk[-1]]) if end < len(firsts) else 1 << 62
        chosen = np.flatnonzero((other_frames > done) & (other_frames <= last_frame))
        done = last_frame
        lines = [
            _metric_lines(batch, int(of_chunk[0]), int(last_row), of_chunk),
            pa.array([other_lines[i] for i in chosen], pa.string()),
        ]
        yield _in_order(
            pa.concat_arrays(lines),
            np.concatenate([frame[of_chunk], other_frames[chosen]]),
            np.concatenate([ts_us[of_chunk], other_ts[chosen]]),
        )


def _chunk_bounds(frames: NDArray[np.int64]) -> list[int]:
    """Cut the calls into chunks of whole frames, each at least `_CHUNK_UNITS` calls but the last."""
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    bounds = [0]
    for start in starts.tolist():
        if start - bounds[-1] >= _CHUNK_UNITS:
            bounds.append(start)
    return [*bounds, len(frames)]


# ---- for people ----


def printable(text: str) -> str:
    """Return ``text`` on one line, its control characters as escapes."""
    return _CONTROL.sub(lambda m: m[0].encode("unicode_escape").decode("ascii"), text)


def _human(batch: Batch, found: Event | Gap) -> str:
    owner = batch.owner_of.get((found.lane, found.tenancy), {})
    known = [name for name in ("rank", "worker", "pid") if owner.get(name) is not None]
    who = " ".join(f"{name} {owner[name]}" for name in known)
    if isinstance(found, Gap):
        drops = [f"{count} ({reason})" for reason, count in found.dropped.items()]
        level, text = "WARNING", "dropped " + ", ".join(drops)
    else:
        level, text = _message(found)
    return f"{timestamp(found.ts_us)} {level:<7} [{who}] {printable(text)}\n"


def _message(event: Event) -> tuple[str, str]:
    data = event_data(event)
    if event.event_type == "log":
        return str(data.get("level", "info")).upper(), str(data.get("message", ""))
    if event.event_type == "error":
        return "ERROR", f"{data.get('type')}: {data.get('message')}"
    return "INFO", f"{event.event_type} {json.dumps(data, ensure_ascii=False)}"


def human_lines(batch: Batch) -> bytes:
    """Return the lines of run.log for a batch, in the order of `event_lines`."""
    others: list[Event | Gap] = [*batch.events, *batch.gaps]
    others.sort(key=lambda found: (found.frame, found.ts_us))
    return "".join(_human(batch, found) for found in others).encode("utf-8", "replace")


# ---- reading ----


def read_events(path: Path, limit_bytes: int | None = None) -> tuple[list[dict[str, Any]], list[Damage]]:
    """Return the events of a file, or of its first bytes, and the lines that are none.

    A last line without its end, and NUL bytes that a power loss has left, are reported.
    """
    events: list[dict[str, Any]] = []
    damage: list[Damage] = []
    try:
        with open(path, "rb") as file:
            data = file.read(-1 if limit_bytes is None else limit_bytes)
    except FileNotFoundError:
        return events, damage
    *lines, tail = data.split(b"\n")
    offset = 0
    for line in lines:
        found = _parse_bytes(line)
        if found is not None:
            events.append(found)
        elif line:
            damage.append(Damage(path, offset, len(line) + 1, "not a line of JSON"))
        offset += len(line) + 1
    if tail:
        damage.append(Damage(path, offset, len(tail), TORN_TAIL))
    return events, damage


def _parse_bytes(line: bytes) -> dict[str, Any] | None:
    try:
        return _parse(line.decode("utf-8"))
    except UnicodeDecodeError:
        return None
