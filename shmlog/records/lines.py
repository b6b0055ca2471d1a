"""events.jsonl and run.log: structured events as lines, for programs and for people.

Metrics are formatted in bulk by Arrow, without a Python object per record.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from shmlog import _bulk
from shmlog.base.plain import WORDS
from shmlog.base.times import timestamp
from shmlog.records import words
from shmlog.records.decode import Batch, Event, Gap, Producer
from shmlog.records.order import cut, row_order
from shmlog.records.schema import GROUP_TEXT_BYTES
from shmlog.records.texts import read_texts, refuse_unread, text_lengths

pc: Any = pyarrow.compute  # its stubs reject most calls that are valid

GAP_TYPE = "gap"
METRICS_TYPE = "metrics"
_CHUNK_UNITS = 16_384  # some megabytes of lines: the allocator reuses this memory
_PRODUCER_FIELDS = ("rank", "local_rank", "worker", "pid")


# ---- events, one by one ----


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse(text: str) -> dict[str, Any] | None:
    """Return the JSON object in ``text``; None if it is not one by RFC 8259."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, allow_nan=False)  # 1e999 is read as an infinity, which is not JSON
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def event_data(event: Event) -> dict[str, Any]:
    """Return the data of an event; ``{"invalid": text}`` if it is not a JSON object."""
    data = _parse(event.data)
    return {"invalid": event.data} if data is None else data


def _suffix(batch: Batch, producer: Producer) -> str:
    owner = batch.owner_of.get(producer, {})
    fields = {name: owner.get(name) for name in _PRODUCER_FIELDS}
    return json.dumps({**fields, "lane": producer[0]}, separators=(",", ":"))[1:-1]


def is_of_user(event: Mapping[str, Any]) -> bool:
    """Whether a user logged this line as an event, although its type is one of ours."""
    return event.get("user") is True


def _line(batch: Batch, item: Event | Gap) -> str:
    mark = ""
    if isinstance(item, Gap):
        event_type, data = GAP_TYPE, json.dumps({"dropped": item.dropped}, separators=(",", ":"))
    else:
        event_type, data = item.event_type, json.dumps(event_data(item), separators=(",", ":"))
        mark = '"user":true,' if event_type in (GAP_TYPE, METRICS_TYPE) else ""
    suffix = _suffix(batch, (item.lane, item.tenancy))
    return (
        f'{{"timestamp":"{timestamp(item.ts_us)}",{mark}"event_type":{json.dumps(event_type)},"data":{data},'
        f'{suffix},"seq":{item.seq}}}\n'
    )


# ---- metrics, in bulk ----


def _values(table: pa.Table) -> Any:
    """Return the values as JSON: floats that read back the same, ints exactly."""
    value = table["value"].combine_chunks()
    text = _floats(value)
    if not pc.all(pc.is_finite(value)).as_py():
        for word, number in WORDS.items():
            is_alike = pc.is_nan(value) if word == "NaN" else pc.equal(value, number)
            text = pc.if_else(pc.fill_null(is_alike, False), json.dumps(word), text)
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
    """Return floats as the shortest text that reads back the same and is not an integer."""
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
    quoted = pa.array([json.dumps(text) for text in table["text"].take(pa.array(rows)).to_pylist()], pa.string())
    mask = np.zeros(len(text), bool)
    mask[rows] = True
    return pc.replace_with_mask(text, pa.array(mask), quoted)


def _texts(texts: Any) -> tuple[NDArray[np.int32], Any]:
    """Return the offsets and the bytes of an array of strings."""
    _, offsets, data = texts.buffers()
    if not len(texts):
        return np.empty(0, np.int32), b""
    return np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1], data or b""


def _strings(values: list[str]) -> tuple[NDArray[np.int32], Any]:
    return _texts(pa.array(values, pa.string()))


def _int64(column: Any) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = column.combine_chunks().cast(pa.int64()).to_numpy()
    return numbers


def event_lines(batch: Batch, *, metrics: bool, read_large: Callable[[str], bytes] = refuse_unread) -> Iterator[bytes]:
    """Yield the lines of events.jsonl for a batch, in the order of frames and, within a frame, of time.

    Parameters
    ----------
    metrics : bool
        Whether metrics get lines too, one per call.
    read_large : callable
        Reads a large text that the decoder has left in its file; some are in memory at a time.
    """
    others: list[Event | Gap] = [*batch.events, *batch.gaps]
    lines = [_line(batch, item) for item in others]
    other_frames = np.array([item.frame for item in others], np.int64)
    other_ts = np.array([item.ts_us for item in others], np.int64)
    if not metrics or batch.metrics.num_rows == 0:
        if others:
            yield "".join(lines[i] for i in np.lexsort((other_ts, other_frames))).encode()
        return
    firsts = np.flatnonzero(np.diff(batch.unit, prepend=-1))
    frame = batch.stretches.frame()[firsts]
    done = -1  # frame up to which the others are written
    for begin, end in itertools.pairwise(_chunk_bounds(frame)):
        is_last = end == len(firsts)
        rows = slice(int(firsts[begin]), batch.metrics.num_rows if is_last else int(firsts[end]))
        last_frame = int(other_frames.max(initial=0)) if is_last else int(frame[end - 1])
        chosen = np.flatnonzero((other_frames > done) & (other_frames <= last_frame))
        done = last_frame
        calls = _Calls(batch, rows, firsts[begin:end] - rows.start, frame[begin:end])
        yield from calls.lines([lines[i] for i in chosen], other_frames[chosen], other_ts[chosen], read_large)


