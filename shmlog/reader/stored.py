"""Read a run folder: live, finished or crashed, the same call. Never writes."""

from __future__ import annotations

import fnmatch
import json
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from shmlog.errors import CorruptDataError, RunNotFoundError, ShmlogWarning
from shmlog.reader import snapshot
from shmlog.reader.lines import metrics_of_lines
from shmlog.storage import jsonl, liveness, parts, runfile
from shmlog.storage.layout import RunLayout
from shmlog.storage.merge import names_of, sort_rows
from shmlog.storage.schema import METRICS
from shmlog.storage.status import CRASHED, FINISHED, PENDING, RUNNING

_TRIES = 20


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
    """
    layout = RunLayout(run_dir)
    if not layout.run_yaml.is_file():
        raise RunNotFoundError(f"no run in {layout.dir}: it has no run.yaml; pass the folder of one run")
    return StoredRun(layout)


class StoredRun:
    """A run on disk; made by `load`."""

    def __init__(self, layout: RunLayout) -> None:
        self._layout = layout

    def __repr__(self) -> str:
        return f"<shmlog.StoredRun {self.experiment}/{self.id} {self.status} at {str(self.dir)!r}>"

    # ---- what it is ----

    @property
    def dir(self) -> Path:
        """Folder of the run."""
        return self._layout.dir

    @property
    def id(self) -> str:
        """Id of the run."""
        return str(self.metadata.get("run_id", self._layout.run_id))

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.metadata.get("experiment", self._layout.experiment))

    @property
    def metadata(self) -> dict[str, Any]:
        """What run.yaml says."""
        return snapshot.read_description(self._layout)

    @property
    def config(self) -> dict[str, Any]:
        """Parameters of the run; empty if config.yaml is missing or damaged."""
        try:
            return runfile.read(self._layout.config_yaml)
        except FileNotFoundError:
            return {}
        except CorruptDataError as error:
            warnings.warn(str(error), ShmlogWarning, stacklevel=2)
            return {}

    @property
    def live(self) -> bool | None:
        """Whether processes are attached; None if that can't be told from here."""
        metadata = self.metadata
        return False if metadata.get("complete") else liveness.members_live(metadata)

    @property
    def status(self) -> str:
        """``pending``, ``running``, ``success``, ``failed``, ``cancelled`` or ``crashed``.

        A run that says ``running`` while the kernel knows that none of its
        processes lives has crashed.
        """
        metadata = self.metadata
        word = str(metadata.get("status", RUNNING)).lower()
        status = FINISHED.get(word, word if word == PENDING else RUNNING)
        if status in (PENDING, RUNNING) and (metadata.get("complete") or liveness.members_live(metadata) is False):
            return CRASHED
        return status

    @property
    def unrecovered(self) -> bool:
        """Whether records wait for ``shmlog recover``: nobody is left who would drain them."""
        metadata = self.metadata
        if metadata.get("complete") or liveness.members_live(metadata) is not False:
            return False
        return liveness.flusher_lives(metadata) is not True

    @property
    def age(self) -> float:
        """Seconds since something was last written into the run folder."""
        layout = self._layout
        paths = [layout.run_yaml, layout.events, *(layout.log(number) for number in layout.logs())]
        written = [path.stat().st_mtime for path in paths if path.exists()]
        return max(0.0, time.time() - max(written, default=0.0))

    # ---- records ----

    def metrics(self, names: str | Sequence[str] | None = None) -> pa.Table:
        """Return metric records.

        Parameters
        ----------
        names : str or sequence of str, optional
            A name, several, or a pattern with ``*``, ``?`` or ``[ ]`` that no
            name equals. Default: all.

        Returns
        -------
        pyarrow.Table
            Schema `shmlog.storage.schema.METRICS`, ordered by step and time. One
            row per record. Of a live run, all that ``flush()`` has returned for.

        Raises
        ------
        CorruptDataError
            If a part is damaged.
        """
        for _ in range(_TRIES):
            taken = snapshot.take(self._layout)
            try:
                return self._metrics_of(taken, names)
            except FileNotFoundError:
                continue  # a part was merged meanwhile
        raise CorruptDataError(f"{self.dir}: its parts keep disappearing")

    def _metrics_of(self, taken: snapshot.Snapshot, names: str | Sequence[str] | None) -> pa.Table:
        live = [batch.metrics for batch in taken.batches(self.dir)]
        if "parquet" not in taken.described.get("sinks", ("parquet",)):
            live.append(metrics_of_lines(self._layout.events, taken.events_bytes))
        wanted = self._choose(names, taken, live)
        tables = [parts.read_part(part.path, wanted) for part in taken.parts]
        tables += [table if wanted is None else parts.only_names(table, wanted) for table in live]
        if not tables:
            return METRICS.empty_table()
        return sort_rows(pa.concat_tables([table.cast(METRICS) for table in tables]).unify_dictionaries())

    def _choose(
        self, names: str | Sequence[str] | None, taken: snapshot.Snapshot, live: list[pa.Table]
    ) -> list[str] | None:
        """Return the names that are wanted; None means all."""
        if names is None:
            return None
        if not isinstance(names, str):
            return list(names)
        if not any(mark in names for mark in "*?["):
            return [names]
        known = self._names_of(taken, live)
        return [names] if names in known else [name for name in known if fnmatch.fnmatchcase(name, names)]

    def _names_of(self, taken: snapshot.Snapshot, live: list[pa.Table]) -> list[str]:
        names = set(names_of(taken.parts))
        for table in live:
            names.update(table["name"].unique().to_pylist())
        return sorted(names)

    def names(self) -> list[str]:
        """Return the names of all metrics, sorted."""
        for _ in range(_TRIES):
            taken = snapshot.take(self._layout)
            live = [batch.metrics for batch in taken.batches(self.dir)]
            if "parquet" not in taken.described.get("sinks", ("parquet",)):
                live.append(metrics_of_lines(self._layout.events, taken.events_bytes))
            try:
                return self._names_of(taken, live)
            except FileNotFoundError:
                continue
        raise CorruptDataError(f"{self.dir}: its parts keep disappearing")

    def events(self, event_type: str | None = None) -> list[dict[str, Any]]:
        """Return structured events in the order of events.jsonl.

        Parameters
        ----------
        event_type : str, optional
            Only events of this type. Default: all but the ``metrics`` lines,
            which `metrics` returns; ask for those with ``"metrics"``.
        """
        taken = snapshot.take(self._layout)
        found, damage = jsonl.read_events(self._layout.events, taken.events_bytes)
        for piece in damage:
            warnings.warn(f"{piece.path}: {piece.reason} at byte {piece.offset}", ShmlogWarning, stacklevel=2)
        with_metrics = event_type == "metrics" and "jsonl" in taken.described.get("sinks", ())
        for batch in taken.batches(self.dir):
            lines = b"".join(jsonl.event_lines(batch, metrics=with_metrics))
            found += [json.loads(line) for line in lines.split(b"\n") if line]
        if event_type is None:
            return [event for event in found if event.get("event_type") != "metrics"]
        return [event for event in found if event.get("event_type") == event_type]

    # ---- books ----

    @property
    def producers(self) -> list[dict[str, Any]]:
        """Who logged: lane, tenancy, pid, rank, worker …, and their counts."""
        return self._books()[0]

    @property
    def dropped(self) -> dict[str, int]:
        """Drops of the run by reason; empty if there were none."""
        return self._books()[1]

    @property
    def counts(self) -> dict[str, int]:
        """Metrics, events and drops of the whole run."""
        producers, dropped = self._books()
        return {
            "metrics": sum(producer["metrics"] for producer in producers),
            "events": sum(producer["events"] for producer in producers),
            "dropped": sum(dropped.values()),
        }

    def _books(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        taken = snapshot.take(self._layout)
        if taken.described.get("complete"):
            return taken.producers, taken.described.get("dropped") or {}
        return _count_live(taken, taken.batches(self.dir))

    @property
    def artifacts(self) -> list[str]:
        """Paths of the run's artifacts, relative to its artifacts folder."""
        folder = self._layout.artifacts
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _count_live(taken: snapshot.Snapshot, batches: list[Any]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Add what the unsealed logs hold to the books of the sealed ones."""
    from shmlog.storage.ledger import Ledger

    ledger = Ledger.of(taken.producers, taken.unlaned)
    for batch in batches:
        ledger.add_batch(batch)
    return ledger.producers(), ledger.dropped()
