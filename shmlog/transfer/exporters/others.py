"""A run's summary, and a run as a pickle."""

from __future__ import annotations

import json
import pickle
from typing import IO, Any

import numpy as np
import pyarrow as pa

from shmlog.base.plain import plain
from shmlog.reader.stored import StoredRun
from shmlog.records.values import COLUMN_OF
from shmlog.transfer.exporters.describe import describe
from shmlog.transfer.exporters.output import Progress


def write_summary(run: StoredRun, table: pa.Table, file: IO[bytes], progress: Progress) -> int:
    """Write the figures of each metric as JSON; return how many metrics there are."""
    column: Any = table["name"].unify_dictionaries().combine_chunks()
    codes = column.indices.to_numpy()
    by_name = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(column.dictionary)))
    names, figures = column.dictionary.to_pylist(), dict[str, Any]()
    for code in sorted(range(len(names)), key=names.__getitem__):
        rows = by_name[ends[code - 1] if code else 0 : ends[code]]
        if len(rows):
            figures[names[code]] = _figures(table.take(pa.array(rows)))
            progress(len(figures), len(names))
    document = {
        "run_id": run.id, "experiment": run.experiment, "status": run.status, "counts": run.counts,
        "statistics": figures,
    }  # fmt: skip
    file.write(f"{json.dumps(plain(document), indent=2, allow_nan=False)}\n".encode())
    return len(figures)


def _figures(table: pa.Table) -> dict[str, Any]:
    """Return the figures of a metric; a metric of texts has only their count and the last one."""
    row = table.slice(table.num_rows - 1).to_pylist()[0]
    figures: dict[str, Any] = {"records": table.num_rows, "last": row[COLUMN_OF[row["kind"]]]}
    numbers = table["value"].drop_null().to_numpy()
    finite = numbers[np.isfinite(numbers)]
    if not len(numbers):
        return figures
    figures |= {"count": len(finite), "non_finite": len(numbers) - len(finite)}
    if not len(finite):
        return figures
    with np.errstate(over="ignore", invalid="ignore"):
        figures |= {name: float(getattr(np, name)(finite)) for name in ("mean", "std", "min", "max", "median")}
    return figures


def write_pickle(run: StoredRun, table: pa.Table, file: IO[bytes], progress: Progress) -> int:
    """Write a dict of plain lists and dicts, with a list for each column of the metrics."""
    document = {**describe(run), "events": run.events(), "metrics": table.to_pydict()}
    pickle.dump(document, file, protocol=pickle.HIGHEST_PROTOCOL)
    progress(table.num_rows, table.num_rows)
    return int(table.num_rows)
