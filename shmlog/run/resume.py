"""Begin a run that is pending, or resume one that is over: same folder and id, another segment."""

from __future__ import annotations

import os
import reprlib
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from shmlog.errors import CorruptDataError, RunNotFoundError, RunStateError, ShmlogError, StorageError
from shmlog.folder import liveness, runfile, unbegun
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout, RunLike, folder_of
from shmlog.folder.names import AUTO, is_experiment, is_id
from shmlog.folder.recovered import recover_apart
from shmlog.folder.root import Root, runs_below
from shmlog.folder.status import PENDING, RUNNING, SUCCESS, RunStatus, map_status
from shmlog.records.ledger import Ledger
from shmlog.run.join import make_current
from shmlog.run.options import Options, RunPlace, as_before, redacted
from shmlog.run.run import Run
from shmlog.run.start import close_segment, describe_process, open_segment, start
from shmlog.segment.runlock import locked

_CLOSING_S = 60.0  # how long a flusher may take to close the run, since it merges the parts
_NAP_S = 0.02
_MISSING = object()
_NAMES = ("experiment", "name", "tags")  # in the event of a start


# ---- which run ----


def find(run: RunLike, options: Options, argument: str) -> RunLayout:
    """Return the run that ``argument`` of `init` names: by its id, ``experiment/id``, its folder, or its ``dir``.

    Raises
    ------
    TypeError
        If it is of another type.
    ValueError
        If it belongs to another experiment than ``options`` name, or has another id, or several runs have the id.
    RunNotFoundError
        If there is no such run.
    """
    layout = _look_up(os.fspath(folder_of(run, f"{argument} must be the id of a run, its folder")), options, argument)
    if options.place.experiment not in ("default", layout.experiment):
        raise ValueError(
            f"run {layout.dir} belongs to experiment {layout.experiment!r}, not {options.place.experiment!r}"
        )
    if options.place.id not in (None, layout.run_id):
        raise ValueError(f"run {layout.dir} has the id {layout.run_id!r}, not {options.place.id!r}: leave id out")
    return layout


def run_of_word(word: str, place: RunPlace) -> tuple[RunLayout | None, RunLayout | None]:
    """Return the run to resume, and the one to begin, for ``"latest"`` or ``"auto"``; one of the two at most.

    Neither: it means a new run of the given id.

    Raises
    ------
    ValueError
        If no id is given for ``"auto"``.
    RunNotFoundError
        If the experiment has no run for ``"latest"``.
    """
    if word == AUTO:
        if place.id is None:
            raise ValueError("resume='auto' goes on with the run of a given id: pass id=, too, or resume='latest'")
        layout = RunLayout(place.folder / place.id)
        if not layout.run_yaml.is_file():
            return None, None
        return (None, layout) if _is_pending(_read(layout)) else (layout, None)
    folders = runs_below(place.folder)
    if not folders:
        raise RunNotFoundError(f"no run to resume: experiment {place.experiment!r} in {place.root} has none yet")
    return RunLayout(folders[-1]), None


def _look_up(name: str, options: Options, argument: str) -> RunLayout:
    aim = "resume" if argument == "resume" else "begin"
    try:
        if RunLayout(name).run_yaml.is_file():
            return RunLayout(name)
    except OSError as error:  # the path is too long, or a folder may not be searched
        raise RunNotFoundError(f"no run {reprlib.repr(name)} to {aim}: {error.strerror}") from error
    experiment, slash, run_id = name.rpartition("/")
    try:
        if not is_id(run_id) or (slash and not is_experiment(experiment)):
            raise RunNotFoundError(f"no run can have the name {name!r}")
        layout = Root(options.place.root).with_id(name, prefer=options.place.experiment)
        if layout is None:
            raise RunNotFoundError(f"no run {name!r} in {options.place.root}")
    except (RunNotFoundError, StorageError) as error:  # StorageError: the name is a link
        raise RunNotFoundError(
            f"no run {name!r} to {aim}: neither a run folder, nor the id of a run in {options.place.root}"
        ) from error
    return RunLayout(options.place.root / layout.dir.parent.name / layout.run_id)


