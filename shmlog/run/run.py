"""Run: the object to which a process logs. Its C base class does the logging itself."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar, Protocol

from shmlog import _core
from shmlog.folder.description import Description
from shmlog.folder.large import write_large
from shmlog.folder.layout import RunLayout
from shmlog.folder.logsettings import LogSettings
from shmlog.folder.segmentref import SegmentRef
from shmlog.records.reasons import CLOSED
from shmlog.run import late
from shmlog.run.artifacts import Artifacts
from shmlog.run.described import Described
from shmlog.run.identity import Identity, script_name
from shmlog.run.life import Life
from shmlog.run.messages import Messages
from shmlog.run.patience import Flushers
from shmlog.segment.beacon import BeaconEntry
from shmlog.segment.doorbell import Doorbell


class Kin(Protocol):
    """The functions of `shmlog.run.join` about other runs of this process and of those that started it."""

    def is_open(self, run: Run, if_unknown: bool, /) -> bool:
        """Whether the owner of a follower's run has it open; ``if_unknown`` if that is unknown."""

    def next_of(self, run: Run, /) -> Run | None:
        """Return the run to which a follower's calls on ``run``, which has ended, go."""

    def forget(self, run: Run, /) -> None:
        """Remove a run that has ended from the list of this process's runs."""

    def reopen(self, run_dir: str, segment: str | None, beacon: str | None, /) -> Run:
        """Return a run that was pickled in another process."""


class Run(Messages, Artifacts, Described, Life, _core.RunBase):
    """A run to which this process logs, made by `shmlog.init` or `shmlog.attach`.

    Works as it is in a forked child, and pickles by reference to a spawned one. In a process that follows the maker
    of the run, calls go to the maker's next run when this one has ended. Logging never raises because of
    the machinery: it drops and counts, unless the run was made with ``strict=True``.
    """

    _kin: ClassVar[Kin]

    def __init__(
        self, layout: RunLayout, ref: SegmentRef | None, *, owner: bool = False, maker: bool = False,
        log_settings: LogSettings | None = None, described: Description | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        Life.__init__(self)
        Described.__init__(self, described or Description(), config or {})
        self._layout = layout
        self._log_settings = log_settings
        self._ref = ref
        self._owner_pid = os.getpid() if owner or maker else None
        self._is_maker = maker
        self._beacon: str | None = None  # of the owner that this process is or follows
        self._entry: BeaconEntry | None = None  # the run's entry in that beacon
        self._follows = True  # whether a process that does not own it follows its owner to the next run
        self._identity_given = Identity()
        self._script = script_name()
        self._bell = Doorbell.open(ref.name if ref else None)
        self._started_s = time.monotonic()
        self._flushers = Flushers(layout)
        self._skipped: set[str] = set()  # names of values that were None

    # ---- properties ----

    @property
    def dir(self) -> Path:
        """Folder of the run."""
        return self._layout.dir

    @property
    def id(self) -> str:
        """Unique id of the run, the name of its folder."""
        return self._layout.run_id

    @property
    def experiment(self) -> str:
        """Name of the experiment that the run belongs to."""
        return self._layout.experiment

    @property
    def status(self) -> str:
        """``running``, or how this process finished the run."""
        return self._status

    @property
    def is_owner(self) -> bool:
        """Whether this process made the run, or has joined it by `init` or ``attach(run_dir)``.

        A run ends when all its owners have finished or died.
        """
        return self._owner_pid == os.getpid()

    @property
    def enabled(self) -> bool:
        """Whether calls have an effect: False for a run made with ``mode="disabled"``."""
        return not self._disabled

    @property
    def _was_ours(self) -> bool:
        """Whether this process is or was an owner of the run, or the run is disabled."""
        return self.is_owner or self._disabled

    @property
    def is_open(self) -> bool:
        """Whether the run accepts records of this process."""
        if self._disabled:
            return self._status == "running"
        return not self._is_over and (self._has_lane or self._is_announced or self._is_open())

    def __repr__(self) -> str:
        return f"<shmlog.Run {self.experiment}/{self.id} {self._status} at {str(self.dir)!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._kin.reopen, (str(self.dir), self._ref.name if self._ref else None, self._beacon)

    # ---- hooks of the C base class, and of Life ----

    def _identity(self) -> bytes:
        """Return the owner record of this process."""
        return _core.owner_record(*self._identity_given.detected(), self._script)

    def _is_open(self, if_unknown: bool = True) -> bool:
        return self.is_owner or self._kin.is_open(self, if_unknown)

    def _next(self) -> Run | None:
        """Return the run to which a follower's calls on this one go."""
        return None if self.is_owner or not self._follows else self._kin.next_of(self)

    def _forget(self) -> None:
        self._kin.forget(self)

    def _say_farewell(self) -> None:
        from shmlog.run import farewell  # not needed by a process that is still at work

        if farewell.is_wanted(self._is_quiet):
            how = farewell.how_ended(self.status, self._duration_s, self._reason, is_known=not self._is_awaited)
            farewell.say(self._layout, how, self._counts(), is_sealed=self._is_sealed)

    def _count_late(self, records: int) -> None:
        late.count(self._layout, CLOSED, records)

    def _ring(self) -> None:
        self._bell.ring()

    def _flusher_lives(self) -> bool:
        try:
            return self._segment.flusher_lives
        except OSError:
            return True  # no descriptor is left for the check; a waiting call gives up in time

    def _flusher_lost(self) -> bool:
        """Start another flusher; called when none lives."""
        return self._flushers.replace(self._segment, {lane: tail for lane, (_, tail, _) in self._lanes().items()})

    def _flusher_lost_at_end(self) -> bool:
        """Start another flusher, which closes the run, unless the last one has ended because it has; none lives."""
        return self._is_closed() or self._flushers.replace(self._segment, None, is_over=True)

    def _spill(self, data: bytes) -> bytes:
        """Write a text that is too large for the ring into its own file; return the path."""
        self._layout.refuse_links()
        return f"large/{write_large(self._layout.dir, data)}".encode()

    def _time_us(self, timestamp: Any) -> int:
        """Return a time that a call gives as microseconds since 1970."""
        from shmlog.run.timestamps import time_us  # rarely needed, and it imports much

        return time_us(timestamp)

    def _times_us(self, timestamps: Any) -> Any:
        """Return those of an `extend` as a buffer of int64."""
        from shmlog.run.timestamps import times_us  # as above

        return times_us(timestamps)

    def _flat(self, metrics: dict[str, Any], keeps_none: bool) -> dict[str, Any]:
        """Return a dict without dicts in it and, unless it keeps them, without values that are None."""
        from shmlog.run.nested import flatten  # rarely needed

        flat, skipped = flatten(metrics, keeps_none=keeps_none)
        for name in skipped:
            self._skip(name)
        return flat

    def _skip(self, name: str) -> None:
        """Warn of a value that is None, once for each name."""
        if name not in self._skipped:
            self._skipped.add(name)
            from shmlog.base.warn import warn_caller  # as above

            warn_caller(f"metric {name!r}: the value is None, and is left out; with strict=True that is a TypeError")

    def _first_drop(self, reason: str) -> None:
        if reason == CLOSED and not late.is_first(self._layout):
            return  # another handle of the same run has warned
        from shmlog.run.drops import warn_of_drop  # rarely needed

        warn_of_drop(self._layout, reason)
