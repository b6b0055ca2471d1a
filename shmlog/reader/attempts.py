"""Which attempt of a run each metric is of, and which a later attempt has superseded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from shmlog.folder.description import Description
from shmlog.records.lanes import NODE
from shmlog.records.schema import RECORDS_OF_NODES

pc: Any = pyarrow.compute

_NEVER = np.iinfo(np.int64).max


def mark_attempts(table: pa.Table, described: Description, *, superseded: bool) -> pa.Table:
    """Return metrics with the columns ``attempt`` and ``superseded``; those that are it only if asked for.

    Where a later attempt has gone back, its values count: from the smallest step on that it has
    logged for a metric, what earlier attempts have of that metric is superseded.

    Parameters
    ----------
    table : pyarrow.Table
        Schema `OF_NODES`, every record of each metric that is in it.
    described : Description
        What run.yaml says.
    superseded : bool
        Whether to return those records, too.

    Returns
    -------
    pyarrow.Table
        Schema `RECORDS_OF_NODES`.
    """
    attempts = len(described.first_lanes(NODE))
    if attempts == 1:
        return _with_columns(table, pa.repeat(pa.scalar(1, pa.int32()), table.num_rows), _nothing(table))
    node, lane = table["node"].to_numpy(), table["lane"].to_numpy()
    nodes = pc.unique(table["node"]).to_pylist()
    attempt, code = np.empty(table.num_rows, np.int64), np.zeros(table.num_rows, np.int64)  # code: which of `nodes`
    for i, number in enumerate(nodes):
        of_node = slice(None) if len(nodes) == 1 else node == number
        code[of_node] = i
        attempt[of_node] = np.searchsorted(described.first_lanes(number), lane[of_node], side="right")
    marks = _superseded(table, code, attempt, attempts)
    table = _with_columns(table, pa.array(attempt.astype(np.int32)), pa.array(marks))
    return table if superseded or not marks.any() else table.filter(pa.array(~marks))


def _nothing(table: pa.Table) -> Any:
    return pa.repeat(pa.scalar(False), table.num_rows)


def _with_columns(table: pa.Table, attempt: Any, superseded: Any) -> pa.Table:
    *columns, node = table.columns
    return pa.Table.from_arrays([*columns, attempt, superseded, node], schema=RECORDS_OF_NODES)


def _superseded(
    table: pa.Table, node: NDArray[np.int64], attempt: NDArray[np.int64], attempts: int
) -> NDArray[np.bool_]:
    names: Any = table["name"].unify_dictionaries().combine_chunks()
    if not table.num_rows:
        return np.zeros(0, bool)
    count = len(names.dictionary)
    code = node * count + names.indices.to_numpy()
    step = table["step"].to_numpy()
    # By node, name and attempt the smallest step; behind the last attempt comes none.
    begins = np.full(((int(node.max()) + 1) * count, attempts + 2), _NEVER, np.int64)
    np.minimum.at(begins, (code, attempt), step)
    of_later = np.minimum.accumulate(begins[:, ::-1], axis=1)[:, ::-1]
    begin = of_later[code, attempt + 1]
    marks: NDArray[np.bool_] = (step >= begin) & (begin != _NEVER)
    return marks
