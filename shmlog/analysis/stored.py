"""A run on disk, with SQL: what `shmlog.load` returns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shmlog.reader import stored

if TYPE_CHECKING:
    import pyarrow as pa


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
        Here and at every later call, for each file that is damaged. What is in other
        files is returned all the same.
    """
    return StoredRun(stored.find(run_dir))


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
        from shmlog.store.facts import read_record
        from shmlog.store.sql import query_runs

        record = replace(read_record(self._layout), run_id=self.id, experiment=self.experiment)
        return query_runs([record], query, params)
