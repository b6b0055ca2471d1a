"""The runs of a store, from their files or from the index where those have not changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shmlog.base.warn import warn_caller
from shmlog.errors import UnreadableError
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import Root, is_run
from shmlog.reader.facts import Facts, make_record, read_facts, sign
from shmlog.reader.model import RunRecord
from shmlog.store import index
from shmlog.store.index import Entry


class Catalog:
    """What is known of the runs of a store."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._known: dict[str, dict[str, Entry]] = {}

    def runs(self, experiment: str) -> list[RunRecord]:
        """Return all runs of an experiment, in no order; none if there is no such experiment."""
        path = self._root.index / f"{experiment}.json"
        known = self._known[experiment] if experiment in self._known else index.load(path)
        folder = self._root.experiment(experiment)
        entries: dict[str, Entry] = {}
        records = []
        for run_id in self._root.run_ids(experiment):
            record, entry = _look(f"{folder}/{run_id}", known.get(run_id))
            if record is not None:
                records.append(record)
            if entry is not None:
                entries[run_id] = entry
        if entries != known:
            index.save(self._root, path, entries)
        self._known[experiment] = entries
        return records


def _look(run_dir: str, known: Entry | None) -> tuple[RunRecord | None, Entry | None]:
    """Return a run, None if the folder is not one, and what the index may hold of it."""
    signature = sign(run_dir)
    if known is not None and known.signature == signature:
        try:
            return make_record(run_dir, Facts(**known.found)), known
        except (UnreadableError, TypeError):
            pass  # not what this version writes
    layout = RunLayout(run_dir)
    if signature[0] is None and not is_run(layout):
        return None, None
    facts = read_facts(layout)
    may_be_kept = not facts.rebuilt and index.is_settled(signature) and signature == sign(run_dir)
    entry = Entry(signature, {"record": facts.record, "members": facts.members}) if may_be_kept else None
    return make_record(run_dir, facts), entry


class Summaries:
    """Last, least and largest values of the metrics of runs; of complete runs they are kept."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._known: dict[str, dict[str, Entry]] = {}
        self._changed: set[str] = set()

    def of(self, record: RunRecord) -> Mapping[str, Mapping[str, Any]]:
        """Return ``last``, ``min``, ``max`` and ``count`` for each metric of a run."""
        known = self._known.get(record.experiment)
        if known is None:
            known = self._known[record.experiment] = index.load(self._path(record.experiment))
        signature = sign(str(record.dir))[:1]
        entry = known.get(record.run_id)
        if entry is not None and record.complete and entry.signature == signature:
            found: dict[str, dict[str, Any]] = entry.found
            return found
        try:
            found = _summarise(record.dir)
        except UnreadableError as error:
            warn_caller(f"{error}; run {record.run_id} counts as one without metrics")
            return {}
        if record.complete and index.is_settled(signature):
            known[record.run_id] = Entry(signature, found)
            self._changed.add(record.experiment)
        return found

    def save(self) -> None:
        """Keep what was found since the last time."""
        for experiment in self._changed:
            index.save(self._root, self._path(experiment), self._known[experiment])
        self._changed.clear()

    def _path(self, experiment: str) -> Path:
        return self._root.index / f"{experiment}.metrics.json"


def _summarise(run_dir: Path) -> dict[str, dict[str, Any]]:
    from shmlog.reader.stored import load
    from shmlog.reader.summary import summarise

    found: dict[str, dict[str, Any]] = {}
    for row in sorted(summarise(load(run_dir).portions(superseded=True)).rows, key=lambda row: row["last_step"]):
        sofar = found.setdefault(row["name"], {"last": None, "min": None, "max": None, "count": 0})
        sofar["last"] = row["last"]
        sofar["count"] += row["count"]
        for name, choose in (("min", min), ("max", max)):
            values = [value for value in (sofar[name], row[name]) if value is not None]
            sofar[name] = choose(values) if values else None
    return found
