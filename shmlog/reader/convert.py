"""The metrics of a run as other libraries have them: pandas, polars, numpy, and a lazy scan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from shmlog.base.extras import import_extra
from shmlog.reader.sources import find_sources
from shmlog.records.schema import METRICS
from shmlog.records.values import BOOL, COLUMN_OF, FLOAT, VALUE_COLUMNS

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow.dataset as ds

    from shmlog.folder.layout import RunLayout
    from shmlog.reader.snapshot import Snapshot

pc: Any = pyarrow.compute  # its stubs refuse most of the calls it takes

Names = str | Sequence[str] | None


class Conversions:
    """The methods of a `StoredRun` that give its metrics to other libraries."""

    _layout: RunLayout
    _look: Callable[..., Any]
    metrics: Callable[..., Any]

    def to_pandas(self, names: Names = None) -> pd.DataFrame:
        """Return metric records as a pandas DataFrame: the rows and columns of `metrics`.

        Names and kinds are categories. Columns of integers that may be null are pandas' own nullable
        ``Int64`` and ``Int32``, so that integers stay exact. The ``value`` of a text is NaN.

        Raises
        ------
        MissingExtraError
            If pandas is not installed: ``pip install 'shmlog[pandas]'``.
        """
        pandas = import_extra("pandas", "to_pandas")
        nullable = {pa.int64(): pandas.Int64Dtype(), pa.int32(): pandas.Int32Dtype()}
        # Columns with a value in every row stay numpy's: a mask would gain nothing.
        dtypes = {field.name: nullable.get(field.type) for field in METRICS if field.nullable}
        table = self.metrics(names)
        frame = table.drop_columns([name for name, dtype in dtypes.items() if dtype is not None]).to_pandas()
        for name, dtype in dtypes.items():
            if dtype is not None:
                frame[name] = dtype.__from_arrow__(table[name])
        return frame[table.column_names]

    def to_polars(self, names: Names = None) -> pl.DataFrame:
        """Return metric records as a polars DataFrame: the rows and columns of `metrics`.

        Raises
        ------
        MissingExtraError
            If polars is not installed: ``pip install 'shmlog[polars]'``.
        """
        frame: pl.DataFrame = import_extra("polars", "to_polars").from_arrow(self.metrics(names))
        return frame

    def to_numpy(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the steps and values of one metric, by step and time.

        Parameters
        ----------
        name : str
            The name, or a pattern as for `metrics`.

        Returns
        -------
        steps : ndarray of int64, shape (n,)
        values : ndarray of float64, shape (n,)
            Ints beyond 2**53 are rounded, bools are 0 and 1, and text is NaN. Of an unknown name,
            n is 0.
        """
        table = self.metrics(name)
        steps = np.ascontiguousarray(table["step"].to_numpy())
        return steps, pc.fill_null(table["value"], float("nan")).to_numpy().astype(np.float64, copy=False)

    def scan(self) -> ds.Dataset:
        """Return the metrics as a dataset that reads its files when it is queried.

        It stays at what the run holds now, even if the run goes on: sealed records are read lazily from
        files that stay open; the others are in memory. If the metrics are only lines of events.jsonl,
        all of them are in memory.

        Returns
        -------
        pyarrow.dataset.Dataset
            Schema `shmlog.records.schema.METRICS`, in no order. Of a resumed run, all records: an attempt
            has those whose ``lane`` is at least its ``first_lane`` and less than that of the next attempt.
            ``polars.scan_pyarrow_dataset(stored.scan())`` makes it a LazyFrame.

        Warns
        -----
        ShmlogWarning
            For a file that is damaged; its sound rows are in memory. A page that is damaged later
            raises OSError when it is read.
        """
        return self._look(self._dataset)

    def _dataset(self, snapshot: Snapshot) -> tuple[ds.Dataset, list[str]]:
        import pyarrow.dataset as ds

        sources, problems = find_sources(self._layout, snapshot)
        options: Any = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        parquet: Any = ds.ParquetFileFormat(default_fragment_scan_options=options)
        fragments = [parquet.make_fragment(self._layout.files.open_for_arrow(part.path)) for part in sources.parts]
        children: list[Any] = [ds.InMemoryDataset(sources.rows.select(METRICS.names), schema=METRICS)]
        if fragments:
            children.insert(0, ds.FileSystemDataset(fragments, METRICS, parquet))
        return ds.UnionDataset(METRICS, children), problems

    def pivot(self, names: Names = None) -> pa.Table:
        """Return one row for each step and one column for each metric.

        If a metric has several values at a step, from one producer or several, the last by time
        counts; `metrics` has them all.

        Parameters
        ----------
        names : str or sequence of str, optional
            As for `metrics`.

        Returns
        -------
        pyarrow.Table
            Column ``step`` (int64, ascending, each once), then the metrics by name: int64 where all
            values are ints, bool where all are bools, string where all are texts, else float64; null
            where a metric has no value, and in place of a text among numbers.

        Raises
        ------
        ValueError
            If a metric is called ``step``; ``names`` can leave it out.
        """
        table = self.metrics(names).select(["step", "name", *VALUE_COLUMNS])
        metrics = sorted(table["name"].unique().to_pylist())
        if "step" in metrics:
            raise ValueError("a metric is called 'step', as the column of steps is; name the others")
        steps, place = np.unique(table["step"].to_numpy(), return_inverse=True)
        columns = [pa.array(steps, pa.int64()), *_wide(table, metrics, place, len(steps))]
        return pa.Table.from_arrays(columns, names=["step", *metrics])


def _wide(table: pa.Table, metrics: list[str], place: NDArray[np.int64], count: int) -> Iterator[Any]:
    """Yield the column of each metric: its last value at each of ``count`` steps; rows are ordered by step and time.

    ``place`` says at which step each row is. The rows are grouped by name once, so that many names cost no more.
    """
    if not table.num_rows:
        return
    names, kinds = (_coded(table[column]) for column in ("name", "kind"))
    values = {column: table[column].combine_chunks() for column in ("value", "int_value")} | {"text": table["text"]}
    rank = {name: i for i, name in enumerate(metrics)}
    name = np.array([rank.get(text, -1) for text in names[1]], np.int64)[names[0]]
    rows = np.argsort(name, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(name[rows])), len(rows) - 1) + 1
    for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        of_name = rows[start:end]
        codes = np.unique(kinds[0][of_name])
        kind = kinds[1][codes[0]] if len(codes) == 1 else FLOAT
        where = place[of_name]
        last = np.append(where[1:] != where[:-1], True)
        at = np.full(count, -1, np.int64)
        at[where[last]] = of_name[last]
        column = pc.take(values[COLUMN_OF[kind]], pa.array(at, mask=at < 0))
        column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        yield column.cast(pa.bool_()) if kind == BOOL else column


def _coded(column: Any) -> tuple[NDArray[np.int32], list[str]]:
    """Return the codes of a dictionary-encoded column, and what they stand for."""
    array = column.unify_dictionaries().combine_chunks()
    return array.indices.to_numpy(), array.dictionary.to_pylist()
