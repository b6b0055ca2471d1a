"""run.yaml: every field that it may have, and what it says on each occasion. No other module spells its keys.

Each attempt that it lists has lanes of its own: those of a later one have the higher numbers. So the
lane of a record tells its attempt, and no record has to.
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
"""What people may say of a run in words when they make it without processes."""

_OF_ATTEMPT = ("status", "started_at", "ended_at", "host", "pid", "argv", "python", "git", "environment")
_OF_LIFE = ("segment", "machine", "boot_id", "host", "status", "complete")
_OF_SOURCE = (
    *TEXTS, "user", "host", "git", "argv", "python", "environment", "trace_id", "span_id", "attempt", "created_at",
    "started_at", "ended_at",
)  # fmt: skip
_ABSENT = object()


class _Field:
    """A field of run.yaml, whose key is its name here; with what is written of a run of which nothing tells it."""

    __slots__ = ("key", "unknown")

    def __init__(self, unknown: Any = _ABSENT) -> None:
        self.unknown = unknown

    def __set_name__(self, owner: type, name: str) -> None:
        self.key = name

    def __get__(self, described: Description, owner: type) -> Any:
        return described.mapping.get(self.key)

    def __set__(self, described: Description, value: Any) -> None:
        described.mapping[self.key] = value


class Description:
    """What run.yaml says, or is to say.

    A field that it lacks is None. What a file says is taken as it stands, whatever its type: whoever reads a field
    judges that. Keys of later versions stay where they are when it is written again.
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
        """Return another one that says this of the fields, and all else as it stands."""
        return Description(self.mapping, **fields)

    def fill(self, **fields: Any) -> None:
        """Say this where nothing is said; None is something."""
        self.mapping = {**self.mapping, **fields, **self.mapping}

    # ---- the file ----

    @classmethod
    def read(cls, layout: RunLayout) -> Description:
        """Return what run.yaml says, whatever its checksum; raises FileNotFoundError, or CorruptDataError."""
        return cls(runfile.read_mapping(layout.run_yaml))

    @classmethod
    def read_or_guess(cls, layout: RunLayout) -> tuple[Description, str | None]:
        """Return what run.yaml says, or what can be said without it, and what is wrong with it, or None.

        Raises
        ------
        FileNotFoundError
            If there is none.
        """
        try:
            mapping, fault = runfile.read_sealed_mapping(layout.run_yaml)
        except UnreadableError as error:
            is_over = not layout.sealed_json.exists() and not layout.logs()
            return cls(run_id=layout.run_id, experiment=layout.experiment, complete=is_over), str(error)
        return cls(mapping), fault

    def write(self, layout: RunLayout, *, durable: bool = True) -> None:
        """Replace run.yaml, atomically and, by default, durably."""
        runfile.write_sealed(layout.run_yaml, self.mapping, durable=durable)

    # ---- occasions ----

    @classmethod
    def new(cls, layout: RunLayout, given: Description, process: Description) -> Description:
        """Return what is said of a run that begins: what `init` was given, and who makes it."""
        now = utc_now()
        described = cls(
            schema=SCHEMA, run_id=layout.run_id, experiment=layout.experiment, name=given.name or layout.run_id,
            status=RUNNING, created_at=now, started_at=now, ended_at=None, **process.mapping,
            sinks=given.sinks, tags=given.tags, group=given.group, notes=given.notes, parent=given.parent,
            git=None, producers=[], counts=None, dropped=None, complete=False, attempt=1,
        )  # fmt: skip
        described.attempts = [described.first_attempt()]
        return described

    @classmethod
    def pending(cls, layout: RunLayout, given: Mapping[str, Any]) -> Description:
        """Return what is said of a run without processes of shmlog."""
        return cls(
            {
                "schema": SCHEMA, "run_id": layout.run_id, "experiment": layout.experiment, **dict.fromkeys(TEXTS),
                **given, "name": given.get("name") or layout.run_id,
            },
            status=PENDING, created_at=utc_now(), started_at=None, ended_at=None, segment=None, sinks=[], producers=[],
            counts=None, dropped=None, complete=False,
        )  # fmt: skip

    def next_attempt(
        self, given: Description, process: Description, *, first_lane: int, config: dict[str, Any]
    ) -> Description:
        """Return what is said when the run is resumed; ``config`` are the parameters that change."""
        attempts = self.all_attempts()
        said = {name: value for name, value in given.mapping.items() if value}
        sinks = self.sinks or given.sinks  # none: somebody else ran it so far
        described = Description({**self.mapping, **process.mapping, **said}).changed(
            sinks=sinks, status=RUNNING, ended_at=None, git=None, producers=[], counts=None, dropped=None, offered={},
            lost={}, complete=False, attempt=len(attempts) + 1,
        )  # fmt: skip
        described.mapping.pop("files", None)  # they change again
        latest = {
            "attempt": described.attempt, "first_lane": first_lane, "status": RUNNING, "started_at": utc_now(),
            "ended_at": None, "host": described.host, "pid": described.pid, "argv": described.argv,
            "python": described.python, "environment": described.environment, "git": None, "config": config,
        }  # fmt: skip
        return described.changed(attempts=[*attempts, latest])

    def made_from(self, provenance: Mapping[str, Any]) -> Description:
        """Return what is said when the code and the machine of the latest attempt are known."""
        described = self.changed(git=provenance.get("git"), environment=provenance.get("environment"))
        described._close_attempt()
        return described

    def finished(self, status: str | None, damaged_lanes: list[int] | None, **books: Any) -> Description:
        """Return what is said when an attempt is over, or all of it is drained.

        ``status`` None: as it stands. ``damaged_lanes`` None: there was no segment to tell what it alone held.
        """
        end = {} if status is None else {"status": status, "ended_at": self.ended_at or utc_now()}
        told = {"damaged_lanes": damaged_lanes} if damaged_lanes is not None else {"recovered_without_segment": True}
        described = self.changed(**end, **told, **books)
        described._close_attempt()
        return described

    @classmethod
    def imported(cls, layout: RunLayout, told: Description, status: str, **books: Any) -> Description:
        """Return what is said of a run that a source has ``told``; ``books`` are what has been written of it."""
        known = {name: plain(told.mapping[name]) for name in _OF_SOURCE if told.mapping.get(name) is not None}
        if isinstance(known.get("git"), dict):
            known["git"].pop("diff", None)  # no export holds it
        tags = [tag for tag in told.tags if isinstance(tag, str)] if isinstance(told.tags, list) else []
        base = cls(schema=SCHEMA, run_id=layout.run_id, experiment=layout.experiment, name=layout.run_id)
        return base.changed(**known).changed(tags=tags, status=status, segment=None, sinks=["parquet"], **books)

    @classmethod
    def rebuilt(cls, layout: RunLayout, *, created_at: str, told: Description, salvaged: dict[str, Any]) -> Description:
        """Return what remains of a run.yaml, else what events have ``told``, else what the others rely on."""
        unknown = {name: field.unknown for name, field in FIELDS.items() if field.unknown is not _ABSENT}
        return cls(
            {**unknown, "created_at": created_at, **told.mapping, **salvaged},
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
        """Return all attempts, the latest last; of a run.yaml whose list makes no sense, one."""
        if self.attempts is None or self.fault_of_attempts():
            return [self.first_attempt()]
        *earlier, latest = self.attempts
        now = self._of(_OF_ATTEMPT)
        del now["started_at"]  # of a run that of its first
        return [*earlier, {**latest, **now}]

    def fault_of_attempts(self) -> str | None:
        """Return what is wrong with the list of attempts, or None."""
        told = self.attempts
        if told is None:
            return None
        if not isinstance(told, list) or not told or not all(isinstance(one, dict) for one in told):
            return "its list of attempts is damaged"
        lanes = [one.get("first_lane") for one in told]
        if not all(type(lane) is int for lane in lanes) or lanes[0] != 0 or lanes != sorted(lanes):
            return "the first lanes of its attempts don't ascend from 0"
        if [one.get("attempt") for one in told] != list(range(1, len(told) + 1)):
            return "its attempts are not numbered from 1 on"
        return None

    def first_lanes(self) -> list[int]:
        """Return the first lane of each attempt."""
        return [int(attempt["first_lane"]) for attempt in self.all_attempts()]

    def number_of(self, attempt: int | None) -> int:
        """Return the number of an attempt, by default of the latest; raises ValueError if the run has none such."""
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
        """Have the list say of the latest attempt what is said of the run."""
        if self.attempts is not None:
            self.attempts = self.all_attempts()

    # ---- parts of it ----

    def life(self) -> dict[str, Any]:
        """Return what tells whether processes live, and what it says of the end."""
        return self._of(_OF_LIFE)

    def _of(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.mapping.get(name) for name in names}


FIELDS = {name: field for name, field in vars(Description).items() if isinstance(field, _Field)}


def run_id_of(layout: RunLayout) -> str:
    """Return the id that a run was made under; its folder may have been renamed since."""
    try:
        made_under = Description.read(layout).run_id
    except (FileNotFoundError, UnreadableError):
        return layout.run_id
    return made_under if isinstance(made_under, str) else layout.run_id


def begun_attempt(number: Any, *, first_lane: Any, started_at: Any, pid: Any) -> dict[str, Any]:
    """Return an attempt of which no more is known than how it has begun."""
    return {
        "attempt": number, "first_lane": first_lane, "status": None, "started_at": started_at, "ended_at": None,
        "pid": pid, "config": {},
    }  # fmt: skip
