"""What a store holds: experiments, their runs, and the metrics and artifacts of those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog.base.plain import from_word
from shmlog.errors import RunStateError
from shmlog.folder.status import RunStatus
from shmlog.reader.codec import Record
from shmlog.records.values import FLOAT, PRODUCER, Value, cells_of, value_in

if TYPE_CHECKING:
    from shmlog.reader.artifacts import Artifact


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentRecord(Record):
    """A folder of runs, and what experiment.yaml says of it.

    Attributes
    ----------
    name : str
        Name of the folder, which never changes.
    display_name : str
        For people; the folder's name unless another was given.
    created_at : datetime or None
        In UTC.
    runs : int
        How many there are.
    problems : tuple of str
        What of experiment.yaml could not be read.
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
    """The commit that the code of a run stood on.

    Attributes
    ----------
    branch : str or None
        None if HEAD was detached.
    dirty : bool or None
        Whether files that git knows had been changed since; None if that took too long.
    diff : str or None
        Name of the file in the run folder that has these changes, if ``git_diff=True`` was given.
    diff_problem : str or None
        Why there is none all the same.
    """

    commit: str
    branch: str | None = None
    dirty: bool | None = None
    diff: str | None = None
    diff_problem: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord(Record):
    """A run: what run.yaml, config.yaml and annotations.yaml say, and what the kernel knows better.

    Attributes
    ----------
    run_id : str
        Name of its folder, which never changes.
    status : RunStatus
        ``crashed`` also where run.yaml says ``running`` and none of its processes lives.
    live : bool or None
        Whether somebody works on it; None if that can't be told from here.
    attempt : int
        1, and one more each time it is resumed.
    created_at, started_at, ended_at : datetime or None
        In UTC.
    paused_s : float
        Seconds between its attempts, in which nothing ran; 0 of a run that was never resumed.
    params : dict
        Parameters, nested as they were given. NaN and infinities are the texts ``"NaN"``,
        ``"Infinity"`` and ``"-Infinity"``, as in config.yaml.
    name, tags, description, notes, group, pinned
        As annotated last, else as given to ``init``.
    environment : dict
        What it worked with: ``platform``, ``implementation``, ``executable``, ``cwd``, ``cpus``, ``memory_bytes``,
        ``gpus``, ``gpu_driver``, ``shmlog``, and ``variables``, those that say where in a job it stood.
        `StoredRun.packages` has the packages.
    trace_id, span_id : str or None
        Of the span that it was started in (W3C trace context).
    complete : bool
        Whether nothing is left to drain into its files.
    counts : dict or None
        ``metrics``, ``events`` and ``dropped``, as they were when the run was closed; None until then.
        `StoredRun.counts` has what was dropped after the end, too.
    problems : tuple of str
        What of its files is damaged. What stands in them otherwise is here all the same.
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
        """The git commit that the code stood on."""
        return None if self.git is None else self.git.commit

    @property
    def began_at(self) -> datetime | None:
        """When it was started, or else created."""
        return self.started_at or self.created_at

    @property
    def duration_s(self) -> float | None:
        """Seconds in which it ran: from start to end, or until now, without the pauses between its attempts.

        None if it has not started, or its end is not known.
        """
        if self.started_at is None:
            return None
        end = self.ended_at or (_now() if self.status is RunStatus.RUNNING else None)
        return None if end is None else (end - self.started_at).total_seconds() - self.paused_s

    def start(self, at: datetime | None = None) -> RunRecord:
        """Return the pending run as it is when it has started.

        Raises
        ------
        RunStateError
            If it is not pending.
        """
        if self.status is not RunStatus.PENDING:
            raise RunStateError(f"run {self.run_id} is {self.status}: only a pending run can be started")
        return replace(self, status=self.status.advance("running"), started_at=at or _now())

    def finish(self, status: str = "success", at: datetime | None = None) -> RunRecord:
        """Return the running run as it is when it is over.

        Raises
        ------
        ValueError
            If ``status`` is unknown.
        RunStateError
            If the run is not running, or ``status`` is not the status of one that is over.
        """
        return replace(self, status=self.status.advance(status), ended_at=at or _now(), live=False)

    def resume(self) -> RunRecord:
        """Return the run as it is in its next attempt.

        Raises
        ------
        RunStateError
            If it is not over.
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
        Who logged it, as far as that is known.
    seq : int or None
        Its number among all that its lane was offered.
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
        """Return the record as JSON has it; ``kind`` tells the number NaN from the text."""
        return {**Record.to_dict(self), "kind": self.kind}

    @classmethod
    def from_dict(cls, data: Any) -> MetricRecord:
        """Return the record that `to_dict` made ``data`` of; raises CorruptDataError."""
        if data.get("kind") == FLOAT:
            data = {**data, "value": from_word(data.get("value"))}
        return super(MetricRecord, cls).from_dict(data)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactRecord(Record):
    """A file that belongs to a run.

    Attributes
    ----------
    path : str
        Relative to the run's folder artifacts/, with ``/``.
    created_at : datetime
        When it was logged, or else last written, in UTC.
    digest : str or None
        ``"sha256:"`` and hexadecimal digits, as logged; None of a file that was put there otherwise.
    media_type : str or None
        As the end of its name tells.
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


def _now() -> datetime:
    return datetime.now(UTC)
