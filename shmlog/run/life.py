"""Wait for the flusher, and end a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from shmlog import _core
from shmlog.base.times import utc_us
from shmlog.errors import DroppedError, log_warning
from shmlog.folder import recovered
from shmlog.folder.layout import RunLayout, fsync_run
from shmlog.folder.status import FINISH_CODES, FINISHED
from shmlog.run import ending
from shmlog.run.patience import Flushers, Patience
from shmlog.segment import beacon

FLUSH_S = 10.0
_SHARED = 1  # of a lock: as owners hold the member lock
_NO_ERRORS = (SystemExit, GeneratorExit, KeyboardInterrupt)


class Life:
    """The methods of a `Run` that wait for the flusher, or end the run."""

    experiment: Any
    id: Any
    is_owner: Any
    event: Callable[..., None]
    info: Callable[[str], None]
    log_error: Callable[..., None]
    _entry: beacon.BeaconEntry | None
    _flushers: Flushers
    _is_maker: bool
    _layout: RunLayout
    _started_s: float
    # of the C base class
    _segment: _core.Segment
    _disabled: bool
    _is_member: bool
    _counts: Callable[[], dict[str, Any]]
    _leave: Callable[[], None]
    _positions: Callable[[], list[tuple[int, int, int, int]]]
    _request_sync: Callable[[], None]
    _settle: Callable[[], None]
    # its hooks
    _flusher_lives: Callable[[], bool]
    _flusher_lost: Callable[[], bool]
    _flusher_lost_at_end: Callable[[], bool]
    _forget: Callable[[], None]  # after its end
    _say_farewell: Callable[[], None]
    _ring: Callable[[], None]

    def __init__(self) -> None:
        self._status = "running"
        self._is_sealed = True
        self._may_be_last = False
        self._is_awaited = False  # whether the exit of the process decides the status
        self._reason: str | None = None
        self._is_quiet: bool | None = None  # None: as a variable says
        self._duration_s = 0.0
        self._names_are_synced = False

    def flush(self, timeout: float = FLUSH_S, *, durable: bool = False) -> bool:
        """Wait until all records that this process has logged are in the write-ahead log.

        Parameters
        ----------
        timeout : float
            Most seconds to wait. Gives up earlier when the flusher makes no
            progress for 2 s.
        durable : bool
            Wait until the log is fsynced, too.

        Returns
        -------
        bool
            Whether they are. False means no loss: the records wait in shared memory, or the run has ended for this
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
        """Make the names of the run's files durable, once in a process."""
        if not self._names_are_synced:
            try:
                fsync_run(self._layout)
            except OSError:
                return False
            self._names_are_synced = True
        return True

    def _lanes(self) -> dict[int, tuple[int, int, int]]:
        """Return head, tail and synced of each lane that this process has, or had in a thread that has ended."""
        lanes: dict[int, tuple[int, int, int]] = {}
        for lane, head, tail, synced in self._positions():
            lanes[lane] = max(head, lanes.get(lane, (0, 0, 0))[0]), tail, synced
        return lanes

    def _is_flushed(self, heads: dict[int, int], durable: bool) -> bool:
        lanes = self._lanes().items()
        return all((synced if durable else tail) >= heads.get(lane, 0) for lane, (_, tail, synced) in lanes)

    def _patience(self, replace: Callable[[], bool] | None = None) -> Patience:
        return Patience(self._segment, self._ring, self._flusher_lives, replace or self._flusher_lost)

    @property
    def stats(self) -> dict[str, Any]:
        """Records logged, dropped and waited for by this process, the flusher's state, and records lost by all."""
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

    def finish(self, status: str = "success", reason: str | None = None) -> bool:
        """End the run, or this process's part in it.

        All records of an owner of the run and of the processes that follow it are drained and sealed into
        Parquet. The run is over when its last owner has finished: its folder is closed then, and nothing more is
        written into it. From then on, followers of this process log to its next run; until there is one, they drop
        and count. May be called again.

        Parameters
        ----------
        status : str
            ``success``, ``failed`` or ``cancelled``; the words of other systems
            (``finished``, ``completed``, ``interrupted``, ``killed``) are mapped.
        reason : str, optional
            Why, for people: in the event ``experiment_end``, and in the last line of run.log.

        Returns
        -------
        bool
            Whether all records are sealed. False if the flusher made no progress for
            2 s: nothing is lost, ``shmlog recover`` seals the rest. False also if
            records are lost: a warning is logged, and ``shmlog verify`` lists them.
            If all are sealed, but closing the folder then makes no progress for 2 s,
            it is True, and a warning says that the flusher still closes the folder.

        Raises
        ------
        TypeError, ValueError
            If ``status`` is not known, or ``reason`` is not a text. The run goes on.
        """
        final = FINISHED.get(status.lower() if isinstance(status, str) else "")
        if final is None:
            raise ValueError(f"status must be one of {', '.join(sorted(FINISHED))}, not {status!r}")
        if reason is not None and not isinstance(reason, str):
            raise TypeError(f"reason must be a str, not {type(reason).__name__}")
        self._reason = reason
        return self._end(final)

    def _end(self, status: str, *, is_likely: bool = False) -> bool:
        """Do what `finish` does; ``is_likely``: the end of this process may still change the status."""
        if self._status != "running":
            return self._is_sealed
        self._status = status
        self._duration_s = time.monotonic() - self._started_s
        is_ours = self.is_owner and self._is_member
        try:
            if is_ours:
                self._segment.note_end(utc_us())
                self._is_sealed = False
                self._is_sealed = self._close(status, is_likely)
        finally:
            self._leave()
            self._forget()
        if self._may_be_last:
            self._await_closing()
        if is_ours and self._is_maker:
            self._say_farewell()
        return self._is_sealed

    def _close(self, status: str, is_likely: bool) -> bool:
        """End the part of an owner and its followers; return whether all records are sealed and none is lost."""
        self._dismiss_followers()
        self._is_awaited = is_likely and self._await_exit(status)
        is_sealed = False
        try:
            is_sealed = self._seal(None if self._is_awaited else status)
        finally:  # also after a Ctrl-C
            if not is_sealed:
                ending.note_end(self._layout)
        if not is_sealed and not self._flushers.has_warned:
            self._warn_unsealed()
        if self._is_maker:
            recovered.tell(self._layout)
        self._may_be_last = is_sealed and not self._is_awaited
        return is_sealed and not self._has_lost()

    def _await_closing(self) -> None:
        """Wait until the flusher has closed the run and leaves its folder alone, unless it has other owners."""
        self._may_be_last = False
        patience, is_closed = self._patience(self._flusher_lost_at_end), False
        try:
            is_closed = patience.wait(self._is_closed, patience.anything)
        finally:  # also after a Ctrl-C
            if not is_closed:
                ending.note_end(self._layout)
        if not is_closed and not self._flushers.has_warned:
            log_warning(
                "all records of run %s are sealed, but its flusher, which makes no progress, still has to close its "
                "folder: don't move or remove %s until 'shmlog show' no longer says unrecovered",
                self.id,
                self._layout.dir,
            )

    def _is_closed(self) -> bool:
        """Whether the run was closed, or goes on for other owners. Its logs go last, unless others have files there."""
        try:
            has_owners = self._segment.probe(_core.LOCK_MEMBER) == _SHARED
        except OSError:
            has_owners = False  # no descriptor is left for the check
        if has_owners or not self._layout.wal.is_dir():
            return True
        return not self._layout.sealed_json.exists() and not self._flusher_lives()

    def _warn_unsealed(self) -> None:
        log_warning(
            "run %s is not sealed, since its flusher (%s) makes no progress, see %s; 'shmlog recover %s' seals it",
            self.id,
            self.stats["flusher"],
            self._layout.flusher_log,
            self._layout.dir,
        )

    def _has_lost(self) -> bool:
        lost = self._segment.lost
        if lost:
            log_warning(
                "run %s has lost %d records; the logs that held them are kept: 'shmlog verify %s' says more",
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
        wal = str(self._layout.wal) if ending.ends_with_us() else None
        return self._segment.await_exit(FINISH_CODES[likely], self._is_maker, wal)

    def _seal(self, status: str | None) -> bool:
        """Let all records be sealed; ``status`` None: it will be known when the process has ended."""
        patience = self._patience()
        code, by_maker = (0, False) if status is None else (FINISH_CODES[status], self._is_maker)
        try:
            self._flush(patience, FLUSH_S, False)  # makes room for the last event in a full lane
            with suppress(DroppedError):  # counted; `finish` never raises because of the machinery
                self._say_end(status)
            self._settle()
        finally:  # a Ctrl-C does not change the status
            request = self._segment.request_finish(code, by_maker)
        return patience.wait(lambda: self._segment.finish_done >= request, lambda: patience.finishing(request))

    def _say_end(self, status: str | None) -> None:
        reason = {} if self._reason is None else {"reason": self._reason}
        if self._is_maker:
            data = {} if status is None else {"status": status}
            end = {"experiment": self.experiment, "duration_s": self._duration_s}
            self.event("experiment_end", {**data, **reason, **end})
        elif self._reason is not None:
            how = "ended" if status is None else f"finished as {status}"
            self.info(f"{how}: {self._reason}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        status = "success" if exception is None else ending.status_after(exception)
        if exception is not None and self._status == "running" and not isinstance(exception, _NO_ERRORS):
            self.log_error(exception)
        self.finish(status)
