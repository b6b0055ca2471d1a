"""CheckpointManager: save, find, load and prune the checkpoints of one name."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from shmlog.base.warn import warn_caller
from shmlog.checkpoint.arguments import metric_and_mode, whole_number
from shmlog.checkpoint.background import Writer
from shmlog.checkpoint.encoded import Checkpoint, Encoded, best_of, encode_state
from shmlog.checkpoint.files import CheckpointInfo, file_name
from shmlog.checkpoint.folder import CheckpointFolder, Which
from shmlog.checkpoint.publish import publish, remove_abandoned
from shmlog.checkpoint.saver import is_live_other
from shmlog.errors import CheckpointNotFoundError, RunStateError, StorageError
from shmlog.folder.layout import RunLayout

if TYPE_CHECKING:
    from shmlog.run.run import Run

_STEP_MAX = 2**63 - 1


class CheckpointManager(CheckpointFolder):
    """Saves training states into a folder and finds them again.

    A file is written under a temporary name, fsynced and renamed: a save that is
    killed leaves the older checkpoints as they were. The checkpoints that exist are
    read from the files each time, those of earlier processes included.

    Parameters
    ----------
    folder : path
        Where the files lie; made by the first save.
    name : str
        1 to 64 letters, digits, ``_``, ``-``. Files of other names are not touched.
    keep_last : int
        How many of the newest are kept; 0 keeps all. Processes that save under one name at the same
        time keep so many each.
    keep_best : (str, str), optional
        A metric and ``"min"`` or ``"max"``: the best checkpoint by it is kept, too.
    save_every : int, optional
        Steps from one save to the next, for `should_save`.
    allow_pickle : bool
        Whether `save` pickles values that have no other form, and `load` loads them.
        Loading runs code that the file names: allow it only for files that you trust.
    run : Run, optional
        The run that each save is logged to, as an event ``checkpoint``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not usable.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        name: str = "checkpoint",
        *,
        keep_last: int = 3,
        keep_best: tuple[str, str] | None = None,
        save_every: int | None = None,
        allow_pickle: bool = False,
        run: Run | None = None,
    ) -> None:
        super().__init__(folder, name, allow_pickle=allow_pickle)
        self.keep_last = whole_number("keep_last", keep_last, 0)
        self.keep_best = None if keep_best is None else metric_and_mode(keep_best)
        self.save_every = None if save_every is None else whole_number("save_every", save_every, 1)
        self._run = run
        self._lock = threading.RLock()  # a signal handler may save in the middle of a save
        self._pending: PendingSave | None = None
        self._waits_at_exit = False
        self._since: int | None = None  # the step from which `should_save` counts

    @classmethod
    def for_run(cls, run: Run, name: str = "checkpoint", **options: Any) -> Self:
        """Return a manager of the folder ``checkpoints`` of a run, which logs each save to it.

        Raises
        ------
        RunStateError
            If the run is disabled: it has no folder.
        """
        if not run.enabled:
            raise RunStateError("a disabled run has no folder for checkpoints; pass CheckpointManager a folder")
        return cls(RunLayout(run.dir).checkpoints, name, run=run, **options)

    # ---- saving ----

    def should_save(self, step: int) -> bool:
        """Whether a save is due: at each multiple of ``save_every``, and at the next step if one was jumped over.

        Always false without ``save_every``.
        """
        if self.save_every is None:
            return False
        if self._since is None:
            self._since = step
        return step % self.save_every == 0 or step // self.save_every > self._since // self.save_every

    def save(
        self,
        state: Any,
        step: int | None = None,
        *,
        metrics: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> CheckpointInfo:
        """Save a state, durably, then remove checkpoints that need not be kept.

        Parameters
        ----------
        state : object
            Dicts, lists, tuples, sets, None, bool, int, float, complex, str, bytes,
            paths, dates, times, numpy scalars and arrays, and torch tensors, nested
            as you like. The states of the random number generators are added.
        step : int, optional
            Training step, from 0. Default: one after the highest saved step. A
            checkpoint of the same step is replaced.
        metrics : mapping, optional
            Numbers by name, for ``keep_best`` and for people.
        metadata : mapping, optional
            Plain values for people.

        Returns
        -------
        CheckpointInfo
            With the path of the file.

        Raises
        ------
        TypeError, ValueError
            If a value can't be stored; the message names its key path. Nothing was
            written.
        StorageError
            If the file can't be written, which leaves the older ones untouched.
        """
        with self._lock:
            info = self._save_only(state, self._step(step), metrics=metrics, metadata=metadata)
            self._prune(info)
            return info

    def _save_only(
        self,
        state: Any,
        step: int | None,
        *,
        metrics: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> CheckpointInfo:
        """Save a state and remove no other; ``step`` is None if it is not known."""
        with self._lock:
            self.wait()
            encoded = self._encode(state, step, metrics, metadata)
            sha256 = publish(encoded.info.path, encoded.chunks())
            return self._log(encoded.info, sha256)

    def save_async(
        self,
        state: Any,
        step: int | None = None,
        *,
        metrics: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_busy: str = "wait",
    ) -> PendingSave | None:
        """Copy a state into memory and have another process write it.

        When it returns, the state may be changed. One save at most is in flight, so
        that no more than one copy of the state is in memory. The writing process
        goes on if this one dies; this one waits for it at its exit.

        Parameters
        ----------
        state, step, metrics, metadata
            As for `save`.
        if_busy : str
            If the previous save is still in flight: ``"wait"`` for it, or ``"skip"``
            this one.

        Returns
        -------
        PendingSave or None
            None if it was skipped: nothing is saved.

        Raises
        ------
        TypeError, ValueError
            As `save` does.
        StorageError
            If there is no memory for the copy, or no process can be started.
        """
        if if_busy not in ("wait", "skip"):
            raise ValueError(f"if_busy must be 'wait' or 'skip', not {if_busy!r}")
        with self._lock:
            if if_busy == "skip" and not self.wait(0):
                return None
            self.wait()
            encoded = self._encode(state, self._step(step), metrics, metadata)
            pending = PendingSave(self, encoded.info, Writer(encoded.info.path, encoded.chunks()))
            self._pending = pending
            self._note(encoded.info.step)
            if not self._waits_at_exit:
                self._waits_at_exit = True
                atexit.register(self.wait)
            return pending

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no save is in flight; warn if one has failed and nobody asked for its result.

        Parameters
        ----------
        timeout : float, optional
            Most seconds to wait.

        Returns
        -------
        bool
            Whether none is in flight.
        """
        with self._lock:
            pending = self._pending
            if pending is None or pending._writer.owner_pid != os.getpid():  # else it is the save of a parent
                self._pending = None
                return True
            if not pending._writer.wait(timeout):
                return False
            failure = self._settle(pending)
        if failure is not None:
            warn_caller(f"save_async: {failure}")
        return True

    def _settle(self, pending: PendingSave) -> str | None:
        """Log a save in the background and prune, once; return why it failed, unless an earlier call did."""
        with self._lock:
            if self._pending is not pending:
                return None
            self._pending = None
            sha256, pending._error = pending._writer.answer()
            pending._writer.close()
            if sha256 is None:
                return pending._error
            pending._info = self._log(pending._info, sha256)
            self._prune(pending._info)
            return None

    def _encode(
        self, state: Any, step: int | None, metrics: Mapping[str, Any] | None, metadata: Mapping[str, Any] | None
    ) -> Encoded:
        number = max((info.number for info in self._index.scan()), default=0) + 1
        return encode_state(
            state, self.folder / file_name(self.name, step, number), self.name, step, number, metrics, metadata,
            allow_pickle=self.allow_pickle,
        )  # fmt: skip

    def _step(self, step: int | None) -> int:
        """Return the step of a save, which by default is the one after the highest."""
        if step is None:
            return max((info.step for info in self._index.scan() if info.step is not None), default=-1) + 1
        return whole_number("step", step, 0, _STEP_MAX)

    def _log(self, info: CheckpointInfo, sha256: str) -> CheckpointInfo:
        """Log a save that is done; return its info with the size of the file, 0 if somebody has removed it already."""
        with suppress(FileNotFoundError):
            info = info._replace(bytes=info.path.stat().st_size)
        self._note(info.step)
        if self._run is not None:
            inside = info.path.is_relative_to(self._run.dir)
            self._run.event(
                "checkpoint",
                {
                    "name": info.name,
                    "path": str(info.path.relative_to(self._run.dir) if inside else info.path),
                    "step": info.step,
                    "sha256": sha256,
                    "bytes": info.bytes,
                    "metrics": info.metrics,
                },
            )
        return info

    def _note(self, step: int | None) -> None:
        """Have `should_save` count from a step."""
        if step is not None:
            self._since = step

    def _prune(self, newest: CheckpointInfo) -> None:
        """Remove the checkpoints that need not be kept, and the files that killed saves have left.

        Those of another process that lives stay: each process keeps its own.
        """
        remove_abandoned(newest.path)
        if not self.keep_last:
            return
        infos = [info for info in self._index.scan() if not is_live_other(info.saver)]
        kept = {newest.path, *(info.path for info in infos[-self.keep_last :])}
        best = best_of(*self.keep_best, infos) if self.keep_best else None
        if best is not None:
            kept.add(best.path)
        for info in infos:
            if info.path not in kept:
                info.path.unlink(missing_ok=True)

    # ---- finding and resuming ----

    def best(self) -> CheckpointInfo | None:
        """Return the best checkpoint by ``keep_best``, or None if none has the metric.

        Raises
        ------
        ValueError
            If the manager was made without ``keep_best``.
        """
        if self.keep_best is None:
            raise ValueError("no metric to go by: make the manager with keep_best=(metric, 'min') or (metric, 'max')")
        return best_of(*self.keep_best, self._index.scan())

    def resume_from_checkpoint(self, which: Which | None = None) -> Checkpoint | None:
        """Load a checkpoint and set the random number generators to what they were.

        Parameters
        ----------
        which : int, path or CheckpointInfo, optional
            As for `load`.

        Returns
        -------
        Checkpoint or None
            None if ``which`` is None and there is no checkpoint yet: start afresh.

        Raises
        ------
        CheckpointNotFoundError, CorruptDataError, UnsafeDataError, MissingExtraError
            As `load` does.
        """
        try:
            checkpoint = self.load(which)
        except CheckpointNotFoundError:
            if which is None:
                return None
            raise
        checkpoint.restore_rng()
        self._note(checkpoint.info.step)
        return checkpoint


class PendingSave:
    """A save in the background, made by `CheckpointManager.save_async`."""

    def __init__(self, manager: CheckpointManager, info: CheckpointInfo, writer: Writer) -> None:
        self._manager = manager
        self._info = info
        self._writer = writer
        self._error: str | None = None

    @property
    def done(self) -> bool:
        """Whether the save has ended, well or not."""
        return self._manager._pending is not self or self._writer.done

    def result(self, timeout: float | None = None) -> CheckpointInfo:
        """Wait for the end of the save.

        Parameters
        ----------
        timeout : float, optional
            Most seconds to wait.

        Raises
        ------
        TimeoutError
            If it is still in flight.
        StorageError
            If it has failed. The older checkpoints are untouched.
        """
        if self._manager._pending is self:
            if not self._writer.wait(timeout):
                raise TimeoutError(f"{self._info.path}: still being written after {timeout:g} s")
            self._manager._settle(self)
        if self._error is not None:
            raise StorageError(self._error)
        return self._info
