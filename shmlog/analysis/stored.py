"""A run on disk that can be asked and analysed: what `shmlog.load` returns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shmlog.reader import stored

if TYPE_CHECKING:
    import pyarrow as pa

    from shmlog.analysis.findings import Finding


def load(run_dir: str | os.PathLike[str]) -> StoredRun:
    """Open a run folder for reading.

    Parameters
    ----------
    run_dir : path
        Folder of a run, which may be running, finished, crashed, or a copy.

    Returns
    -------
    StoredRun
        Reads the files anew at each call, so that a live run is seen as it grows.

    Raises
    ------
    RunNotFoundError
        If there is no run.yaml in it.

    Warns
    -----
    ShmlogWarning
        Here and at every later call, for each file that is damaged, missing or another run's. What is in
        other files is returned all the same.
    """
    layout = stored.find(run_dir)
    stored.warn_of_strange_parts(layout)
    return StoredRun(layout)


class StoredRun(stored.StoredRun):
    """A run on disk; made by `load`."""

    def sql(self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> pa.Table:
        """Return the result of SQL over this run, by DuckDB; as `shmlog.Store.sql` does over all.

        Raises
        ------
        MissingExtraError
            If DuckDB is not installed: ``pip install 'shmlog[sql]'``.
        QueryError
            If DuckDB can't answer it, or it is more than one query. The message says why.
        """
        from shmlog.reader.facts import read_record
        from shmlog.reader.sql.sql import query_runs

        record = replace(read_record(self._layout), run_id=self.id, experiment=self.experiment)
        return query_runs([record], query, params)

    def statistics(
        self, names: str | Sequence[str] | None = None, by: str | None = None, ddof: int = 1,
        quantiles: Sequence[float] = (0.05, 0.25, 0.75, 0.95),
    ) -> pa.Table:  # fmt: skip
        """Return summary statistics of each metric that has numbers.

        Parameters
        ----------
        names : str or sequence of str, optional
            As for `metrics`.
        by : str, optional
            ``"producer"``: of each producer by itself.
        ddof : int
            The divisor of the variance is n - ddof. 1, the default, as in pandas; 0 as in numpy.
        quantiles : sequence of float
            Each in 0 … 1; column ``q5`` is that of 0.05.

        Returns
        -------
        pyarrow.Table
            Sorted by ``name`` and, by producer, ``lane``, ``pid``, ``rank``, ``local_rank`` and ``worker``.
            ``count`` (int64) records, of which ``nan`` are NaN; over the others, as float64, ``mean``, ``std``
            (null unless there are more than ``ddof``), ``min``, ``max``, ``median`` and the quantiles, by
            linear interpolation. ``first`` and ``last`` are those by step and time. Bools count as 0 and 1;
            text is left out; ints beyond 2**53 are rounded.

        Raises
        ------
        ValueError
            If a parameter is out of range.
        """
        from shmlog.analysis.statistics import statistics

        return statistics(self, names, by, ddof, quantiles)

    def findings(self, names: str | Sequence[str] | None = None) -> list[Finding]:
        """Return what is worth a look: NaN, infinities, spikes, trends and stalls.

        `shmlog.analysis.findings` has the thresholds and where the methods are from. All producers of a
        metric count as one series, by step and time.

        Parameters
        ----------
        names : str or sequence of str, optional
            As for `metrics`. Of text, nothing is found.

        Returns
        -------
        list of Finding
            By name.
        """
        from shmlog.analysis.findings import findings

        return findings(self, names)
