"""The structured log of a run: events, messages with their levels, and the console."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from shmlog.base.plain import dumps, fields_of, plain
from shmlog.folder.layout import RunLayout
from shmlog.folder.logsettings import LEVELS, LogSettings, read_settings
from shmlog.run.redact import redact_config


class Messages:
    """The methods of a `Run` for its structured log."""

    enabled: Any
    log: Callable[..., None]
    finish: Callable[..., bool]
    _layout: RunLayout
    _log_settings: LogSettings | None
    _parameters: dict[str, Any]
    _put_event: Callable[[str, bytes], bool]

    def event(self, event_type: str, data: Mapping[str, Any] | None = None, *, console: bool = True) -> None:
        """Log a structured event into events.jsonl.

        Parameters
        ----------
        event_type : str
            1 to 1024 bytes of UTF-8, such as ``"evaluation"``.
        data : mapping, optional
            Any values that JSON can hold; arrays, paths, dates and the like are
            converted, NaN and infinities become strings.
        console : bool
            Whether a run with a console prints the event.

        Raises
        ------
        TypeError, ValueError
            If ``event_type`` or ``data`` is not usable. Nothing was logged.
        """
        if not isinstance(event_type, str):
            raise TypeError(f"an event type must be a str, not {type(event_type).__name__}")
        if self.enabled:
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

    def log_config(self, config: Any) -> None:
        """Log parameters: a ``config`` event, merged into config.yaml, without what ``init(redact=…)`` names.

        Parameters
        ----------
        config : mapping, argparse.Namespace or dataclass
            Anything else raises TypeError; nothing is logged.
        """
        parameters = redact_config(fields_of(config, "config"), self._settings.redact)
        self.event("config", parameters)
        self._parameters |= parameters

    def log_progress(self, current: float, total: float, metrics: Mapping[str, Any] | None = None) -> None:
        """Log the progress of the work, ``current`` of ``total``, with some metrics.

        Raises
        ------
        TypeError
            If one of the two is not a number, or an array or tensor of one. Nothing was logged.
        """
        done, whole = (_number(name, value) for name, value in (("current", current), ("total", total)))
        share = 100 * done / whole if whole else 0.0
        data: dict[str, Any] = {"iteration": current, "total": total, "progress_pct": share}
        if metrics:
            data["metrics"] = metrics
        self.event("progress", data)

    def log_result(self, result: Mapping[str, Any]) -> None:
        """Log the result of the work."""
        self.event("result", result)

    def log_error(self, error: BaseException | str, context: Mapping[str, Any] | None = None) -> None:
        """Log an exception with its traceback, or a text about what has failed.

        Raises
        ------
        TypeError
            If ``error`` is neither. Nothing was logged.
        """
        if isinstance(error, str):
            data: dict[str, Any] = {"error_type": None, "error_message": error, "traceback": None}
        elif isinstance(error, BaseException):
            kind, message = type(error).__name__, str(error)
            data = {"error_type": kind, "error_message": message, "traceback": _traceback_of(error)}
        else:
            raise TypeError(f"log_error() takes an exception or a text, not {type(error).__name__}")
        if context:
            data["context"] = plain(context)
        self.event("error", data)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log metrics as `Run.log` does, and a message that says them: on the console, in run.log and in events.jsonl.

        The message is of level info; it has ``step`` and ``metrics`` beside its text.

        Raises
        ------
        TypeError, ValueError, OverflowError
            As `Run.log` does. Nothing was logged.
        """
        self.log(metrics, step=step)
        if self.keeps(LEVELS["info"]):
            from shmlog.records import words

            values = plain(dict(_flat(metrics)))
            message = words.call_text(step, values)
            self.event("log", {"level": "info", "message": message, "step": step, "metrics": values})

    def log_checkpoint(
        self, path: str | os.PathLike[str], *, step: int | None = None, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Log that a checkpoint was saved by other means; `CheckpointManager` logs its own.

        Parameters
        ----------
        path : path
            Place of the checkpoint; logged relative to the run folder if it lies within.
        step : int, optional
            The step after which it was saved.
        metrics : mapping, optional
            Its quality.
        """
        place = Path(os.path.abspath(os.fsdecode(path)))
        folder = self._layout.dir
        name = str(place.relative_to(folder)) if place.is_relative_to(folder) else os.fsdecode(path)
        self.event("checkpoint", {"path": name, "step": step, "metrics": dict(metrics or {})})

    def finalize(self, final_status: str = "completed") -> bool:
        """End the run: `Run.finish` under the name of other structured loggers."""
        return self.finish(final_status)

    def keeps(self, level: int) -> bool:
        """Whether messages of a level, a number as in `logging`, are logged; see ``init(level=…)``."""
        return self._settings.keeps(level)

    def _tell(self, event_type: str, data: Mapping[str, Any]) -> None:
        """Print an event for people, if the run has a console."""
        settings = self._settings
        if settings.console and self.enabled:
            from shmlog.run import console  # rarely needed

            console.show(event_type, data, settings)

    @property
    def _settings(self) -> LogSettings:
        if self._log_settings is None:  # another process made the run: read run.yaml, once in a process
            self._log_settings = read_settings(self._layout)
        return self._log_settings


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield name and value of each metric as `Run.log` takes them: names of dicts in dicts joined, None left out."""
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif value is not None:
            yield f"{prefix}{name}", value


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, (bool, str, bytes)):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise TypeError(f"log_progress: {name} must be a number, not {type(value).__name__}")


def _traceback_of(error: BaseException) -> str:
    import traceback  # rarely needed, and slow to import

    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
