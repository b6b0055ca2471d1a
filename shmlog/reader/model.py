"""The records of a store: experiments, their runs, and the metrics and artifacts of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog.base.plain import from_word
from shmlog.errors import CorruptDataError, RunStateError
from shmlog.folder.status import RunStatus
from shmlog.reader.codec import Record
from shmlog.records.values import FLOAT, PRODUCER, Value, cells_of, value_in

if TYPE_CHECKING:
    from shmlog.reader.artifacts import Artifact


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentRecord(Record):
    """A folder of runs, and what experiment.yaml says about it.

    Attributes
    ----------
    name : str
        Name of the folder, which never changes.
    display_name : str
        For people; the folder's name if there is no other.
    created_at : datetime or None
        When its folder was made, in UTC; None if that is not known, as of a folder that was copied.
    runs : int
        How many runs there are.
    problems : tuple of str
        Parts of experiment.yaml that could not be read.
    """

    name: str
    dir: Path
    display_name: str
    description: str | None = None
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    runs: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class GitState(Record):
    """The git commit of the code of a run.

    Attributes
    ----------
    branch : str or None
        None if HEAD was detached.
    dirty : bool or None
        Whether tracked files differed from the commit; None if git took too long.
    diff : str or None
        Name of the file in the run folder that holds these changes, if ``git_diff=True`` was given.
    diff_problem : str or None
        Why there is no such file although it was asked for.
    """

    commit: str
    branch: str | None = None
    dirty: bool | None = None
    diff: str | None = None
    diff_problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord(Record):
    """A run: what run.yaml, config.yaml and annotations.yaml say, corrected by what the kernel knows.

    Attributes
    ----------
    run_id : str
        Name of its folder, which never changes.
    status : RunStatus
        ``crashed`` also where run.yaml says ``running`` and none of its processes lives.
    live : bool or None
        Whether processes of it live; None if this machine can't know.
    attempt : int
        1, plus 1 for each time that the run was resumed.
    created_at, started_at, ended_at : datetime or None
        In UTC.
    paused_s : float
        Seconds between its attempts, in which nothing ran; 0 if the run was never resumed.
    params : dict
        Parameters, nested as they were logged. NaN and infinities are the texts ``"NaN"``,
        ``"Infinity"`` and ``"-Infinity"``, as in config.yaml.
    name, tags, description, notes, group, pinned
        The latest annotation, or else the argument of ``init``.
    environment : dict
        What the run worked with: ``platform``, ``implementation``, ``executable``, ``cwd``, ``cpus``, ``memory_bytes``,
        ``gpus``, ``gpu_driver``, ``shmlog``, and ``variables``: those that give its place in a job.
        `StoredRun.packages` has the packages.
    trace_id, span_id : str or None
        The span in which it was started (W3C trace context).
    complete : bool
        Whether its files hold all records: nothing is left to drain.
    counts : dict or None
        ``metrics``, ``events`` and ``dropped`` at the time when the run was closed; None until then.
        `StoredRun.counts` includes what was dropped after the end.
    problems : tuple of str
        What is damaged in its files. The fields hold all that could be read.
    """

    run_id: str
    experiment: str
    dir: Path
    status: RunStatus
    live: bool | None = None
    name: str
    attempt: int = 1
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    paused_s: float = 0.0
    params: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    description: str | None = None
    notes: str | None = None
    group: str | None = None
    parent: str | None = None
    job_name: str | None = None
    user: str | None = None
    host: str | None = None
    git: GitState | None = None
    argv: tuple[str, ...] = ()
    python: str | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    trace_id: str | None = None
    span_id: str | None = None
    pinned: bool = False
    complete: bool = False
    counts: dict[str, int] | None = None
    problems: tuple[str, ...] = ()

    @property
    def commit_id(self) -> str | None:
        """The git commit of the code."""
        return None if self.git is None else self.git.commit

    @property
    def began_at(self) -> datetime | None:
        """When the run was started, or else created."""
        return self.started_at or self.created_at

    @property
    def duration_s(self) -> float | None:
        """Seconds for which the run ran: from start to end or until now, without the pauses between attempts.

        None if it has not started, or its end is unknown.
        """
        if self.started_at is None:
            return None
        end = self.ended_at or (_now() if self.status is RunStatus.RUNNING else None)
        return None if end is None else (end - self.started_at).total_seconds() - self.paused_s

    def start(self, at: datetime | None = None) -> RunRecord:
        """Return the record of this pending run after its start.

        Raises
        ------
        RunStateError
            If the run is not pending.
        """
        if self.status is not RunStatus.PENDING:
            raise RunStateError(f"run {self.run_id} is {self.status}: only a pending run can be started")
        return replace(self, status=self.status.advance("running"), started_at=at or _now())

    def finish(self, status: str = "success", at: datetime | None = None) -> RunRecord:
        """Return the record of this running run after its end.

        Raises
        ------
        ValueError
            If ``status`` is unknown.
        RunStateError
            If the run is not running, or ``status`` is not that of a run that is over.
        """
        return replace(self, status=self.status.advance(status), ended_at=at or _now(), live=False)

    def resume(self) -> RunRecord:
        """Return the record of this run in its next attempt.

        Raises
        ------
        RunStateError
            If the run is not over.
        """
        if not self.status.is_terminal:
            raise RunStateError(f"run {self.run_id} is {self.status}: only a run that is over can be resumed")
        status = self.status.advance("running")
        return replace(self, status=status, attempt=self.attempt + 1, ended_at=None, complete=False, live=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRecord(Record):
    """One value of a metric.

    Attributes
    ----------
    value : float, int, bool or str
        As it was logged.
    timestamp : datetime
        In UTC.
    rank, local_rank, worker, pid, lane
        The producer, as far as it is known.
    seq : int or None
        Its number among all records that its lane was offered.
    """

    run_id: str
    name: str
    step: int
    value: Value
    timestamp: datetime
    rank: int | None = None
    local_rank: int | None = None
    worker: int | None = None
    pid: int | None = None
    lane: int | None = None
    seq: int | None = None

    @classmethod
    def of_row(cls, run_id: str, row: Mapping[str, Any]) -> MetricRecord:
        """Return the record of a row of a table of schema `shmlog.records.schema.METRICS`."""
        producer = {name: row[name] for name in PRODUCER}
        value = value_in(row)
        return cls(run_id=run_id, name=row["name"], step=row["step"], value=value, timestamp=row["ts"], **producer)

    @property
    def kind(self) -> str:
        """``float``, ``int``, ``bool`` or ``text``."""
        cells = cells_of(self.value)
        assert cells is not None
        return cells[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON has it; ``kind`` distinguishes the number NaN from the text."""
        return {**Record.to_dict(self), "kind": self.kind}

    @classmethod
    def from_dict(cls, data: Any) -> MetricRecord:
        """Return the record that `to_dict` turned into ``data``; raises CorruptDataError."""
        if isinstance(data, Mapping) and data.get("kind") == FLOAT:
            data = {**data, "value": from_word(data.get("value"))}
        record = super(MetricRecord, cls).from_dict(data)
        if cells_of(record.value) is None:
            raise CorruptDataError(f"MetricRecord: value: no metric can have {record.value!r:.60}")
        return record


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactRecord(Record):
    """A file that belongs to a run.

    Attributes
    ----------
    path : str
        Relative to the run's folder artifacts/, with ``/`` between its parts.
    created_at : datetime
        When it was logged, or else last written, in UTC.
    digest : str or None
        ``"sha256:"`` and hexadecimal digits, as logged; None if the file was put there without logging.
    media_type : str or None
        Guessed from the end of its name.
    """

    run_id: str
    path: str
    size_bytes: int
    created_at: datetime
    digest: str | None = None
    media_type: str | None = None

    @classmethod
    def of(cls, run_id: str, artifact: Artifact) -> ArtifactRecord:
        """Return the record of an artifact of a run."""
        return cls(
            run_id=run_id, path=artifact.name, size_bytes=artifact.size_bytes, created_at=artifact.created_at,
            digest=artifact.digest, media_type=artifact.media_type,
        )  # fmt: skip


def flat_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters by their dotted names; parts with dots, quotes or blanks in them are quoted."""
    return dict(_flat(params, ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not path):
        for key, item in value.items():
            part = str(key)
            if not part or any(mark in part for mark in ".\"'") or part.split() != [part]:
                part = json.dumps(part, ensure_ascii=False)
            yield from _flat(item, f"{path}.{part}" if path else part)
    else:
        yield path, value


def _now() -> datetime:
    return datetime.now(UTC)
