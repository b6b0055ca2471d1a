"""A store whose runs can be analysed: what `shmlog.Store` is."""

from __future__ import annotations

from collections.abc import Iterable

from shmlog.analysis.comparison import Comparison, compare
from shmlog.analysis.stored import StoredRun
from shmlog.store import store
from shmlog.store.reading import RunName


class Store(store.Store):
    """All experiments and runs below a folder.

    Every method that takes a run takes its id, ``"experiment/id"``, or a `RunRecord`.
    Listing reads what run.yaml, config.yaml and annotations.yaml of each run say, and
    keeps that in ``.shmlog/index``, which may be deleted at any time.

    Parameters
    ----------
    root : path
        Folder of all experiments. It need not exist.
    """

    def load(self, run: RunName) -> StoredRun:
        """Return a run's metrics and events, as `shmlog.load` does."""
        from shmlog.analysis.stored import load

        return load(self._layout(run).dir)

    def compare(self, runs: Iterable[RunName]) -> Comparison:
        """Return two or more runs side by side: parameters in which they differ, and their metrics.

        `shmlog.analysis.bootstrap.compare_metric` tells whether a metric differs more than by chance.

        Parameters
        ----------
        runs : iterable of str or RunRecord

        Raises
        ------
        ValueError
            If there are fewer than two, or one is there twice.
        RunNotFoundError
            If there is no such run.
        """
        records = [self.get(run) for run in runs]
        return compare(records, [self.summary(record) for record in records])
