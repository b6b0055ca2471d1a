"""AutoCheckpoint: save the state when an exception or a signal ends the training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from shmlog.base.warn import warn_caller
from shmlog.checkpoint.manager import CheckpointManager

# SLURM sends them before it preempts a job, or before the job's time is over.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class AutoCheckpoint:
    """Saves a checkpoint when an exception leaves its block, or a signal comes.

    Exceptions, KeyboardInterrupt among them, go on as they are. A signal does after
    the save what it would do without us: the earlier handler is called, or, if there
    is none, the signal ends the process. A save that fails is reported by a warning
    and, for an exception, by a note on it.

    The checkpoint has the metadata ``interrupted`` (True), ``error``, ``error_type``
    and, for a signal, ``signal``. No other checkpoint is removed for it.

    Parameters
    ----------
    manager : CheckpointManager
        Where to save.
    get_state : callable
        Returns the state. It may be called between any two lines of the block: see `hold`.
    get_step : callable, optional
        Returns the step. Without it the step is not known, and ``info.step`` is None.
    signals : iterable of int
        Signals to save at. They can be handled only where the block runs in the
        main thread.

    Raises
    ------
    TypeError
        If ``get_state`` or ``get_step`` can't be called.

    Examples
    --------
    ::

        with AutoCheckpoint(manager, lambda: {"w": w}, lambda: step) as auto:
            for step in range(1000):
                with auto.hold():  # a signal waits until the update is whole
                    w = update(w)
    """

    def __init__(
        self,
        manager: CheckpointManager,
        get_state: Callable[[], Any],
        get_step: Callable[[], int] | None = None,
        *,
        signals: Iterable[int] = SIGNALS,
    ) -> None:
        if not callable(get_state) or not (get_step is None or callable(get_step)):
            wrong = ("get_step", get_step) if callable(get_state) else ("get_state", get_state)
            raise TypeError(
                f"AutoCheckpoint: {wrong[0]} must be a function that returns it, such as a lambda, "
                f"not {type(wrong[1]).__name__}"
            )
        self._manager = manager
        self._get_state = get_state
        self._get_step = get_step
        self._signals = tuple(signals)
        self._previous: dict[int, Any] = {}
        self._held = 0
        self._waiting: list[tuple[int, FrameType | None]] = []
        self._handling = False
        self._saved_for: BaseException | None = None

    def __enter__(self) -> Self:
        if self._signals and threading.current_thread() is not threading.main_thread():
            warn_caller("AutoCheckpoint: signals can be handled in the main thread only")
            return self
        for number in self._signals:
            if signal.getsignal(number) is not None:  # a handler of C code could not be restored
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exception: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if exception is not None and exception is not self._saved_for:
                self._save_for(exception)
        finally:
            self._restore_handlers()
            for number, _ in self._waiting:  # they came while the block was being left
                signal.raise_signal(number)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Let signals wait while the state is being changed."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self._handle_waiting()

    # ---- exceptions ----

    def _save_for(self, exception: BaseException) -> None:
        failure = self._save({"error": str(exception), "error_type": type(exception).__name__})
        if failure is not None:
            exception.add_note(f"shmlog: no checkpoint could be saved for it: {failure}")

    def _save(self, metadata: dict[str, Any]) -> str | None:
        """Save the state; return why that failed, or None."""
        try:
            step = None if self._get_step is None else self._get_step()
            self._manager._save_only(self._get_state(), step, metadata={**metadata, "interrupted": True})
        except Exception as error:  # it must not hide the exception or the signal
            failure = f"{type(error).__name__}: {error}"
            warn_caller(f"AutoCheckpoint: nothing saved: {failure}")
            return failure
        return None

    # ---- signals ----

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._waiting.append((number, frame))
        self._handle_waiting()

    def _handle_waiting(self) -> None:
        while self._waiting and not self._held and not self._handling:
            number, frame = self._waiting.pop(0)
            self._handling = True
            try:
                name = signal.Signals(number).name
                self._save({"error": f"signal {name}", "error_type": "signal", "signal": name})
            finally:
                self._handling = False
            self._go_on(number, frame)

    def _go_on(self, number: int, frame: FrameType | None) -> None:
        """Let the signal do what it would have done without us."""
        previous = self._previous.get(number, signal.SIG_DFL)
        if previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif previous != signal.SIG_IGN:
            try:
                previous(number, frame)
            except BaseException as error:
                self._saved_for = error
                raise

    def _restore_handlers(self) -> None:
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._on_signal:  # else the block has installed its own
                signal.signal(number, previous)
        self._previous.clear()
