"""Which attempt of a run each metric is of, and which a later attempt has superseded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shmlog.folder.description import Description
from shmlog.records.schema import RECORDS

_NEVER = np.iinfo(np.int64).max


def mark_attempts(table: pa.Table, described: Description, *, superseded: bool) -> pa.Table:
    """Return metrics with the columns ``attempt`` and ``superseded``; those that are it only if asked for.

    Where a later attempt has gone back, its values count: from the smallest step on that it has
    logged for a metric, what earlier attempts have of that metric is superseded.

    Parameters
    ----------
    table : pyarrow.Table
        Schema `METRICS`, every record of each metric that is in it.
    described : Description
        What run.yaml says.
    superseded : bool
        Whether to return those records, too.
    """
    lanes = described.first_lanes()
    if len(lanes) == 1:
        return _with_columns(table, pa.repeat(pa.scalar(1, pa.int32()), table.num_rows), _nothing(table))
    attempt = np.searchsorted(np.array(lanes), table["lane"].to_numpy(), side="right")
    marks = _superseded(table, attempt, len(lanes))
    table = _with_columns(table, pa.array(attempt.astype(np.int32)), pa.array(marks))
    return table if superseded or not marks.any() else table.filter(pa.array(~marks))


def _nothing(table: pa.Table) -> Any:
    return pa.repeat(pa.scalar(False), table.num_rows)


def _with_columns(table: pa.Table, attempt: Any, superseded: Any) -> pa.Table:
    return pa.Table.from_arrays([*table.columns, attempt, superseded], schema=RECORDS)


def _superseded(table: pa.Table, attempt: NDArray[np.int64], attempts: int) -> NDArray[np.bool_]:
    names: Any = table["name"].unify_dictionaries().combine_chunks()
    if not table.num_rows:
        return np.zeros(0, bool)
    code = names.indices.to_numpy()
    step = table["step"].to_numpy()
    # By name and attempt the smallest step; behind the last attempt comes none.
    begins = np.full((len(names.dictionary), attempts + 2), _NEVER, np.int64)
    np.minimum.at(begins, (code, attempt), step)
    of_later = np.minimum.accumulate(begins[:, ::-1], axis=1)[:, ::-1]
    begin = of_later[code, attempt + 1]
    marks: NDArray[np.bool_] = (step >= begin) & (begin != _NEVER)
    return marks