# ---- is it over ----


def _wait_until_over(layout: RunLayout) -> None:
    """Wait until the run is closed; recover it if it has crashed.

    Raises
    ------
    RunStateError
        If the run is, or may be, running, or its flusher does not end.
    """
    deadline = time.monotonic() + _CLOSING_S
    has_recovered = False
    while not _is_over(layout):
        description = _read(layout)
        if _is_pending(description):
            raise RunStateError(f"run {layout.dir} is pending, no process has begun it yet: init(run=…) begins it")
        is_complete = description.complete is True
        live = False if is_complete else liveness.members_live(description)
        if liveness.is_closing(description) or (live is False and liveness.flusher_lives(description)):
            if time.monotonic() > deadline:
                raise RunStateError(f"run {layout.dir}: its flusher is still closing it; try again later")
            time.sleep(_NAP_S)
        elif live is False and not has_recovered:
            has_recovered = True
            problem = recover_apart(layout)
            if problem is not None:
                raise RunStateError(f"run {layout.dir} can't be resumed: {problem}")
        else:
            raise RunStateError(_refusal(layout, description, live))


def _is_over(layout: RunLayout) -> bool:
    return _read(layout).complete is True and not layout.wal.is_dir()


def _refusal(layout: RunLayout, description: Description, live: bool | None) -> str:
    if live:
        return (
            f"run {layout.dir} is running: processes are attached to it; join them with shmlog.attach(run_dir), "
            "or wait for their end and resume it then"
        )
    if live is None:
        return (
            f"run {layout.dir} was made on host {description.host!r}, and it is not known here whether its processes "
            "live: resume it there, or run 'shmlog recover --force' if you know that they are dead"
        )
    return f"run {layout.dir} can't be recovered, so that it can't be resumed: 'shmlog recover' says why"


def _read(layout: RunLayout) -> Description:
    """Return run.yaml; raises CorruptDataError if it is damaged, since the next attempt relies on it."""
    description, fault = Description.read_or_guess(layout)
    if fault is None and (of_attempts := description.fault_of_attempts()):
        fault = f"{layout.run_yaml}: {of_attempts}"
    if fault:
        raise CorruptDataError(
            f"{fault}; correct it and delete its line crc32_above, or, if it can't be read at all, have "
            "shmlog.Store(root).rebuild(run) write it anew"
        )
    return description


# ---- the first attempt ----


def _is_pending(description: Description) -> bool:
    return description.status == PENDING and description.segment is None


def begin(options: Options, layout: RunLayout, turn: int) -> Run:
    """Begin a pending run, such as `Store.create_run` makes: this process is its first one.

    Raises
    ------
    RunStateError
        If it is not pending, or another process begins it.
    CorruptDataError, RunNotFoundError, StorageError
        As `reopen` does.
    """
    with _told_errors(layout, "begun"), locked(layout):
        options = redacted(options)
        description = _read(layout)
        if not _is_pending(description):
            raise RunStateError(
                f"run {layout.dir} is {description.status}, not pending: init(resume=…) goes on with a run that is over"
            )
        config = {**_read_config(layout), **options.config}
        unbegun.remove_old_claim(layout)
        _claim(layout)
        try:
            run, placed = open_segment(layout, options)
            try:
                process = describe_process(options, placed, turn)
                runfile.write(layout.config_yaml, config)
                begun = description.begun(options.described(), process)
                begun.write(layout)
            except BaseException:
                close_segment(placed)
                raise
        except BaseException:
            _give_up(layout)
            raise
        return _go(run, begun, {}, config)


