"""A run as a TensorBoard event file, written with TensorBoard's own package.

Numbers are scalars of 64 bits, as ``add_scalar(double_precision=True)`` writes them, so that floats
are exact; texts are what ``add_text`` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

from shmlog.base.extras import import_extra
from shmlog.base.times import read_time
from shmlog.base.warn import warn_caller
from shmlog.reader.stored import StoredRun
from shmlog.transfer.exporters.describe import describe
from shmlog.transfer.exporters.output import Progress, slices

PARAMS_TAG = "shmlog/run"

_EXACT = 1 << 53


def import_writer() -> tuple[Any, Any]:
    """Return TensorBoard's classes of an event and of a writer of event files; raises MissingExtraError."""
    event_pb2 = import_extra("tensorboard.compat.proto.event_pb2", "event files")
    record_writer = import_extra("tensorboard.summary.writer.record_writer", "event files")
    return event_pb2.Event, record_writer.RecordWriter


def file_name(run: StoredRun) -> str:
    """Return a name that TensorBoard takes for an event file, always the same for a run."""
    return f"events.out.tfevents.{int(_began(run))}.{run.id}"


def _began(run: StoredRun) -> float:
    began = read_time(run.described.started_at or run.described.created_at)
    return began.timestamp() if began else 0.0


def write_events(run: StoredRun, table: pa.Table, file: IO[bytes], progress: Progress) -> int:
    """Write an event for each record; return how many.

    Warns
    -----
    ShmlogWarning
        If ints are rounded, since no float of 64 bits holds them.
    """
    event_type, writer_type = import_writer()
    writer = writer_type(file)
    writer.write(event_type(wall_time=_began(run), file_version="brain.Event:2").SerializeToString())
    description = event_type(wall_time=_began(run))
    _set_text(description.summary.value.add(), PARAMS_TAG, json.dumps(describe(run)))
    writer.write(description.SerializeToString())
    for portion in slices(table, progress):
        for event in _events(portion, event_type):
            writer.write(event.SerializeToString())
    _warn_of_rounded(table)
    return int(table.num_rows)


def _events(table: pa.Table, event_type: Any) -> Iterator[Any]:
    columns = [table[name].to_pylist() for name in ("step", "name", "kind", "value", "text")]
    times = table["ts"].cast(pa.int64()).to_pylist()
    for step, name, kind, number, text, ts in zip(*columns, times, strict=True):
        event = event_type(wall_time=ts / 1e6, step=step)
        value = event.summary.value.add()
        if kind == "text":
            _set_text(value, name, text)
        else:
            _set_number(value, name, number)
        yield event


def _set_number(value: Any, tag: str, number: float) -> None:
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR
    from tensorboard.compat.proto.types_pb2 import DT_DOUBLE

    value.tag = tag
    value.metadata.plugin_data.plugin_name = "scalars"
    value.metadata.data_class = DATA_CLASS_SCALAR
    value.tensor.dtype = DT_DOUBLE
    value.tensor.tensor_shape.SetInParent()
    value.tensor.double_val.append(number)


def _set_text(value: Any, tag: str, text: str) -> None:
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    value.tag = tag
    value.metadata.plugin_data.plugin_name = "text"
    value.metadata.data_class = DATA_CLASS_TENSOR
    value.tensor.dtype = DT_STRING
    value.tensor.tensor_shape.dim.add(size=1)
    value.tensor.string_val.append(text.encode("utf-8"))


def _warn_of_rounded(table: pa.Table) -> None:
    whole = table["int_value"].drop_null().to_numpy()
    rounded = int(((whole > _EXACT) | (whole < -_EXACT)).sum())
    if rounded:
        warn_caller(f"{rounded} ints of more than 53 bits may be rounded: an event file holds floats alone")
