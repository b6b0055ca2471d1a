"""A consistent look at the files of a run that may be written to meanwhile.

``wal/sealed.json`` is the commit point: what it says is sealed is taken from
parts and events.jsonl, the rest from the logs, so that nothing is met twice or
missed. If it has changed during the look, or a file has gone, one looks again.

If it is damaged, everything that is there is taken, and what is met twice is
kept once, by lane and number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shmlog.errors import CorruptDataError, RefusedError, UnreadableError
from shmlog.folder.description import Description
from shmlog.folder.extent import Extent, extents_of
from shmlog.folder.files import LOG_BYTES_MAX
from shmlog.folder.layout import EVENTS, Part, RunLayout
from shmlog.folder.runfile import read_sealed_mapping
from shmlog.records.decode import Batch, Decoder
from shmlog.records.lanes import Lane
from shmlog.records.ledger import MISSING, read_offered
from shmlog.records.producers import read_producers
from shmlog.records.reasons import REASONS
from shmlog.records.wal import FIRST, TORN_TAIL, Damage, Frame, scan

_TRIES = 50


@dataclass
class Snapshot:
    """The files of a run at one moment.

    Attributes
    ----------
    described : Description
        What run.yaml says; identity and ``complete`` alone if it is damaged.
    next_log : int or None
        Logs from here on are not sealed. None: all is, or it is not known.
    events_bytes : int or None
        How much of events.jsonl itself counts. None: all.
    parts : list of Part
        Those that count.
    logs : dict of int to bytes
        Those that are not sealed.
    producers : list of dict or None
        Of what is sealed. None if no file says so.
    dropped : dict
        Of a complete run, all drops; else those of processes that had no lane.
    offered : dict
        By lane, how many records it was offered of what the producers are about; empty if no file says so.
    files : dict of str to Extent
        What is known of files that have no checksum of their own, by name.
    overlaps : bool
        Whether logs may hold what parts and events.jsonl hold, too.
    problems : list of (Path, str)
        Files that could not be made sense of.
    run_id : str or None
        The id that the run was made under, which is in all parts and frames of it. None: run.yaml does not say.
    """

    described: Description
    next_log: int | None
    events_bytes: int | None
    parts: list[Part]
    logs: dict[int, bytes]
    producers: list[dict[str, Any]] | None
    dropped: dict[str, int]
    offered: dict[Lane, int] = field(default_factory=dict)
    files: dict[str, Extent] = field(default_factory=dict)
    overlaps: bool = False
    problems: list[tuple[Path, str]] = field(default_factory=list)
    run_id: str | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to drain."""
        return self.described.complete is True

    def has_sink(self, sink: str) -> bool:
        """Whether the run writes that kind of file."""
        sinks = self.described.sinks
        return sink in sinks if isinstance(sinks, list) else True

    def event_files(self, layout: RunLayout) -> list[tuple[Path, int | None]]:
        """Return the files of structured events that count, in order, and how much of each; None: all of it."""
        names = itertools.takewhile(self.files.__contains__, map(EVENTS.name, itertools.count()))
        known = [layout.dir / name for name in names]
        if self.events_bytes is not None:
            return [(layout.events, self.events_bytes), *((path, self.files[path.name].bytes) for path in known[1:])]
        return [(path, None) for path in known or layout.event_files().values()]

    @property
    def metrics_are_lines(self) -> bool:
        """Whether the sealed metrics stand in events.jsonl alone."""
        if isinstance(self.described.sinks, list):
            return not self.has_sink("parquet")
        return not self.parts

    def batches(self, layout: RunLayout) -> Iterator[tuple[Batch, list[Damage]]]:
        """Yield what each unsealed log holds, and what of it is damaged.

        A torn tail is not: a flusher that was killed leaves one, and what it held was written
        again. Only of a log that is nothing else, with no earlier one, that is not known.
        """
        decoder = Decoder(layout.dir, files=layout.files)
        for number, data in sorted(self.logs.items()):
            frames, damage = read_frames(layout.log(number), number, data, self.run_id)
            if frames or self.next_log != number or number == max(self.logs):
                damage = [piece for piece in damage if piece.reason != TORN_TAIL]
            damage += self._missing(layout.log(number - 1), decoder, frames)
            batch = decoder.decode(frames)
            yield batch, damage + batch.damage

    def _missing(self, before: Path, decoder: Decoder, frames: list[Frame]) -> Iterator[Damage]:
        """Yield what the log before should have held at its end, as the first frame of a log tells."""
        for entry in frames[0].lanes if frames and frames[0].flags & FIRST else ():
            lane, begin = int(entry["lane"]), int(entry["position"])
            known = decoder.cursors.get(lane)
            end = known.position if known else 0
            if begin > end and (known or self.next_log == 0):
                size = len(self.logs.get(frames[0].log - 1, b""))
                yield Damage(before, size, 0, f"lane {lane}: the last {begin - end} slots are missing")

    def is_still_there(self, layout: RunLayout) -> bool:
        """Whether the parts are what they were: a listing taken during a merge may lack what was merged, too."""
        return self.parts == layout.parts_of_nodes(below=self.next_log)