def _go(run: Run, description: Description, data: dict[str, Any], config: dict[str, Any]) -> Run:
    """Let a run that run.yaml describes start; if that fails, its status reads crashed."""
    try:
        start(run, {**{name: getattr(description, name) for name in _NAMES}, **data}, config)
    except BaseException:
        run._leave()
        raise
    return make_current(run)


# ---- the next attempt ----


def next_attempt(options: Options, layout: RunLayout, turn: int) -> Run | None:
    """Make the next attempt of a run whose launcher has restarted its ranks; None if the run has succeeded.

    Raises
    ------
    ShmlogError
        As `reopen` does.
    """
    _wait_until_over(layout)
    return None if _read(layout).status == SUCCESS else reopen(options, layout, turn)


def reopen(options: Options, layout: RunLayout, turn: int) -> Run:
    """Make the next attempt of a run, after it is over.

    Raises
    ------
    RunStateError
        If the run is, or may be, running.
    CorruptDataError
        If its run.yaml is damaged.
    RunNotFoundError
        If it was deleted meanwhile.
    StorageError
        If its folder can't be written to.
    """
    with _told_errors(layout, "resumed"):
        _wait_until_over(layout)
        with locked(layout):
            return _reopen(options, layout, turn)


@contextmanager
def _told_errors(layout: RunLayout, done: str) -> Iterator[None]:
    """Turn an OSError into an error of ours that names the run, which can't be ``done``."""
    try:
        yield
    except ShmlogError:
        raise
    except OSError as error:
        if not layout.dir.is_dir():
            raise RunNotFoundError(f"run {layout.dir} can't be {done}: it is gone") from error
        raise StorageError(
            f"run {layout.dir} can't be {done}: {error.filename or layout.dir}: {error.strerror}; "
            f"its folder needs room, and user {os.geteuid()} needs the permission to write there"
        ) from error


def _reopen(options: Options, layout: RunLayout, turn: int) -> Run:
    description = _read(layout)
    options = as_before(options, description)
    if description.complete is not True:
        raise RunStateError(f"run {layout.dir} is running: another process has just resumed it")
    RunStatus(map_status(description.status) or RUNNING).advance(RUNNING)
    _claim(layout)
    try:
        ledger = Ledger.reopened(layout, description)
        ledger.commit(ledger.next_log, {})
        run, placed = open_segment(layout, options, first_lane=ledger.lanes, unlaned=ledger.unlaned)
        try:
            config = _read_config(layout)
            changed = {name: value for name, value in options.config.items() if config.get(name, _MISSING) != value}
            process = describe_process(options, placed, turn)
            attempt = description.next_attempt(options.described(), process, first_lane=ledger.lanes, config=changed)
            attempt.write(layout)
        except BaseException:
            close_segment(placed)
            raise
    except BaseException:
        _give_up(layout)
        raise
    # From here on run.yaml has the next attempt; if that does not start, its status reads crashed.
    try:
        layout.manifest.unlink(missing_ok=True)  # it lists the files of the attempts before
        if changed:
            runfile.write(layout.config_yaml, {**config, **changed})
    except BaseException:
        run._leave()
        raise
    return _go(run, attempt, {"attempt": attempt.attempt}, options.config)


def _claim(layout: RunLayout) -> None:
    """Make the folder of the logs, which a closed run lacks: only one process, on whatever host, can make it."""
    layout.refuse_links()
    try:
        layout.wal.mkdir()
    except FileExistsError as error:
        raise RunStateError(f"run {layout.dir} is being resumed or recovered by another process") from error
    layout.make_folders()


def _give_up(layout: RunLayout) -> None:
    with suppress(OSError):
        for path in (layout.sealed_json, layout.flusher_log):
            path.unlink(missing_ok=True)
        layout.wal.rmdir()


def _read_config(layout: RunLayout) -> dict[str, Any]:
    """Return the parameters of the run so far."""
    try:
        return runfile.read(layout.config_yaml)
    except FileNotFoundError:
        return {}
