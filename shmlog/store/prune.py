"""Retention: choose the runs that are old enough to be deleted, and delete them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from shmlog.errors import RunStateError, ShmlogError, StorageError
from shmlog.folder import blobs
from shmlog.folder.layout import RunLayout
from shmlog.folder.root import Root
from shmlog.folder.status import RunStatus
from shmlog.reader.codec import Record
from shmlog.reader.facts import read_facts
from shmlog.reader.model import RunRecord
from shmlog.store import removal
from shmlog.store.select import to_span

MODES = ("all", "any")


class Rules(NamedTuple):
    """The rules that keep runs from being deleted."""

    keep: int | None
    older_than: timedelta | None
    mode: str

    @classmethod
    def check(cls, keep: int | None, older_than: str | timedelta | None, mode: str) -> Rules:
        """Return checked rules; raises ValueError."""
        if keep is None and older_than is None:
            raise ValueError("prune needs a rule: keep, older_than or both")
        if keep is not None and (type(keep) is not int or keep < 0):
            raise ValueError(f"keep must be 0 or more, not {keep!r}")
        if mode not in MODES:
            raise ValueError(f"mode must be 'all' or 'any', not {mode!r}")
        return cls(keep, None if older_than is None else to_span("older_than", older_than), mode)


@dataclass(frozen=True, kw_only=True, slots=True)
class PrunedRun(Record):
    """A run that was, or would be, deleted.

    Attributes
    ----------
    size_bytes : int
        Of all its files.
    archive : Path or None
        Where it is kept.
    """

    run_id: str
    experiment: str
    status: RunStatus
    began_at: datetime
    size_bytes: int
    archive: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PruneResult(Record):
    """What `Store.prune` did, or would do.

    Attributes
    ----------
    runs : tuple of PrunedRun
        Those that were, or would be, deleted, newest first.
    kept : dict
        How many were kept because they are ``newest``, ``young``, ``running``, ``pending`` or ``pinned``.
    unreadable : tuple of str
        Runs in which something is damaged, and what. They are kept.
    failed : tuple of str
        Runs that could not be deleted, and why.
    leftovers : int
        Earlier deletions that were interrupted and were, or would be, finished.
    freed_bytes : int
        Less the bytes of the archives. An artifact that a kept run shares frees none.
    """

    dry_run: bool
    runs: tuple[PrunedRun, ...]
    kept: dict[str, int]
    unreadable: tuple[str, ...]
    failed: tuple[str, ...]
    leftovers: int
    freed_bytes: int


def prune(root: Root, runs: Iterable[RunRecord], rules: Rules, *, archive: bool, dry_run: bool) -> PruneResult:
    """Delete those of ``runs``, newest first, that no rule keeps, and what earlier deletions left behind."""
    kept: Counter[str] = Counter()
    unreadable: list[str] = []
    records = list(_choose(_deletable(runs, kept, unreadable), rules, kept))
    leftovers = removal.leftovers(root)
    contents = list(blobs.stored(root.path))
    usages = {(record.experiment, record.run_id): removal.Usage(record.dir) for record in records}
    leftover_usages = list(map(removal.Usage, leftovers))
    pruned = [_describe(record, usages[record.experiment, record.run_id]) for record in records]
    failed: list[str] = []
    if not dry_run:
        failed = _empty(leftovers)
        pruned = list(_delete_all(root, pruned, archive, failed))
        failed += _collect(root)
    freed = removal.freed_bytes([*leftover_usages, *(usages[run.experiment, run.run_id] for run in pruned)], contents)
    freed -= sum(run.archive.stat().st_size for run in pruned if run.archive)
    return PruneResult(
        dry_run=dry_run, runs=tuple(pruned), kept=dict(kept), unreadable=tuple(unreadable), failed=tuple(failed),
        leftovers=len(leftovers), freed_bytes=freed,
    )  # fmt: skip


def _deletable(runs: Iterable[RunRecord], kept: Counter[str], unreadable: list[str]) -> Iterator[RunRecord]:
    """Yield the runs that may be deleted at all; count and list the others."""
    for record in runs:
        if record.problems:
            unreadable.append(f"{record.experiment}/{record.run_id}: {record.problems[0]}")
        elif record.began_at is None:
            unreadable.append(f"{record.experiment}/{record.run_id}: run.yaml does not say when it began")
        elif record.status is RunStatus.PENDING:
            kept["pending"] += 1
        elif not record.status.is_terminal or (record.live is not False and not record.complete):
            kept["running"] += 1
        elif record.pinned:
            kept["pinned"] += 1
        else:
            yield record


def _choose(runs: Iterable[RunRecord], rules: Rules, kept: Counter[str]) -> Iterator[RunRecord]:
    """Yield the runs that the rules do not keep; count the others."""
    now = datetime.now(UTC)
    counts: Counter[str] = Counter()
    for record in runs:
        counts[record.experiment] += 1
        last = record.ended_at or record.began_at or now
        keepers = []
        if rules.keep is not None:
            keepers.append("newest" if counts[record.experiment] <= rules.keep else None)
        if rules.older_than is not None:
            keepers.append("young" if last > now - rules.older_than else None)
        keeping = [keeper for keeper in keepers if keeper]
        if len(keeping) == len(keepers) or (keeping and rules.mode == "all"):
            kept[keeping[0]] += 1
        else:
            yield record


def _describe(record: RunRecord, usage: removal.Usage) -> PrunedRun:
    return PrunedRun(
        run_id=record.run_id, experiment=record.experiment, status=record.status,
        began_at=record.began_at or datetime.now(UTC), size_bytes=usage.size_bytes,
    )  # fmt: skip


def _empty(leftovers: Iterable[Path]) -> list[str]:
    """Delete what earlier deletions left behind; return what could not be deleted."""
    failed = []
    for folder in leftovers:
        try:
            removal.delete(folder)
        except ShmlogError as error:
            failed.append(str(error))
    return failed


def _collect(root: Root) -> list[str]:
    """Remove what no run holds any more; return what could not be removed."""
    try:
        removal.collect_objects(root)
    except StorageError as error:
        return [str(error)]
    return []


def _delete_all(root: Root, runs: Iterable[PrunedRun], archive: bool, failed: list[str]) -> Iterator[PrunedRun]:
    """Yield each run that is deleted; list the others in ``failed``, since one must not stop the rest."""
    for run in runs:
        try:
            archive_path = _delete(root, run, archive)
        except (ShmlogError, OSError) as error:
            failed.append(f"{run.experiment}/{run.run_id}: {error}")
        else:
            yield replace(run, archive=archive_path)


def _delete(root: Root, run: PrunedRun, archive: bool) -> Path | None:
    """Delete a run unless it has changed since it was archived; return its archive."""
    layout = root.run(run.experiment, run.run_id)
    archived_state, archive_path = None, None
    with removal.held(layout):  # no process resumes it while the archive is written
        _refuse_kept(layout)
        if archive:
            from shmlog.store.archive import write_archive

            archived_state = removal.state_of(layout)
            archive_path = write_archive(root, layout)
        with root.locked():
            _refuse_kept(layout)
            if archive and removal.state_of(layout) != archived_state:
                raise RunStateError("kept, since it has changed while it was archived")
            folder = removal.move_to_trash(root, layout)
    removal.delete(folder)
    return archive_path


def _refuse_kept(layout: RunLayout) -> None:
    """Raise RunStateError if a run must not be deleted by now."""
    facts = read_facts(layout)
    why = removal.why_busy(layout, facts) or removal.why_pinned(layout, facts)
    if why:
        raise RunStateError(f"kept, since it is {why} by now")
