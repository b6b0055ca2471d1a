"""The half of a store that reads: which experiments and runs there are, and what they hold."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from shmlog.base import variables
from shmlog.base.warn import warn_caller
from shmlog.errors import RunNotFoundError
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import Root
from shmlog.reader.facts import read_record
from shmlog.reader.model import ArtifactRecord, ExperimentRecord, RunRecord
from shmlog.store import experiments
from shmlog.store.catalog import Catalog, Summaries
from shmlog.store.select import Moment, matching, sort_subjects, tests_of
from shmlog.store.where import MISSING, Subject, check_known, names_in, parse_field, problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pyarrow as pa

    from shmlog.reader.stored import StoredRun
    from shmlog.store.compare import Comparison
    from shmlog.store.metrics import MetricRecords

    Params = Sequence[Any] | Mapping[str, Any]

RunName = str | RunRecord


class StoreReader:
    """The half of a `Store` that changes nothing but its index."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self._root = Root(variables.root_or_default(root))
        self._catalog = Catalog(self._root)
        self._summaries = Summaries(self._root)

    def __repr__(self) -> str:
        return f"<shmlog.{type(self).__name__} at {str(self.root)!r}>"

    @property
    def root(self) -> Path:
        """Folder of all experiments."""
        return self._root.path

    # ---- find ----

    def experiments(self) -> list[ExperimentRecord]:
        """Return all experiments, by name."""
        return [experiments.read(self._root, name) for name in self._root.experiments()]

    def experiment(self, name: str) -> ExperimentRecord:
        """Return an experiment.

        Raises
        ------
        ValueError
            If ``name`` can't be the name of an experiment.
        ExperimentNotFoundError
            If there is none of that name.
        """
        self._root.existing_experiment(name)
        return experiments.read(self._root, name)

    def runs(
        self, experiment: str | None = None, *, status: str | Iterable[str] | None = None,
        tags: str | Iterable[str] | None = None, where: str | None = None, group: str | None = None,
        since: Moment | None = None, until: Moment | None = None, sort: str | None = None, limit: int | None = None,
    ) -> list[RunRecord]:  # fmt: skip
        """Return the runs that meet all conditions, newest first.

        Parameters
        ----------
        experiment : str, optional
            Only runs of this experiment.
        status : str or iterable of str, optional
            One status or several, as shmlog or another tracker calls them.
        tags : str or iterable of str, optional
            An expression such as ``"arm:tiered AND (study:1 OR study:2)"``, or tags
            that must all be there.
        where : str, optional
            A condition such as ``'lr > 0.01 and model contains "resnet"'``; see
            `shmlog.store.where.parse_field` for what names stand for.
        group : str, optional
            Only runs of this group.
        since, until : str, datetime or timedelta, optional
            Only runs that began at or after, or before this time; ``"7d"`` is seven days ago.
        sort : str, optional
            A name as in ``where`` that some run has; with ``-`` in front of it, largest first.
        limit : int, optional
            The most runs to return, 0 or more.

        Returns
        -------
        list of RunRecord
            The ``problems`` of a run say what is damaged in it.

        Raises
        ------
        QueryError
            If an argument can't be understood, or no run has the name to sort by.
        ExperimentNotFoundError
            If there is no such experiment.

        Warns
        -----
        ShmlogWarning
            If no run has a name in ``where``, with the names that are most similar; `check_where` raises instead.
        """
        if limit is not None and (not isinstance(limit, int) or limit < 0):
            raise ValueError(f"limit must be a whole number, 0 or more, not {limit!r}")
        tests = tests_of(status, tags, where, since, until, group=group)
        subjects = list(self._subjects(experiment))
        unknown = None if where is None else problem_of("where", names_in(where), subjects)
        if unknown is not None:
            warn_caller(unknown)
        ordered = sort_subjects(list(matching(subjects, tests)), sort, subjects)
        self._summaries.save()
        return [subject.record for subject in ordered[:limit]]

    def check_where(self, where: str, experiment: str | None = None) -> None:
        """Raise UnknownNameError if a condition has a name that no run has, such as a misspelt one.

        Raises
        ------
        UnknownNameError
            It names similar names, and what there is.
        QueryError
            If the condition can't be understood.
        ExperimentNotFoundError
            If there is no such experiment.
        """
        check_known("where", names_in(where), list(self._subjects(experiment)))
        self._summaries.save()

    def values(self, runs: Sequence[RunRecord], names: Iterable[str]) -> dict[str, list[Any]]:
        """Return what names, as in ``where``, stand for in runs: by name, a value for each run, None where it has none.

        Raises
        ------
        UnknownNameError
            If none of the runs has a name; it lists what there is.
        """
        subjects = [Subject(record, partial(self._summaries.of, record)) for record in runs]
        wanted = list(dict.fromkeys(names))
        check_known("columns", wanted, subjects)
        fields = {name: parse_field(name) for name in wanted}
        of_runs = {name: [field(subject) for subject in subjects] for name, field in fields.items()}
        self._summaries.save()
        return {name: [None if value is MISSING else value for value in values] for name, values in of_runs.items()}

    def latest(self, experiment: str | None = None, **conditions: Any) -> RunRecord | None:
        """Return the newest run that meets all conditions, which are those of `runs`; None if there is none."""
        return next(iter(self.runs(experiment, **conditions, limit=1)), None)

    def get(self, run: RunName) -> RunRecord:
        """Return a run as it is now.

        Parameters
        ----------
        run : str or RunRecord
            Its id or ``"experiment/id"``; what fits one run alone: its name, or the beginning of its id or of its
            commit; an experiment, for its newest run; or ``"latest"``.

        Raises
        ------
        ValueError
            If ``run`` can't be the name of a run, or fits several, which the message lists.
        RunNotFoundError
            If there is none.
        StorageError
            If its folder is a symbolic link.
        """
        return read_record(self._layout(run))

    def _subjects(self, experiment: str | None) -> Iterator[Subject]:
        if experiment is not None:
            self._root.existing_experiment(experiment)
        for name in self._root.experiments() if experiment is None else [experiment]:
            for record in self._catalog.runs(name):
                yield Subject(record, partial(self._summaries.of, record))

    def _layout(self, run: RunName, find: Callable[[str], RunLayout] | None = None) -> RunLayout:
        if isinstance(run, RunRecord):
            layout = self._root.with_id(f"{run.experiment}/{run.run_id}")
            if layout is None:
                raise RunNotFoundError(f"no run in {run.dir} any more")
            return layout
        if not isinstance(run, str):
            raise TypeError(f"name a run by its id, 'experiment/id' or its RunRecord, not by {type(run).__name__}")
        return (find or self._root.find)(run)

    # ---- what is in a run ----

    def load(self, run: RunName) -> StoredRun:
        """Open a run for reading, as `shmlog.load` does."""
        from shmlog.reader.stored import load

        return load(self._layout(run).dir)

    def metrics(self, run: RunName, names: str | list[str] | None = None) -> MetricRecords:
        """Return the metrics of a run as a sequence, by step and time.

        Each record is made when it is asked for; ``load(run).metrics(names)`` returns the same as a table.
        """
        from shmlog.store.metrics import MetricRecords

        stored = self.load(run)
        return MetricRecords(stored.id, stored.metrics(names))

    def summary(self, run: RunName) -> Mapping[str, Mapping[str, Any]]:
        """Return ``last``, ``min``, ``max`` and ``count`` for each metric of a run."""
        summary = self._summaries.of(self.get(run))
        self._summaries.save()
        return summary

    def summaries(
        self, runs: Sequence[RunRecord], seconds: float = math.inf
    ) -> list[Mapping[str, Mapping[str, Any]] | None]:
        """Return the `summary` of several runs.

        Parameters
        ----------
        runs : sequence of RunRecord
        seconds : float
            Begin no summary after this time. Those that are left out are None; the next call goes on with them.
        """
        deadline = time.monotonic() + seconds
        found = [
            self._summaries.of(record) if time.monotonic() < deadline else self._summaries.known(record)
            for record in runs
        ]
        self._summaries.save()
        return found

    def sql(self, query: str, params: Params | None = None) -> pa.Table:
        """Return the result of SQL over all runs, live ones included, by DuckDB.

        Parameters
        ----------
        query : str
            One statement that reads the tables ``metrics``, ``events``, ``runs``, ``params`` and
            ``artifacts``. It can't read other files, write any or load extensions.
        params : sequence or mapping, optional
            Values for each ``?``, or for each ``$name``, in the query.

        Returns
        -------
        pyarrow.Table
            The rows in the order of ``ORDER BY``; without it, in any order.

        Raises
        ------
        MissingExtraError
            If DuckDB is not installed: ``pip install 'shmlog[sql]'``.
        QueryError
            If DuckDB can't answer the query, or there is more than one. The message says why.

        Warns
        -----
        ShmlogWarning
            For what is damaged; the result covers the rest.
        """
        from shmlog.reader.sql.sql import query_runs

        return query_runs(self.runs(), query, params)

    def artifacts(self, run: RunName) -> list[ArtifactRecord]:
        """Return the records of a run's artifacts, by path; ``load(run).artifact(path)`` opens one."""
        stored = self.load(run)
        return [ArtifactRecord.of(stored.id, artifact) for artifact in stored.artifacts]

    def compare(self, runs: Iterable[RunName]) -> Comparison:
        """Return two or more runs side by side: parameters in which they differ, and their metrics.

        `StoredRun.compare_metric` says whether a metric differs more than by chance.

        Parameters
        ----------
        runs : iterable of str or RunRecord

        Raises
        ------
        ValueError
            If there are fewer than two, or one of them twice.
        RunNotFoundError
            If there is no such run.
        """
        from shmlog.store.compare import compare

        records = [self.get(run) for run in runs]
        return compare(records, [self.summary(record) for record in records])
