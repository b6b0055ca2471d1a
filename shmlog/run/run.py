"""Run: what a process logs to. The logging itself is the C base class."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shmlog import _core
from shmlog.base.plain import dumps, plain
from shmlog.errors import DroppedError, RunStateError, log_warning
from shmlog.folder import recovered
from shmlog.folder.large import write_large
from shmlog.folder.layout import RunLayout, fsync_run
from shmlog.folder.logsettings import LEVELS, LogSettings
from shmlog.folder.segmentref import SegmentRef
from shmlog.folder.status import FINISH_CODES, FINISHED
from shmlog.records.reasons import CLOSED
from shmlog.run import exits, follow, late, registry
from shmlog.run.handed import hand_down
from shmlog.run.identity import Identity, script_name
from shmlog.run.patience import Flushers, Patience
from shmlog.run.redact import redact_config
from shmlog.run.structured import StructuredLog
from shmlog.segment import beacon
from shmlog.segment.beacon import Entry
from shmlog.segment.doorbell import Doorbell

FLUSH_S = 10.0
_NO_ERRORS = (SystemExit, GeneratorExit, KeyboardInterrupt)


class Run(StructuredLog):
    """A run that this process logs to; made by `shmlog.init` or `shmlog.attach`.

    Works as it is in a forked child, and pickles by reference to a spawned one. In a process that follows the one
    which made the run, calls go on to that one's next run when this one has ended. Logging never raises because of
    the machinery: it drops and counts, unless the run was made with ``strict=True``.
    """

    def __init__(
        self, layout: RunLayout, ref: SegmentRef | None, *, owner: bool = False, maker: bool = False,
        log_settings: LogSettings | None = None,
    ) -> None:  # fmt: skip
        super().__init__(layout, log_settings)
        self._ref = ref
        self._owner_pid = os.getpid() if owner or maker else None
        self._is_maker = maker
        self._beacon: str | None = None  # of the process that owns it, and that this one is or follows
        self._entry: Entry | None = None  # what is said of it there
        self._follows = True  # its owner to the next run, in a process that does not own it
        self._identity_known = Identity()
        self._script = script_name()
        self._bell = Doorbell.open(ref.name if ref else None)
        self._started_s = time.monotonic()
        self._status = "running"
        self._is_sealed = True
        self._names_are_synced = False
        self._flushers = Flushers(layout)

    # ---- what it is ----

    @property
    def dir(self) -> Path:
        """Folder of the run."""
        return self._layout.dir

    @property
    def id(self) -> str:
        """Id of the run, unique, the name of its folder."""
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
        """Whether calls do anything: not in a run that was made with ``mode="disabled"``."""
        return not self._disabled

    @property
    def _was_ours(self) -> bool:
        """Whether this process is or was an owner of the run, or it is disabled."""
        return self.is_owner or self._disabled

    @property
    def is_open(self) -> bool:
        """Whether the run takes what this process logs."""
        if self._disabled:
            return self._status == "running"
        return not self._is_over and (self._has_lane or self._is_announced or self._is_open())

    def __repr__(self) -> str:
        return f"<shmlog.Run {self.experiment}/{self.id} {self._status} at {str(self.dir)!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return registry.reopen, (str(self.dir), self._ref.name if self._ref else None, self._beacon)

    # ---- structured log ----

    def event(self, event_type: str, data: Mapping[str, Any] | None = None, *, console: bool = True) -> None:
        """Log a structured event into events.jsonl.

        Parameters
        ----------
        event_type : str
            1 to 1024 bytes of UTF-8, such as ``"evaluation"``.
        data : mapping, optional
            Anything that JSON can hold; arrays, paths, dates and the like are
            converted, NaN and infinities become strings.
        console : bool
            Whether a run with a console prints it.

        Raises
        ------
        TypeError, ValueError
            If ``event_type`` or ``data`` is not usable. Nothing was logged.
        """
        if not isinstance(event_type, str):
            raise TypeError(f"an event type must be a str, not {type(event_type).__name__}")
        if not self._disabled:
            self._put_event(event_type, dumps(data or {}))
            if console:
                self._tell(event_type, data or {})

    def debug(self, message: str) -> None:
        """Log a line of text for people at level debug."""
        self._message("debug", message)

    def info(self, message: str) -> None:
        """Log a line of text for people at level info."""
        self._message("info", message)

    def warning(self, message: str) -> None:
        """Log a line of text for people at level warning."""
        self._message("warning", message)

    def error(self, message: str) -> None:
        """Log a line of text for people at level error."""
        self._message("error", message)

    def _message(self, level: str, message: str) -> None:
        if self.keeps(LEVELS[level]):
            self.event("log", {"level": level, "message": str(message)})

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Log parameters: a ``config`` event, merged into config.yaml, without what ``init(redact=…)`` names."""
        is_mapping = isinstance(config, Mapping)
        self.event("config", redact_config(plain(config), self._settings.redact) if is_mapping else config)

    def log_progress(self, current: int, total: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Log how far the work is: ``current`` of ``total``, with some metrics."""
        share = 100 * current / total if total else 0.0
        data: dict[str, Any] = {"current": current, "total": total, "progress_pct": share}
        if metrics:
            data["metrics"] = metrics
        self.event("progress", data)

    def log_result(self, result: Mapping[str, Any]) -> None:
        """Log what came out."""
        self.event("result", result)

    def log_error(self, exception: BaseException, context: Mapping[str, Any] | None = None) -> None:
        """Log an exception with its traceback.

        Raises
        ------
        TypeError
            If it is none, such as a text, which `error` logs. Nothing was logged.
        """
        if not isinstance(exception, BaseException):
            kind = type(exception).__name__
            raise TypeError(f"log_error() takes an exception, not {kind}; error() logs a text, event() anything")
        import traceback  # rarely needed, and slow to import

        lines = traceback.format_exception(type(exception), exception, exception.__traceback__)
        data = {
            "type": type(exception).__name__,
            "message": str(exception),
            "traceback": "".join(lines),
        }
        if context:
            data["context"] = plain(context)
        self.event("error", data)

    def log_artifact(self, path: str | os.PathLike[str], name: str | None = None, *, algorithm: str = "sha256") -> None:
        """Keep a copy of a file, or of each file in a folder, as an artifact: an ``artifact`` event for each.

        Contents are stored once for all runs of a root. Logging the same again changes nothing.

        Parameters
        ----------
        path : path
            A file or a folder. It is read at once and may be changed afterwards. In a folder, links to files
            within it are logged as files, and empty folders are not logged.
        name : str, optional
            What it is called in the run: a path with ``/``. Default: the last part of ``path``.
        algorithm : str
            Of the digest: ``sha256``, ``sha512`` or ``blake2b``.

        Raises
        ------
        TypeError, ValueError
            If the name is not usable, or ``path`` is a device, a pipe, an empty folder or one with a link out
            of it. Nothing was logged.
        RunStateError
            If the run has an artifact of that name and other content, or has ended. Nothing was logged.
        StorageError
            If it can't be read or stored, or has changed meanwhile. Nothing was logged, and the run goes on.
        """
        if self._disabled:
            return
        if self._status != "running":
            raise RunStateError(f"run {self.id} has ended in this process ({self._status}): it takes no artifacts")
        run = self if self.is_owner or self.is_open else self._next()
        if run is None:
            raise RunStateError(f"run {self.id} has ended: it takes no artifacts")
        if run is not self:
            run.log_artifact(path, name, algorithm=algorithm)
            return
        from shmlog.run.artifacts import keep  # rarely needed, and slow to import

        for data in keep(self._layout, path, name, algorithm):
            self.event("artifact", data)

    # ---- flush, statistics ----

    def flush(self, timeout: float = FLUSH_S, *, durable: bool = False) -> bool:
        """Wait until all that this process logged is in the write-ahead log.

        Parameters
        ----------
        timeout : float
            Most seconds to wait. Gives up earlier when the flusher makes no
            progress for 2 s.
        durable : bool
            Wait until it is fsynced too.

        Returns
        -------
        bool
            Whether it is. False is no loss: the records wait in shared memory, or the run has ended for this
            process, and they were sealed with it.

        Raises
        ------
        ValueError
            If ``timeout`` is NaN.
        """
        if timeout != timeout:
            raise ValueError("timeout must be a number of seconds, not NaN")
        return self._flush(self._patience(), timeout, durable) if self._is_member else self._disabled

    def _flush(self, patience: Patience, timeout: float, durable: bool) -> bool:
        self._settle()
        if durable:
            self._request_sync()
        heads = {lane: head for lane, (head, _, _) in self._lanes().items()}
        is_flushed = patience.wait(lambda: self._is_flushed(heads, durable), patience.anything, timeout)
        return is_flushed and (not durable or self._sync_names())

    def _sync_names(self) -> bool:
        """Make durable that there is such a run, once in a process."""
        if not self._names_are_synced:
            try:
                fsync_run(self._layout)
            except OSError:
                return False
            self._names_are_synced = True
        return True

    def _lanes(self) -> dict[int, tuple[int, int, int]]:
        """Return head, tail and synced of each lane that this process has, or had for a thread that has ended."""
        lanes: dict[int, tuple[int, int, int]] = {}
        for lane, head, tail, synced in self._positions():
            lanes[lane] = max(head, lanes.get(lane, (0, 0, 0))[0]), tail, synced
        return lanes

    def _is_flushed(self, heads: dict[int, int], durable: bool) -> bool:
        lanes = self._lanes().items()
        return all((synced if durable else tail) >= heads.get(lane, 0) for lane, (_, tail, synced) in lanes)

    def _patience(self) -> Patience:
        return Patience(self._segment, self._ring, self._flusher_lives, self._flusher_lost)

    @property
    def stats(self) -> dict[str, Any]:
        """What this process logged, dropped by reason and waited, how the flusher is, and what all have lost."""
        stats: dict[str, Any] = self._counts()
        stats["flusher"] = "none"
        if self._is_member:
            stats["pending"] = sum(max(head - tail, 0) for head, tail, _ in self._lanes().values())
            stats["lane_records"] = self._segment.lane_slots
            stats["lost"] = self._segment.lost
            stats["segment"] = str(self._segment.path)
            alive = self._flusher_lives()
            stats["flusher"] = ("starting", "running")[self._segment.flusher_state] if alive else "dead"
        return stats

    # ---- the end ----

    def finish(self, status: str = "success") -> bool:
        """End the run, or this process's part in it.

        Everything that an owner of the run and the processes that follow it have logged is drained and sealed
        into Parquet. The run is over when its last owner has finished. What follows this process logs to its
        next run from then on; until there is one, it drops and counts. May be called again.

        Parameters
        ----------
        status : str
            ``success``, ``failed`` or ``cancelled``; the words of other systems
            (``finished``, ``completed``, ``interrupted``, ``killed``) are mapped.

        Returns
        -------
        bool
            Whether all is sealed. False when the flusher made no progress for
            2 s: nothing is lost, ``shmlog recover`` finishes the job. False also if
            records are lost, of which a warning is logged: ``shmlog verify`` tells which.

        Raises
        ------
        ValueError
            If ``status`` is not known. The run goes on.
        """
        final = FINISHED.get(status.lower() if isinstance(status, str) else "")
        if final is None:
            raise ValueError(f"status must be one of {', '.join(sorted(FINISHED))}, not {status!r}")
        return self._end(final)

    def _end(self, status: str, *, is_likely: bool = False) -> bool:
        """Do what `finish` does; ``is_likely``: the end of this process may make another status of it."""
        if self._status != "running":
            return self._is_sealed
        self._status = status
        try:
            if self.is_owner and self._is_member:
                self._is_sealed = False
                self._is_sealed = self._close(status, is_likely)
        finally:
            self._leave()
            registry.forget(self)
            hand_down()
        return self._is_sealed

    def _close(self, status: str, is_likely: bool) -> bool:
        """End an owner's part, and that of its followers. Returns whether all is sealed and nothing is lost."""
        self._dismiss_followers()
        is_awaited = is_likely and self._await_exit(status)
        is_sealed = self._seal(None if is_awaited else status)
        if self._is_maker:
            recovered.tell(self._layout)
        exits.note_end(self._layout, sealed=is_sealed, is_awaited=is_awaited)
        return is_sealed and not self._has_lost()

    def _has_lost(self) -> bool:
        lost = self._segment.lost
        if lost:
            log_warning(
                "run %s has lost %d records, the logs that held them are kept: 'shmlog verify %s' says more",
                self.id,
                lost,
                self._layout.dir,
            )
        return lost > 0

    def _dismiss_followers(self) -> None:
        if self._entry is not None:
            beacon.withdraw(self._entry)
            self._segment.cut_followers(self._entry.token)

    def _await_exit(self, likely: str) -> bool:
        wal = str(self._layout.wal) if exits.ends_with_us() else None
        return self._segment.await_exit(FINISH_CODES[likely], self._is_maker, wal)

    def _seal(self, status: str | None) -> bool:
        """Have all be sealed; None: the status will be known when the process has ended."""
        patience = self._patience()
        code, by_maker = (0, False) if status is None else (FINISH_CODES[status], self._is_maker)
        try:
            self._flush(patience, FLUSH_S, False)  # makes room for the last event, whatever waits in the lane
            if self._is_maker:
                told = {} if status is None else {"status": status}
                with suppress(DroppedError):  # counted; finish itself never raises because of the machinery
                    self.event("experiment_end", {**told, "duration_s": time.monotonic() - self._started_s})
            self._settle()
        finally:  # a Ctrl-C does not make another status of it
            request = self._segment.request_finish(code, by_maker)
        return patience.wait(lambda: self._segment.finish_done >= request, lambda: patience.finishing(request))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "success" if exception is None else exits.status_after(exception)
        if exception is not None and self._status == "running" and not isinstance(exception, _NO_ERRORS):
            self.log_error(exception)
        self.finish(status)

    # ---- hooks of the C base class ----

    def _identity(self) -> bytes:
        """Return who this process is."""
        return _core.owner_record(*self._identity_known.detected(), self._script)

    def _is_open(self, if_unknown: bool = True) -> bool:
        return self.is_owner or follow.is_open(self, if_unknown)

    def _next(self) -> Run | None:
        """Return the run that a follower's calls on this one go to."""
        place = None if self.is_owner or not self._follows else follow.successor(self)
        return registry.join(*place) if place else None

    def _count_late(self, records: int) -> None:
        late.count(self._layout, CLOSED, records)

    def _ring(self) -> None:
        self._bell.ring()

    def _flusher_lives(self) -> bool:
        try:
            return self._segment.flusher_lives
        except OSError:
            return True  # no descriptor is left to look: who waits for it gives up in time

    def _flusher_lost(self) -> bool:
        """Start another flusher; called by whoever notices that there is none."""
        return self._flushers.replace(self._segment, {lane: tail for lane, (_, tail, _) in self._lanes().items()})

    def _spill(self, data: bytes) -> bytes:
        """Keep a text that is too large for the ring in a file of its own."""
        self._layout.refuse_links()
        return f"large/{write_large(self._layout.dir, data)}".encode()

    def _first_drop(self, reason: str) -> None:
        if reason == CLOSED and not late.is_first(self._layout):
            return  # it was told of another handle of the same run
        log_warning(
            "process %d dropped a record of run %s (reason: %s); further drops are only counted, see Run.stats",
            os.getpid(),
            self.id,
            reason,
        )
