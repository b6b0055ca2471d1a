"""The arguments of `init`, checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shmlog.base import variables
from shmlog.base.plain import fields_of
from shmlog.folder.description import Description
from shmlog.folder.logsettings import LogSettings, check_settings, settings_of
from shmlog.folder.names import check_experiment, check_own_id, folder_name
from shmlog.run.redact import redact_config
from shmlog.segment.clock import clock_number
from shmlog.segment.place import choose_size
from shmlog.segment.shm import DropPolicy

SINKS = ("parquet", "jsonl")
DEFAULT_SINKS = ("parquet",)


class RunPlace(NamedTuple):
    """The place of a run: what `init` is told of it, checked."""

    root: Path
    experiment: str
    id: str | None

    @property
    def folder(self) -> Path:
        """The experiment's folder."""
        return self.root / folder_name(self.experiment)


class Options(NamedTuple):  # not a dataclass: importing `dataclasses` takes longer than all other imports of `init`
    """The checked arguments of `init`, made by keyword."""

    place: RunPlace
    name: str | None
    config: dict[str, Any]
    tags: list[str]
    group: str | None
    notes: str | None
    parent: str | None
    sinks: tuple[str, ...]
    lane_records: int | None
    lanes: int | None
    drop_policy: DropPolicy
    clock: str
    log_settings: LogSettings
    log_given: dict[str, Any]  # the log settings that the caller gave
    git_diff: bool | None
    quiet: bool | None

    def described(self) -> Description:
        """Return the options that run.yaml has for every run."""
        return Description(
            name=self.name, sinks=list(self.sinks), tags=self.tags, group=self.group, notes=self.notes,
            parent=self.parent,
        )  # fmt: skip


def check(
    place: RunPlace, *, name: str | None, config: Any,
    tags: Iterable[str] | None, group: str | None, notes: str | None, parent: str | None, sinks: Iterable[str],
    lane_records: int | None, lanes: int | None, on_full: str, max_wait: float, clock: str, strict: bool,
    level: str | int | None, console: bool | None, rotate_events: int | str | None, git_diff: bool | None,
    redact: str | None, quiet: bool | None, is_new: bool,
) -> Options:  # fmt: skip
    """Return the checked arguments or, of a new run, variables in their place; raises TypeError or ValueError."""
    default = _or_variable if is_new else _as_given
    if on_full not in ("wait", "drop"):
        raise ValueError(f"on_full must be 'wait' or 'drop', not {on_full!r}")
    if not isinstance(max_wait, int | float) or not 0 <= max_wait <= 3600:
        raise ValueError(f"max_wait must be 0 to 3600 seconds, not {max_wait!r}")
    for argument, text in (("name", name), ("group", group), ("notes", notes), ("parent", parent)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{argument} must be a str, not {type(text).__name__}")
    if git_diff is not None and not isinstance(git_diff, bool):
        raise TypeError(f"git_diff must be True or False, not {git_diff!r}")
    if quiet is not None and not isinstance(quiet, bool):
        raise TypeError(f"quiet must be True or False, not {quiet!r}")
    choose_size(0, lanes, lane_records)
    clock_number(clock)
    settings = check_settings(level, console, rotate_events, redact)
    return Options(
        place=place, name=default(name, variables.NAME),
        config=(variables.config() if is_new else {}) | fields_of(config, "config"),
        tags=_names("tags", tags if tags is not None else (is_new and variables.tags()) or ()),
        group=default(group, variables.GROUP), notes=notes, parent=parent, sinks=_sinks(sinks),
        lane_records=lane_records, lanes=lanes, clock=clock,
        drop_policy=DropPolicy(on_full == "wait", float(max_wait), bool(strict)), log_settings=LogSettings(**settings),
        log_given=settings, git_diff=git_diff, quiet=quiet,
    )  # fmt: skip


def check_place(
    root: str | os.PathLike[str] | None, experiment: str | None, id: str | None, *, is_new: bool
) -> RunPlace:
    """Return the checked place of a run or, of a new run, variables in its place; raises TypeError or ValueError."""
    return RunPlace(_folder(variables.root_or_default(root)), _experiment(experiment, is_new), check_own_id(id))


def _experiment(given: str | None, is_new: bool) -> str:
    if given is not None:
        return check_experiment(given)
    name = variables.value_of(variables.EXPERIMENT) if is_new else None
    return variables.DEFAULT_EXPERIMENT if name is None else check_experiment(name, f"${variables.EXPERIMENT}")


def _or_variable(given: str | None, variable: str) -> str | None:
    return variables.value_of(variable) if given is None else given


def _as_given(given: str | None, variable: str) -> str | None:
    return given


def _folder(root: str | os.PathLike[str]) -> Path:
    path = os.path.abspath(root)
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"root {path!a}: its name is not UTF-8, which shared memory requires; rename the folder"
        ) from None
    return Path(path)


def as_before(options: Options, description: Description) -> Options:
    """Return the options of a run's next attempt: settings that were not given are those in run.yaml."""
    log_settings = settings_of(description.structured_log)._replace(**options.log_given)
    git_diff = description.git_diff is True if options.git_diff is None else options.git_diff
    return redacted(options._replace(log_settings=log_settings, git_diff=git_diff))


def redacted(options: Options) -> Options:
    """Return the options of an attempt as they are written, without the values of secret parameters."""
    return options._replace(config=redact_config(options.config, options.log_settings.redact))


def _names(argument: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str):
        raise TypeError(f"{argument} must be a list of str, not one str; write [{values!r}]")
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise TypeError(f"{argument} must be a list of str, not {type(values).__name__}")
    names = list(values)
    if not all(isinstance(value, str) for value in names):
        raise TypeError(f"{argument} must be a list of str, not {names!r}")
    return names


def _sinks(values: Iterable[str]) -> tuple[str, ...]:
    sinks = tuple(dict.fromkeys(_names("sinks", values)))
    if not sinks or not set(sinks) <= set(SINKS):
        raise ValueError(f"sinks must be one or both of {SINKS}, not {sinks!r}")
    return sinks
