"""A store whose runs can be analysed: what `shmlog.Store` is."""

from __future__ import annotations

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