def read_frames(path: Path, number: int, data: bytes, run_id: str | None) -> tuple[list[Frame], list[Damage]]:
    """Return the whole frames of a log and what lies between them; see `scan`."""
    frames: list[Frame] = []
    damage: list[Damage] = []
    for piece in scan(data, path=path, log=number, run_id=run_id):
        if isinstance(piece, Frame):
            frames.append(piece)
        else:
            damage.append(piece)
    return frames, damage


def take(layout: RunLayout) -> Snapshot:
    """Return the files of the run.

    Raises
    ------
    FileNotFoundError
        If there is no run.yaml.
    CorruptDataError
        If they do not come to rest.
    RefusedError
        If a folder in the run is a link.
    """
    refuse_links(layout)
    for _ in range(_TRIES):
        described, problem = Description.read_or_guess(layout)
        complete = described.complete is True
        snapshot = _take_complete(layout, described) if complete else _take_live(layout, described)
        if snapshot is not None:
            if problem:
                snapshot.problems.append((layout.run_yaml, problem))
            elif isinstance(described.run_id, str):
                snapshot.run_id = described.run_id
            return snapshot
    raise CorruptDataError(f"{layout.dir}: its logs and {layout.sealed_json.name} don't fit together")


def refuse_links(layout: RunLayout) -> None:
    """Raise RefusedError if a folder in a run is a link: it may lead to files of others, to be passed on."""
    others = (other.linked_folders() for other in layout.other_nodes())
    for folder in itertools.chain(layout.linked_folders(), *others):
        text = "is a link: refused, since it can lead anywhere; put the folder itself there if it is yours"
        raise RefusedError(f"{folder}: {text}")


def _take_complete(layout: RunLayout, described: Description) -> Snapshot:
    return Snapshot(
        described, next_log=None, events_bytes=None, parts=layout.parts_of_nodes(), logs={},
        producers=read_producers(described.producers), dropped=_read_dropped(described.dropped),
        offered=read_offered(described.offered), files=extents_of(described.files),
    )  # fmt: skip


def _take_live(layout: RunLayout, described: Description) -> Snapshot | None:
    """Return None if something has changed meanwhile."""
    books = _read_books(layout)
    try:
        if books is None and layout.lacks_books():
            raise CorruptDataError(f"{layout.sealed_json}: {MISSING}")
        sealed = _read_sealed(layout) if books is not None else _NOTHING_SEALED
    except UnreadableError as error:
        snapshot = _take_everything(layout, described)
        snapshot.problems.append((layout.sealed_json, str(error)))
    except FileNotFoundError:
        return None
    else:
        snapshot = _take_unsealed(layout, described, sealed)
    is_over = Description.read_or_guess(layout)[0].complete is True
    return None if is_over or _read_books(layout) != books else snapshot


_NOTHING_SEALED: dict[str, Any] = {"next_log": 0, "events_bytes": 0, "producers": [], "dropped": {}}


def _read_sealed(layout: RunLayout) -> dict[str, Any]:
    books, problem = read_sealed_mapping(layout.sealed_json, layout.files)
    if problem:
        raise CorruptDataError(problem)
    if not all(type(books.get(name)) is int and books[name] >= 0 for name in ("next_log", "events_bytes")):
        raise CorruptDataError(f"{layout.sealed_json}: does not say what is sealed")
    return books


def _take_unsealed(layout: RunLayout, described: Description, sealed: dict[str, Any]) -> Snapshot:
    next_log = sealed["next_log"]
    logs, problems = _read_logs(layout, next_log)
    return Snapshot(
        described, next_log, sealed["events_bytes"], logs=logs, problems=problems,
        parts=layout.parts_of_nodes(below=next_log),
        producers=read_producers(sealed.get("producers")), dropped=_read_dropped(sealed.get("dropped")),
        offered=read_offered(sealed.get("offered")), files=extents_of(sealed.get("files")),
    )  # fmt: skip


def _take_everything(layout: RunLayout, described: Description) -> Snapshot:
    logs, problems = _read_logs(layout, 0)
    return Snapshot(
        described, next_log=None, events_bytes=None, logs=logs, problems=problems, parts=layout.parts_of_nodes(),
        producers=None, dropped={}, overlaps=True,
    )  # fmt: skip


def _read_logs(layout: RunLayout, next_log: int) -> tuple[dict[int, bytes], list[tuple[Path, str]]]:
    """Return the logs, and files that are not logs; one that goes meanwhile is seen by the change of the books."""
    logs: dict[int, bytes] = {}
    problems = []
    for number in layout.logs():
        path = layout.log(number)
        try:
            if number >= next_log:
                logs[number] = layout.files.read(path, LOG_BYTES_MAX)
        except FileNotFoundError:
            continue
        except UnreadableError as error:
            problems.append((path, str(error)))
    return logs, problems


def _read_books(layout: RunLayout) -> bytes | None:
    """Return the bytes of the books as they are now; None if there are none, no bytes if that is not a file of ours."""
    try:
        return layout.files.read(layout.sealed_json)
    except FileNotFoundError:
        return None
    except UnreadableError:
        return b""


def _read_dropped(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {reason: n for reason, n in value.items() if reason in REASONS and type(n) is int and n >= 0}
