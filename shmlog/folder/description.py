"""run.yaml: every field that it may have, and its content on each occasion. No other module spells its keys.

Each attempt in its list has lanes of its own, and those of a later attempt have higher numbers. So the
lane of a record identifies its attempt, and no record has to store it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from shmlog.base.plain import plain
from shmlog.base.times import read_time, utc_now
from shmlog.errors import UnreadableError
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.folder.status import PENDING, RUNNING

SCHEMA = 1
TEXTS = ("name", "description", "notes", "group", "parent", "job_name")
"""The texts that people may give a run when they create it without processes."""

_OF_ATTEMPT = ("status", "started_at", "ended_at", "host", "pid", "argv", "python", "git", "environment")
_OF_LIFE = ("segment", "machine", "boot_id", "host", "status", "complete")
_OF_SOURCE = (
    *TEXTS, "user", "host", "git", "argv", "python", "environment", "trace_id", "span_id", "attempt", "created_at",
    "started_at", "ended_at",
)  # fmt: skip
_ABSENT = object()


class _Field:
    """A field of run.yaml, whose key is its name here; ``default`` is written where its value is lost."""

    __slots__ = ("default", "key")

    def __init__(self, default: Any = _ABSENT) -> None:
        self.default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = name

    def __get__(self, description: Description, owner: type) -> Any:
        return description.mapping.get(self.key)

    def __set__(self, description: Description, value: Any) -> None:
        description.mapping[self.key] = value


class Description:
    """The content of run.yaml, as read or to be written.

    A field that is missing is None. Values from a file are kept as they are, whatever their type: the code that reads
    a field checks it. Keys of later versions stay in place when the file is written again.
    """

    __slots__ = ("mapping",)

    schema = _Field(SCHEMA)
    run_id = _Field()
    experiment = _Field()
    name = _Field(None)
    status = _Field(None)
    created_at = _Field(None)
    started_at = _Field(None)
    ended_at = _Field(None)
    sealed_at = _Field()
    host = _Field(None)
    machine = _Field(None)
    boot_id = _Field(None)
    node = _Field(0)
    pid = _Field(None)
    pid_start = _Field()
    turn = _Field()
    argv = _Field([])
    user = _Field(None)
    trace_id = _Field()
    span_id = _Field()
    python = _Field(None)
    clock = _Field(None)
    segment = _Field(None)
    structured_log = _Field()
    git_diff = _Field()
    sinks = _Field()
    tags = _Field([])
    description = _Field()
    group = _Field(None)
    notes = _Field(None)
    parent = _Field(None)
    job_name = _Field()
    git = _Field(None)
    environment = _Field({})
    producers = _Field(None)
    counts = _Field(None)
    dropped = _Field(None)
    offered = _Field()
    lost = _Field()
    kept_logs = _Field()
    damaged_lanes = _Field()
    recovered_without_segment = _Field()
    complete = _Field()
    attempt = _Field()
    attempts = _Field()
    source = _Field()
    files = _Field()

    def __init__(self, mapping: Mapping[Any, Any] | None = None, /, **fields: Any) -> None:
        if not fields.keys() <= FIELDS.keys():
            raise TypeError(f"run.yaml has no {min(fields.keys() - FIELDS.keys())!r}")
        self.mapping = {**(mapping or {}), **fields}

    def changed(self, **fields: Any) -> Description:
        """Return a description with these values; all other fields are the same."""
        return Description(self.mapping, **fields)

    def fill(self, **fields: Any) -> None:
        """Set the fields that are missing; one that is None is not missing."""
        self.mapping = {**self.mapping, **fields, **self.mapping}

    # ---- the file ----

    @classmethod
    def read(cls, layout: RunLayout) -> Description:
        """Return the content of run.yaml, whatever its checksum; raises FileNotFoundError or CorruptDataError."""
        return cls(runfile.read_mapping(layout.run_yaml, layout.files))

    @classmethod
    def read_or_guess(cls, layout: RunLayout) -> tuple[Description, str | None]:
        """Return the content of run.yaml, or what is known without it, and what is wrong with it, or None.

        Raises
        ------
        FileNotFoundError
            If there is no run.yaml.
        """
        try:
            mapping, fault = runfile.read_sealed_mapping(layout.run_yaml, layout.files)
        except UnreadableError as error:
            is_over = not layout.files.exists(layout.sealed_json) and not layout.logs()
            return cls(run_id=layout.run_id, experiment=layout.experiment, complete=is_over), str(error)
        return cls(mapping), fault

    def write(self, layout: RunLayout, *, durable: bool = True) -> None:
        """Replace run.yaml, atomically and, by default, durably."""
        runfile.write_sealed(layout.run_yaml, self.mapping, durable=durable)

    # ---- occasions ----

    @classmethod
    def new(cls, layout: RunLayout, options: Description, process: Description) -> Description:
        """Return the description of a new run: the options of `init`, and the process that makes it."""
        now = utc_now()
        description = cls(
            schema=SCHEMA, run_id=layout.run_id, experiment=layout.experiment, name=options.name or layout.run_id,
            status=RUNNING, created_at=now, started_at=now, ended_at=None, **process.mapping,
            sinks=options.sinks, tags=options.tags, group=options.group, notes=options.notes, parent=options.parent,
            git=None, producers=[], counts=None, dropped=None, complete=False, attempt=1,
        )  # fmt: skip
        description.attempts = [description.first_attempt()]
        return description

    @classmethod
    def pending(cls, layout: RunLayout, fields: Mapping[str, Any]) -> Description:
        """Return the description of a run without processes of shmlog."""
        return cls(
            {
                "schema": SCHEMA, "run_id": layout.run_id, "experiment": layout.experiment, **dict.fromkeys(TEXTS),
                **fields, "name": fields.get("name") or layout.run_id,
            },
            status=PENDING, created_at=utc_now(), started_at=None, ended_at=None, segment=None, sinks=[], producers=[],
            counts=None, dropped=None, complete=False,
        )  # fmt: skip

    def begun(self, options: Description, process: Description) -> Description:
        """Return the description of a pending run that its first process of shmlog has begun."""
        given = {name: value for name, value in options.mapping.items() if value}
        description = Description({**self.mapping, **process.mapping, **given}).changed(
            status=RUNNING, started_at=utc_now(), git=None, attempt=1
        )
        description.attempts = [description.first_attempt()]
        return description

    def next_attempt(
        self, options: Description, process: Description, *, first_lane: int, config: dict[str, Any]
    ) -> Description:
        """Return the description of a run that is resumed; ``config`` are the parameters that change."""
        attempts = self.all_attempts()
        changes = {name: value for name, value in options.mapping.items() if value}
        sinks = self.sinks or options.sinks  # none: no process of shmlog has run it so far
        description = Description({**self.mapping, **process.mapping, **changes}).changed(
            sinks=sinks, status=RUNNING, ended_at=None, sealed_at=None, git=None, producers=[], counts=None,
            dropped=None, offered={}, lost={}, complete=False, attempt=len(attempts) + 1,
        )  # fmt: skip
        description.mapping.pop("files", None)  # they change again
        latest = {
            "attempt": description.attempt, "first_lane": first_lane, "status": RUNNING, "started_at": utc_now(),
            "ended_at": None, "host": description.host, "pid": description.pid, "argv": description.argv,
            "python": description.python, "environment": description.environment, "git": None, "config": config,
        }  # fmt: skip
        return description.changed(attempts=[*attempts, latest])

    def made_from(self, provenance: Mapping[str, Any]) -> Description:
        """Return the description with the code and the machine of the latest attempt."""
        description = self.changed(git=provenance.get("git"), environment=provenance.get("environment"))
        description._close_attempt()
        return description

    def finished(
        self, status: str | None, ended_at: str | None, damaged_lanes: list[int] | None, **books: Any
    ) -> Description:
        """Return the description when an attempt is over, or all of it is drained.

        ``status`` None: unchanged. ``ended_at`` None: nobody has said when it ended. ``damaged_lanes`` None: the
        segment, and what it alone held, was gone.
        """
        end = {} if status is None else {"status": status, "ended_at": ended_at or self.ended_at or utc_now()}
        damage = {"damaged_lanes": damaged_lanes} if damaged_lanes is not None else {"recovered_without_segment": True}
        description = self.changed(**end, **damage, **books)
        description._close_attempt()
        return description

    @classmethod
    def imported(cls, layout: RunLayout, original: Description, status: str, **books: Any) -> Description:
        """Return the description of a run imported from ``original``; ``books`` count what was written of it."""
        fields = {name: plain(original.mapping[name]) for name in _OF_SOURCE if original.mapping.get(name) is not None}
        if isinstance(fields.get("git"), dict):
            fields["git"].pop("diff", None)  # no export holds it
        tags = [tag for tag in original.tags if isinstance(tag, str)] if isinstance(original.tags, list) else []
        base = cls(schema=SCHEMA, run_id=layout.run_id, experiment=layout.experiment, name=layout.run_id)
        return base.changed(**fields).changed(tags=tags, status=status, segment=None, sinks=["parquet"], **books)

    @classmethod
    def rebuilt(
        cls, layout: RunLayout, *, created_at: str, from_events: Description, salvaged: dict[str, Any]
    ) -> Description:
        """Return a description of what is ``salvaged`` of run.yaml, else of what events say, else of defaults."""
        defaults = {name: field.default for name, field in FIELDS.items() if field.default is not _ABSENT}
        return cls(
            {**defaults, "created_at": created_at, **from_events.mapping, **salvaged},
            run_id=layout.run_id, experiment=layout.experiment,
        )  # fmt: skip

    # ---- attempts ----

    def first_attempt(self) -> dict[str, Any]:
        """Return the only attempt of a run that was never resumed."""
        return {"attempt": 1, "first_lane": 0, **self._of(_OF_ATTEMPT), "config": {}}

    def latest_attempt(self) -> int:
        """Return the number of the latest attempt."""
        return self.attempt if type(self.attempt) is int and self.attempt > 0 else 1

    def all_attempts(self) -> list[dict[str, Any]]:
        """Return all attempts, the latest last; if the list in run.yaml makes no sense, one."""
        if self.attempts is None or self.fault_of_attempts():
            return [self.first_attempt()]
        *earlier, latest = self.attempts
        current = self._of(_OF_ATTEMPT)
        del current["started_at"]  # that of the run is that of its first attempt
        return [*earlier, {**latest, **current}]

    def fault_of_attempts(self) -> str | None:
        """Return what is wrong with the list of attempts, or None."""
        attempts = self.attempts
        if attempts is None:
            return None
        if not isinstance(attempts, list) or not attempts or not all(isinstance(attempt, dict) for attempt in attempts):
            return "its list of attempts is damaged"
        lanes = [attempt.get("first_lane") for attempt in attempts]
        if not all(type(lane) is int for lane in lanes) or lanes[0] != 0 or lanes != sorted(lanes):
            return "the first lanes of its attempts don't ascend from 0"
        if [attempt.get("attempt") for attempt in attempts] != list(range(1, len(attempts) + 1)):
            return "its attempts are not numbered from 1 on"
        return None

    def first_lanes(self, node: int) -> list[int]:
        """Return the first lane of each attempt on a node; for other nodes, run.yaml names the first attempt alone."""
        return [int(attempt["first_lane"]) for attempt in self.all_attempts()] if node == 0 else [0]

    def number_of(self, attempt: int | None) -> int:
        """Return the number of an attempt, by default of the latest; raises ValueError if the run has no such one."""
        latest = self.latest_attempt()
        if attempt is not None and attempt not in range(1, latest + 1):
            raise ValueError(f"the run has no attempt {attempt!r}; they are numbered from 1 to {latest}")
        return latest if attempt is None else attempt

    def paused_s(self) -> float:
        """Return for how many seconds nothing ran between the attempts, as far as their ends are known."""
        gaps = [
            (read_time(str(before.get("ended_at"))), read_time(str(after.get("started_at"))))
            for before, after in pairwise(self.all_attempts())
        ]
        return sum((max(0.0, (start - end).total_seconds()) for end, start in gaps if end and start), 0.0)

    def _close_attempt(self) -> None:
        """Copy the values of the run into the latest attempt of the list."""
        if self.attempts is not None:
            self.attempts = self.all_attempts()

    # ---- parts of it ----

    def life(self) -> dict[str, Any]:
        """Return the fields from which liveness and the status are found."""
        return self._of(_OF_LIFE)

    def _of(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.mapping.get(name) for name in names}


FIELDS = {name: field for name, field in vars(Description).items() if isinstance(field, _Field)}


def run_id_of(layout: RunLayout) -> str:
    """Return the id under which a run was made; its folder may have been renamed since."""
    try:
        made_under = Description.read(layout).run_id
    except (FileNotFoundError, UnreadableError):
        return layout.run_id
    return made_under if isinstance(made_under, str) else layout.run_id


def begun_attempt(number: Any, *, first_lane: Any, started_at: Any, pid: Any) -> dict[str, Any]:
    """Return an attempt of which only the beginning is known."""
    return {
        "attempt": number, "first_lane": first_lane, "status": None, "started_at": started_at, "ended_at": None,
        "pid": pid, "config": {},
    }  # fmt: skip
