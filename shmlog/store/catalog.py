"""The runs of a store, from their files or from the index where those have not changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shmlog.base.warn import warn_caller
from shmlog.errors import UnreadableError
from shmlog.folder.layout import RunLayout
from shmlog.folder.names import folder_name
from shmlog.folder.root import Root, is_run
from shmlog.reader.facts import RunFacts, Signature, make_record, read_facts, sign
from shmlog.reader.model import RunRecord
from shmlog.store import index
from shmlog.store.index import IndexEntry


class Catalog:
    """The records of the runs of a store."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._cached: dict[str, dict[str, IndexEntry]] = {}

    def runs(self, experiment: str) -> list[RunRecord]:
        """Return all runs of an experiment, in no order; none if there is no such experiment."""
        path = self._root.index / f"{folder_name(experiment)}.json"
        cached = self._cached[experiment] if experiment in self._cached else index.load(path)
        folder = self._root.experiment(experiment)
        entries: dict[str, IndexEntry] = {}
        records = []
        for run_id in self._root.run_ids(experiment):
            record, entry = _look(f"{folder}/{run_id}", cached.get(run_id))
            if record is not None:
                records.append(record)
            if entry is not None:
                entries[run_id] = entry
        if entries != cached:
            index.save(self._root, path, entries)
        self._cached[experiment] = entries
        return records


def _look(run_dir: str, cached: IndexEntry | None) -> tuple[RunRecord | None, IndexEntry | None]:
    """Return the record of a run, or None if the folder is not a run; and the entry that may be cached, or None."""
    signature = sign(run_dir)
    if cached is not None and cached.signature == signature:
        try:
            return make_record(run_dir, RunFacts(**cached.content)), cached
        except (UnreadableError, TypeError):
            pass  # another version wrote it
    layout = RunLayout(run_dir)
    if signature[0] is None and not is_run(layout):
        return None, None
    facts = read_facts(layout)
    is_lasting = not facts.rebuilt and not facts.failed
    is_cacheable = is_lasting and index.is_settled(signature) and signature == sign(run_dir)
    entry = IndexEntry(signature, {"record": facts.record, "members": facts.members}) if is_cacheable else None
    return make_record(run_dir, facts), entry


class Summaries:
    """Last, least and largest values of the metrics of runs; those of complete runs are cached."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._cached: dict[str, dict[str, IndexEntry]] = {}
        self._changed: set[str] = set()

    def of(self, record: RunRecord) -> Mapping[str, Mapping[str, Any]]:
        """Return ``last``, ``min``, ``max`` and ``count`` for each metric of a run."""
        known = self.known(record)
        if known is not None:
            return known
        signature = _sign(record)
        try:
            summary = _summarise(record.dir)
        except UnreadableError as error:
            warn_caller(f"{error}; run {record.run_id} counts as one without metrics")
            return {}
        if record.complete and index.is_settled(signature):
            self._cached[record.experiment][record.run_id] = IndexEntry(signature, summary)
            self._changed.add(record.experiment)
        return summary

    def known(self, record: RunRecord) -> Mapping[str, Mapping[str, Any]] | None:
        """Return what the index has of a run; None if it has nothing that is up to date."""
        cached = self._cached.get(record.experiment)
        if cached is None:
            cached = self._cached[record.experiment] = index.load(self._path(record.experiment))
        entry = cached.get(record.run_id)
        is_up_to_date = entry is not None and record.complete and entry.signature == _sign(record)
        return entry.content if entry is not None and is_up_to_date else None

    def save(self) -> None:
        """Write what was summarised since the last call into the index."""
        for experiment in self._changed:
            index.save(self._root, self._path(experiment), self._cached[experiment])
        self._changed.clear()

    def _path(self, experiment: str) -> Path:
        return self._root.index / f"{folder_name(experiment)}~metrics.json"


def _sign(record: RunRecord) -> Signature:
    """Return the signature of run.yaml alone: what a complete run holds changes with it."""
    return sign(str(record.dir))[:1]


def _summarise(run_dir: Path) -> dict[str, dict[str, Any]]:
    from shmlog.reader.stored import load
    from shmlog.reader.summary import summarise

    summary: dict[str, dict[str, Any]] = {}
    for row in sorted(summarise(load(run_dir).portions(superseded=True)).rows, key=lambda row: row["last_step"]):
        metric = summary.setdefault(row["name"], {"last": None, "min": None, "max": None, "count": 0})
        metric["last"] = row["last"]
        metric["count"] += row["count"]
        for name, choose in (("min", min), ("max", max)):
            values = [value for value in (metric[name], row[name]) if value is not None]
            metric[name] = choose(values) if values else None
    return summary