class _Calls:
    """Consecutive calls, as columns of numbers."""

    def __init__(self, batch: Batch, rows: slice, firsts: NDArray[np.int64], frame: NDArray[np.int64]) -> None:
        self._batch = batch
        self._table = batch.metrics.slice(rows.start, rows.stop - rows.start)
        self._producer = batch.stretches.producer()[rows].astype(np.int32)
        self._firsts = firsts
        self._frame = frame
        self._ts_us = _int64(self._table["ts"])

    def lines(
        self, others: list[str], other_frames: NDArray[np.int64], other_ts: NDArray[np.int64],
        read_large: Callable[[str], bytes],
    ) -> Iterator[bytes]:  # fmt: skip
        """Yield the lines of the calls, merged with the others; only some of the texts are in memory at a time."""
        order = self._order(other_frames, other_ts)
        sizes = np.zeros(len(order), np.int64)
        sizes[: len(self._firsts)] = np.add.reduceat(text_lengths(self._table), self._firsts)
        for start, end in cut(sizes[order], GROUP_TEXT_BYTES):
            yield self._some_lines(order[start:end], others, read_large)

    def _some_lines(self, order: NDArray[np.uint32], others: list[str], read_large: Callable[[str], bytes]) -> bytes:
        chosen = np.zeros(len(self._firsts) + len(others), bool)
        chosen[order] = True
        rows_of_calls = np.diff(self._firsts, append=self._table.num_rows)
        table = read_texts(self._table, read_large, np.repeat(chosen[: len(self._firsts)], rows_of_calls))
        names: Any = table["name"].combine_chunks()
        keys = [json.dumps(name) for name in names.dictionary.to_pylist()]
        producers = [_suffix(self._batch, producer) for producer in self._batch.producers]
        return _bulk.lines(
            order,
            np.append(self._firsts, table.num_rows),
            self._ts_us,
            _int64(table["step"]),
            _int64(table["seq"]),
            names.indices.to_numpy(),
            self._producer,
            *_texts(_values(table)),
            *_strings(keys),
            *_strings(producers),
            *_strings(others),
        )

    def _order(self, other_frames: NDArray[np.int64], other_ts: NDArray[np.int64]) -> NDArray[np.uint32]:
        frames = np.concatenate([self._frame, other_frames])
        _, group = np.unique(frames, return_inverse=True)
        ts_us = np.concatenate([self._ts_us[self._firsts], other_ts])
        return row_order([ts_us], group.astype(np.int32), int(group.max()) + 1)


def _chunk_bounds(frames: NDArray[np.int64]) -> list[int]:
    """Cut the calls into chunks of whole frames, each at least `_CHUNK_UNITS` calls but the last."""
    starts = np.flatnonzero(np.diff(frames, prepend=-1))
    bounds = [0]
    for start in starts.tolist():
        if start - bounds[-1] >= _CHUNK_UNITS:
            bounds.append(start)
    return [*bounds, len(frames)]


# ---- for people ----


def _human(batch: Batch, item: Event | Gap, experiment: str, makers: Collection[Producer]) -> str:
    producer = item.lane, item.tenancy
    if isinstance(item, Gap):
        event_type, data = GAP_TYPE, {"dropped": item.dropped}
    else:
        event_type, data = item.event_type, event_data(item)
    first, *others = words.lines_of(event_type, data)
    time = timestamp(item.ts_us)[:19].replace("T", " ")
    level = words.level_of(event_type, data).upper()
    line = f"{time} - {experiment} - {words.printable(level)} - {first}{_behind(batch, producer, producer in makers)}"
    return "".join(f"{text}\n" for text in (line, *others))


def _behind(batch: Batch, producer: Producer, is_maker: bool) -> str:
    """Return who has logged a line: nothing for the process that made the run, unless it is a rank."""
    owner = batch.owner_of.get(producer, {})
    names = [f"{name} {owner[name]}" for name in ("rank", "worker") if owner.get(name) is not None]
    if not names and not is_maker:
        names = [f"pid {owner['pid']}"] if owner.get("pid") is not None else [f"lane {producer[0]}"]
    return f" [{', '.join(names)}]" if names else ""


def human_lines(batch: Batch, experiment: str, makers: Collection[Producer] = frozenset()) -> bytes:
    """Return the lines of run.log for a batch, in the order of `event_lines`.

    ``makers`` are those that have made the run, or an attempt of it: lines of others say whose they are.
    """
    others: list[Event | Gap] = [*batch.events, *batch.gaps]
    others.sort(key=lambda item: (item.frame, item.ts_us))
    return "".join(_human(batch, item, experiment, makers) for item in others).encode("utf-8", "replace")
