"""Questions to a run on disk: SQL, statistics, findings, and how two runs differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import pyarrow as pa

    from shmlog.analysis.bootstrap import Difference
    from shmlog.analysis.findings import MetricFinding
    from shmlog.folder.layout import RunLayout
    from shmlog.reader.summary import Summary

_ROWS_AT_ONCE = 4_000_000


class Queries:
    """The methods of a `StoredRun` that compute something from its records."""

    _layout: RunLayout
    id: Any
    experiment: Any
    counts: Any
    names: Callable[..., Any]
    metrics: Callable[..., Any]
    attempts: Any
    reduce: Callable[..., Any]
    to_numpy: Callable[[str], tuple[Any, Any]]

    def portions(
        self, names: str | Sequence[str] | None = None, *, superseded: bool = False, nodes: bool = False
    ) -> Iterator[pa.Table]:
        """Yield what `metrics` returns, some names at a time, so that a huge run is never in memory as a whole.

        All records of a metric are in one table, by step and time.
        """
        if names is not None:
            yield self.metrics(names, superseded=superseded, nodes=nodes)
            return
        all_names = self.names()
        records = int(self.counts.get("metrics") or 0)
        length = max(1, len(all_names) * _ROWS_AT_ONCE // max(records, _ROWS_AT_ONCE))
        for start in range(0, len(all_names), length):
            yield self.metrics(all_names[start : start + length], superseded=superseded, nodes=nodes)

    def summary(self) -> Summary:
        """Return count, last, least and largest value of each metric; a huge run is never in memory as a whole."""
        from shmlog.reader.summary import summarise, summarise_pieces

        if len(self.attempts) == 1:
            summary: Summary = self.reduce(summarise_pieces)
            return summary
        return summarise(self.portions(superseded=True))

    def sql(self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> pa.Table:
        """Return the result of SQL over this run, by DuckDB; as `shmlog.Store.sql` does over all runs.

        Raises
        ------
        MissingExtraError
            If DuckDB is not installed: ``pip install 'shmlog[sql]'``.
        QueryError
            If DuckDB can't answer the query, or there is more than one. The message says why.
        """
        from shmlog.reader.facts import read_record
        from shmlog.reader.sql.sql import query_runs

        record = replace(read_record(self._layout), run_id=self.id, experiment=self.experiment)
        return query_runs([record], query, params)

    def last_values(self) -> dict[str, Any]:
        """Return the last value of each metric, by step and time, of whatever kind it is."""
        from shmlog.reader.summary import summarise

        rows = summarise(self.portions(superseded=True)).rows
        return {row["name"]: row["last"] for row in sorted(rows, key=lambda row: (row["name"], row["last_step"]))}

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
            ``"producer"`` for those of each producer by itself.
        ddof : int
            The divisor of the variance is n - ddof. 1, the default, as in pandas; 0 as in numpy.
        quantiles : sequence of float
            Each in 0 … 1; column ``q5`` is the quantile of 0.05.

        Returns
        -------
        pyarrow.Table
            Sorted by ``name`` and, by producer, ``node``, ``lane``, ``pid``, ``rank``, ``local_rank`` and ``worker``.
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

        return statistics(self.portions(names, nodes=by is not None), by, ddof, quantiles)

    def findings(self, names: str | Sequence[str] | None = None) -> list[MetricFinding]:
        """Return what is worth a look: NaN, infinities, spikes, divergence, trends and stalls.

        `shmlog.analysis.findings` has the thresholds, and the sources of the methods. All producers of a
        metric count as one series, by step and time.

        Parameters
        ----------
        names : str or sequence of str, optional
            As for `metrics`. Text has no findings.

        Returns
        -------
        list of MetricFinding
            By name.
        """
        from shmlog.analysis.findings import findings

        return findings(self.portions(names))

    def report(self) -> str:
        """Return a page of Markdown about the run, for people.

        It says how the run ended, its parameters and results, the figures of its metrics, `findings` and what helps,
        what was dropped or lost, and what differs from the run of its experiment that began before it.
        """
        from shmlog.folder.layout import RunLayout
        from shmlog.folder.root import runs_below
        from shmlog.reader.report import report

        earlier = (a for a, b in pairwise(runs_below(self._layout.dir.parent)) if b == self._layout.dir)
        make: Any = type(self)
        return report(cast("Any", self), next((make(RunLayout(folder)) for folder in earlier), None))

    def compare_metric(
        self, other: Queries | Sequence[Queries], name: str, *, beside: Sequence[Queries] = (), last: int | None = None,
        window: tuple[int | None, int | None] | None = None, **options: Any,
    ) -> Difference:  # fmt: skip
        """Return how a metric of another run differs from that of this one, with a confidence interval.

        Parameters
        ----------
        other : StoredRun or sequence of StoredRun
            Several runs are one side, as those of other seeds; see `shmlog.analysis.bootstrap.difference_of_sides`.
        name : str
        beside : sequence of StoredRun
            Runs on the side of this one.
        last : int, optional
            Only the last so many records of each, by step and time.
        window : pair of int or None, optional
            Only records of these steps, both ends included; None is open.
        **options
            As for `shmlog.analysis.bootstrap.bootstrap_difference`, which says what is returned.

        Raises
        ------
        ValueError
            If a run has too few values, or one that is NaN, infinite or text, or an option is out of range.
        """
        from shmlog.analysis.bootstrap import check_sample, difference_of_sides, select

        others = [other] if isinstance(other, Queries) else list(other)
        sides = [
            [
                check_sample(f"metric {name!r} of run {run.id}", select(*run.to_numpy(name), last, window))
                for run in side
            ]
            for side in ([self, *beside], others)
        ]
        return difference_of_sides(sides, **options)
