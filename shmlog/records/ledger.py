"""The books of a run: how many records of each producer are on disk, and how many were dropped."""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog.base.durable import atomic_write
from shmlog.base.times import timestamp
from shmlog.errors import CorruptDataError
from shmlog.folder import runfile
from shmlog.folder.description import Description
from shmlog.folder.extent import Extent, extents_of, of_file
from shmlog.folder.layout import EVENTS, RUN_LOG, RunLayout, TextSeries
from shmlog.records.lanes import NODE, Lane
from shmlog.records.producers import fold, is_folded, read_producers, sum_dropped
from shmlog.records.reasons import REASONS

if TYPE_CHECKING:
    from shmlog.records.decode import Batch

_SERIES = (EVENTS, RUN_LOG)
_LANE = re.compile(r"[0-9]{1,10}")
MISSING = "is missing, so that nothing tells how much of the logs is sealed"


class Ledger:
    """The counts of producers, by (lane, tenancy), up to a sealed log.

    The drain counts the records offered to the lanes, and the sealer counts those that it writes. So the
    books show the cost of whatever goes wrong between the two.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.next_log = 0
        self.extents = {series.name(0): Extent() for series in _SERIES}  # by name, the sealed part of text files
        self.kept_logs: list[int] = []  # logs with records that are, or may be, nowhere else
        self._unlaned: dict[str, int] = {}
        self._producers: dict[tuple[Lane, int], dict[str, Any]] = {}
        self._folded: dict[Lane, int] = {}  # by lane, the highest tenancy that is folded
        self._offered: dict[Lane, int] = {}  # by lane
        self._settled: dict[int, int] = {}  # by lane, the records lost in logs already accounted for

    @classmethod
    def load(cls, layout: RunLayout) -> Ledger:
        """Return the books of the last sealing, or new ones if nothing was sealed yet.

        Raises
        ------
        CorruptDataError
            If they are damaged or missing, so that the sealed records are not known.
        """
        path = layout.sealed_json
        ledger = cls(path)
        try:
            data = layout.files.read(path)
        except FileNotFoundError:
            if layout.lacks_books():
                raise CorruptDataError(f"{path}: {MISSING}; put it back from a copy of the run") from None
            return ledger
        books = runfile.parse(path, data)
        if not runfile.is_intact(data):
            raise CorruptDataError(f"{path}: its checksum is wrong")
        try:
            files = extents_of(books["files"])
            ledger.next_log = books["next_log"]
            ledger.extents = {name: files[name] for series in _SERIES for name in _names(series, files)}
            ledger._unlaned = books["dropped"]
            ledger._list(_listed(books["producers"]))
            ledger._recall(books.get("offered"), books.get("kept_logs"))
        except (KeyError, TypeError, AttributeError) as error:
            raise CorruptDataError(f"{path}: does not say how much is sealed") from error
        return ledger

    def _recall(self, offered: object, kept_logs: object) -> None:
        """Take over the counts offered and lost so far; books of earlier versions lack them."""
        self._offered = read_offered(offered)
        self.kept_logs = read_kept_logs(kept_logs)
        self._settled = self.lost()

    @classmethod
    def of(cls, producers: list[dict[str, Any]], unlaned: dict[str, int]) -> Ledger:
        """Return books that continue those counts; they can't be committed."""
        ledger = cls(None)
        ledger._unlaned = dict(unlaned)
        ledger._list([{**producer, "dropped": dict(producer["dropped"])} for producer in producers])
        return ledger

    def _list(self, producers: list[dict[str, Any]]) -> None:
        self._producers = {(Lane.of_producer(p), p["tenancy"]): p for p in producers}
        self._folded = {lane: tenancy for (lane, tenancy), p in self._producers.items() if is_folded(p)}

    @classmethod
    def reopened(cls, layout: RunLayout, description: Description) -> Ledger:
        """Return the books of a complete run that is resumed, to be committed.

        Raises
        ------
        CorruptDataError
            If run.yaml lacks the counts, or is older than the files, which the new attempt would cut to its extents.
        RefusedError
            If a link, a pipe or a folder is in the place of such a file.
        """
        try:
            ledger = cls.of(_listed(description.producers), {})
            of_lanes, dropped = ledger.dropped(), description.dropped or {}
            ledger._unlaned = {r: max(0, count - of_lanes.get(r, 0)) for r, count in dropped.items()}
            ledger._recall(description.offered, description.kept_logs)
        except (KeyError, TypeError, AttributeError) as error:
            raise CorruptDataError(f"{layout.run_yaml}: does not say what the run holds") from error
        files = extents_of(description.files) or _measured(layout)
        ledger._path = layout.sealed_json
        ledger.next_log = (
            max([part.last for part in layout.parts()] + [number for number, _ in layout.kept_logs()], default=-1) + 1
        )
        known = ledger.extents | files
        ledger.extents = {name: known[name] for series in _SERIES for name in _names(series, known)}
        for path in _text_files(layout):
            with layout.files.open(path) as file:
                size = os.fstat(file.fileno()).st_size
            if size > ledger.extents.get(path.name, Extent()).bytes:
                raise CorruptDataError(
                    f"{layout.run_yaml}: says less than {path.name} holds, as an older copy of it does; put the latest "
                    "run.yaml back, or move run.yaml away and have shmlog.Store(root).rebuild(run) write it anew"
                )
        return ledger

    @property
    def unlaned(self) -> dict[str, int]:
        """Drops of processes that had no lane, by reason."""
        return dict(self._unlaned)

    @property
    def lanes(self) -> int:
        """One more than the highest lane of any node, including lanes whose records are all lost."""
        lanes = itertools.chain((lane for lane, _ in self._producers), self._offered)
        return max((lane.number for lane in lanes), default=-1) + 1

    def add_batch(self, batch: Batch) -> None:
        """Book the records of some frames."""
        for (lane, tenancy), owner in batch.owner_of.items():
            self.add_owner(lane, tenancy, owner)
        for (lane, tenancy), count in batch.counts.items():
            self.add_counts(lane, tenancy, count.metrics, count.events, count.dropped)
        self.set_unlaned(batch.unlaned)
        self._note_offered(batch.offered)

    def account_for(self, number: int, offered: Mapping[int, int]) -> dict[int, int]:
        """Compare the booked records with those offered to the lanes up to the end of log ``number``.

        Returns
        -------
        dict of int to int
            By lane, the records of this log that are neither booked nor dropped; negative if more were booked
            than offered. If a count is not 0, the log becomes one of `kept_logs`.
        """
        self._note_offered(offered)
        lost = self.lost()
        lanes = lost.keys() | self._settled.keys()
        lost_in_log = {lane: lost.get(lane, 0) - self._settled.get(lane, 0) for lane in sorted(lanes)}
        self._settled = lost
        lost_in_log = {lane: count for lane, count in lost_in_log.items() if count}
        if lost_in_log:
            self.keep(number)
        return lost_in_log

    def keep(self, number: int) -> None:
        """Make a log one of `kept_logs`."""
        if number not in self.kept_logs:
            self.kept_logs.append(number)

    def _note_offered(self, offered: Mapping[int, int]) -> None:
        for lane, count in offered.items():
            if count:  # a spare lane was never used
                key = Lane(NODE, lane)
                self._offered[key] = max(count, self._offered.get(key, 0))

    def add_owner(self, lane: int, tenancy: int, owner: dict[str, Any]) -> None:
        """Book the owner of a lane in a tenancy."""
        entry = self._entry(lane, tenancy)
        if is_folded(entry):
            return
        started_ns = owner.get("started_ns")
        for name in ("pid", "rank", "local_rank", "worker", "host", "process"):
            entry[name] = owner.get(name)
        entry["started_at"] = timestamp(started_ns // 1000) if isinstance(started_ns, int) else None

    def add_counts(self, lane: int, tenancy: int, metrics: int, events: int, dropped: dict[str, int]) -> None:
        """Book records of a tenancy."""
        entry = self._entry(lane, tenancy)
        entry["metrics"] += metrics
        entry["events"] += events
        for reason, count in dropped.items():
            if count:
                entry["dropped"][reason] = entry["dropped"].get(reason, 0) + count

    def set_unlaned(self, dropped: dict[str, int]) -> None:
        """Book the drops of processes that had no lane; ``dropped`` is a total, not a difference."""
        for reason, count in dropped.items():
            if count:
                self._unlaned[reason] = max(count, self._unlaned.get(reason, 0))

    def _entry(self, lane: int, tenancy: int) -> dict[str, Any]:
        unknown: dict[str, Any] = {
            "lane": lane, "tenancy": tenancy, "pid": None, "rank": None, "local_rank": None, "worker": None,
            "host": None, "process": None, "started_at": None, "metrics": 0, "events": 0, "dropped": {},
        }  # fmt: skip
        key = Lane(NODE, lane)
        return self._producers.setdefault((key, max(tenancy, self._folded.get(key, 0))), unknown)

    def producers(self) -> list[dict[str, Any]]:
        """Return the producers in the order of lane and tenancy; of very many, the oldest are folded, see `fold`."""
        listed = fold(self._producers.values())
        if len(listed) < len(self._producers):
            self._list(listed)
        return listed

    def dropped(self) -> dict[str, int]:
        """Return all drops of the run, by reason."""
        return sum_dropped(self._producers.values(), self._unlaned)

    def offered(self) -> dict[str, int]:
        """Return the records offered, by lane, as our files hold them."""
        return {str(lane.number): self._offered[lane] for lane in sorted(self._offered)}

    def end_of(self, lane: int) -> tuple[int, list[int]]:
        """Return how many records a lane was offered, and how many of them were dropped, in the order of `REASONS`."""
        key = Lane(NODE, lane)
        gaps = [producer["dropped"] for (owned, _), producer in self._producers.items() if owned == key]
        return self._offered.get(key, 0), [sum(dropped.get(reason, 0) for dropped in gaps) for reason in REASONS]

    def lost(self) -> dict[int, int]:
        """Return the records, by lane, that are neither booked nor dropped; see `lost_of`."""
        return {lane.number: count for lane, count in lost_of(self._producers.values(), self._offered).items()}

    def counts(self) -> dict[str, int]:
        """Return the sums over all producers."""
        producers: Iterable[dict[str, Any]] = self._producers.values()
        return {
            "metrics": sum(p["metrics"] for p in producers),
            "events": sum(p["events"] for p in producers),
            "dropped": sum(self.dropped().values()),
        }

    def files(self) -> dict[str, dict[str, int]]:
        """Return the extents of the text files, as our files hold them."""
        return {name: extent._asdict() for name, extent in self.extents.items()}

    def commit(self, next_log: int, extents: Mapping[str, Extent]) -> None:
        """Commit that all logs below ``next_log`` are sealed; ``extents`` are those of the text files."""
        self.next_log = next_log
        self.extents |= extents
        books = {
            "next_log": next_log,
            "events_bytes": self.extents[EVENTS.name(0)].bytes,
            "files": self.files(),
            "dropped": self._unlaned,
            "producers": self.producers(),
            "offered": self.offered(),
            "kept_logs": self.kept_logs,
        }
        assert self._path is not None
        atomic_write(self._path, runfile.sealed(json.dumps(books)))


def lost_of(producers: Iterable[Mapping[str, Any]], offered: Mapping[Lane, int]) -> dict[Lane, int]:
    """Return, by lane, how many offered records are neither in the files nor counted as dropped.

    A negative number: the files hold more. Lanes without a known number of offered records are left out.
    """
    missing = dict(offered)
    for producer in producers:
        lane = Lane.of_producer(producer)
        if lane in missing:
            missing[lane] -= producer["metrics"] + producer["events"] + sum(producer["dropped"].values())
    return {lane: count for lane, count in missing.items() if count}


def _listed(value: object) -> list[dict[str, Any]]:
    producers = read_producers(value)
    if producers is None:
        raise TypeError("not a list of producers")
    return producers


def read_offered(value: object) -> dict[Lane, int]:
    """Return the records offered, by lane, from the value in one of our files; invalid items are left out."""
    if not isinstance(value, dict):
        return {}
    counts = {lane: n for lane, n in value.items() if _LANE.fullmatch(str(lane)) and type(n) is int and n >= 0}
    return {Lane(NODE, int(lane)): n for lane, n in counts.items()}


def read_kept_logs(value: object) -> list[int]:
    """Return the numbers of kept logs from the value in one of our files; invalid items are left out."""
    return [n for n in value if type(n) is int and n >= 0] if isinstance(value, list) else []


def _measured(layout: RunLayout) -> dict[str, Extent]:
    """Return the present extents of the text files, for a run whose books lack them."""
    return {path.name: of_file(path) for path in _text_files(layout)}


def _text_files(layout: RunLayout) -> list[Path]:
    return [path for series in _SERIES for path in layout.text_files(series).values()]


def _names(series: TextSeries, files: Mapping[str, Extent]) -> list[str]:
    """Return the names of a series: the first, whether it is there or not, and those that follow without a gap."""
    return [series.name(0), *itertools.takewhile(files.__contains__, map(series.name, itertools.count(1)))]


def extents_in(files: Mapping[str, Extent], series: TextSeries) -> list[Extent]:
    """Return the extents of the files of a series, in order; raises KeyError if the first is missing."""
    return [files[name] for name in _names(series, files)]
