"""The structured log of a run: what other loggers have a method for, levels, and the console."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shmlog import _core
from shmlog.folder.layout import RunLayout
from shmlog.folder.logsettings import LogSettings, read_settings


class StructuredLog(_core.Producer):
    """What of a `Run` is the structured log, on top of its ``event``."""

    event: Callable[..., None]
    finish: Callable[..., bool]

    def __init__(self, layout: RunLayout, log_settings: LogSettings | None) -> None:
        self._layout = layout
        self._log_settings = log_settings

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log metrics as `Run.log` does, and print them if the run has a console.

        They become metric records and, with sink ``"jsonl"``, a ``metrics`` event.

        Raises
        ------
        TypeError, ValueError, OverflowError
            As `Run.log` does. Nothing was logged.
        """
        self.log(metrics, step=step)
        self._tell("metrics", {"step": step, "metrics": metrics})

    def log_checkpoint(
        self, path: str | os.PathLike[str], *, step: int | None = None, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Log that a checkpoint was saved, by whatever saves it; `CheckpointManager` logs its own.

        Parameters
        ----------
        path : path
            Where it is. Told relative to the run folder if it is in there.
        step : int, optional
            The step after which it was taken.
        metrics : mapping, optional
            How good it is.
        """
        place = Path(os.path.abspath(os.fsdecode(path)))
        folder = self._layout.dir
        told = str(place.relative_to(folder)) if place.is_relative_to(folder) else os.fsdecode(path)
        self.event("checkpoint", {"path": told, "step": step, "metrics": dict(metrics or {})})

    def finalize(self, final_status: str = "completed") -> bool:
        """End the run: `Run.finish` by the name that other structured loggers have for it."""
        return self.finish(final_status)

    def keeps(self, level: int) -> bool:
        """Whether messages of that level, a number as in `logging`, are logged; see ``init(level=…)``."""
        return self._settings.keeps(level)

    def _tell(self, event_type: str, data: Mapping[str, Any]) -> None:
        """Print an event for people, if the run has a console."""
        settings = self._settings
        if settings.console and not self._disabled:
            from shmlog.run import console  # rarely needed

            console.tell(event_type, data, settings)

    @property
    def _settings(self) -> LogSettings:
        if self._log_settings is None:  # made by another process: run.yaml tells, once in a process
            self._log_settings = read_settings(self._layout)
        return self._log_settings
