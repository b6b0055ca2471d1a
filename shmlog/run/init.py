"""Make a run, or resume one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from shmlog.base import variables
from shmlog.base.plain import fields_of
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout, RunLike
from shmlog.folder.names import AUTO, LATEST
from shmlog.run.create import create
from shmlog.run.handed import handed_down
from shmlog.run.identity import lone_local_rank, rank_among_several
from shmlog.run.join import disabled_run
from shmlog.run.mode import is_disabled
from shmlog.run.options import DEFAULT_SINKS, Options, check, check_place
from shmlog.run.run import Run
from shmlog.run.turns import Makers, take_turn


def init(
    experiment: str | None = None,
    *,
    root: str | os.PathLike[str] | None = None,
    id: str | None = None,
    name: str | None = None,
    config: Any = None,
    tags: Iterable[str] | None = None,
    group: str | None = None,
    notes: str | None = None,
    parent: str | None = None,
    mode: str | None = None,
    sinks: Iterable[str] = DEFAULT_SINKS,
    lane_records: int | None = None,
    lanes: int | None = None,
    on_full: str = "wait",
    max_wait: float = 1.0,
    strict: bool = False,
    clock: str = "auto",
    level: str | int | None = None,
    console: bool | None = None,
    rotate_events: int | str | None = None,
    git_diff: bool | None = None,
    redact: str | None = None,
    quiet: bool | None = None,
    resume: RunLike | None = None,
    run: RunLike | None = None,
) -> Run:
    """Start a run and make it the current one.

    A spawned or forkserver child that calls it while importing ``__main__``
    attaches to its parent's run instead, and so do further ranks of one launcher:
    the n-th calls of all ranks share a run. Ranks that ``torchrun --max-restarts``
    restarts make the next attempt of a run that was not finished. A notebook cell
    that is run again finishes, as cancelled, the run that it had left open.

    What the run is, and where: ``experiment``, ``root``, ``id``, ``name``, ``config``, ``tags``, ``group``, ``notes``,
    ``parent``. Whether to log, and to which run: ``mode``, ``resume``, ``run``. How records are kept, and what happens
    without room for them: ``sinks``, ``lane_records``, ``lanes``, ``on_full``, ``max_wait``, ``strict``, ``clock``.
    Messages and events: ``level``, ``console``, ``rotate_events``, ``quiet``. What is kept of code and arguments:
    ``git_diff``, ``redact``.

    Parameters
    ----------
    experiment : str, optional
        Groups the runs: a name without ``/`` of at most some 64 characters, which its folder bears, with ``%XX`` for
        all but ASCII letters, digits, ``_``, ``-`` and ``.``. Default: ``$SHMLOG_EXPERIMENT``, else ``default``.
    root : path, optional
        Folder of all experiments; made if missing. Default: ``$SHMLOG_ROOT``, else ``runs``.
    id : str, optional
        The run's id, which no other run of the experiment has: 1 to 64 letters, digits, ``_``, ``-``. Default: the time
        in UTC and 24 random bits. With ``resume="auto"``, a run of this id goes on.
    name : str, optional
        For people; need not be unique. Default: ``$SHMLOG_NAME``, else the run's id.
    config : mapping, argparse.Namespace or dataclass, optional
        Parameters of the run, kept in config.yaml, beside those of ``$SHMLOG_CONFIG`` that it does not have: a JSON
        object, or ``a=1,b=2``.
    tags, group, notes, parent : optional
        Kept in run.yaml. Default of the first two: ``$SHMLOG_TAGS``, separated by commas, and ``$SHMLOG_GROUP``.
    mode : str, optional
        ``"enabled"``, or ``"disabled"``: every call is a no-op and no file is
        made, here and in all children. Default: ``$SHMLOG_MODE``, else enabled.
    sinks : iterable of str
        The files for metrics: ``"parquet"``, the default, ``"jsonl"`` for lines of events.jsonl, which take far more
        room and time, or both. Events always go to events.jsonl.
    lane_records : int, optional
        Most records (32 bytes each) that wait for the flusher, per process; rounded
        up to a power of two. Default: 65,536, or fewer if shared memory is small.
    lanes : int, optional
        Most processes that log at the same time. Default: 256. Unused lanes cost
        nothing.
    on_full : str
        If a process's lane is full: ``"wait"``, or ``"drop"`` the new record. This and the next
        two arguments apply to every process of the run.
    max_wait : float
        Seconds to wait for room while the flusher makes no progress; then the record is dropped and counted.
    strict : bool
        Raise `DroppedError` when a record is dropped, or `RunStateError` if it is dropped because the run has ended;
        and `TypeError` for a value that is None, which is left out otherwise.
    clock : str
        ``"auto"``, ``"monotonic"`` or ``"tsc"``.
    level : str or int
        ``"debug"``, the default, ``"info"``, ``"warning"`` or ``"error"``, or its number in `logging`: messages
        below it are left out in every process, also those of `LoggingHandler`.
    console : bool
        Print messages, and the events of the ``log_…`` methods, on standard output as ``LEVEL: text``.
    rotate_events : int or str, optional
        Most bytes of a file of structured events, such as ``"64 MB"``: then events.jsonl goes on in
        events.1.jsonl and so on, and run.log in run.1.log. Default, and 0: one file for all.
    git_diff : bool
        Keep the changes of the code since its commit as git.diff: of files that git tracks, up to 10 MB, in the
        repository of the working directory. Default: False.
    redact : str
        Regular expression, searched for, ignoring case, in the names of parameters (of ``config`` at any depth, of
        `Run.log_config`) and of arguments of the command line: ``[redacted]`` is written instead of their values.
        Default: names that end in password, secret, credentials, token, api_key and the like. ``""``: all values are
        written.
    quiet : bool, optional
        True: when the run ends, say nothing on the terminal. Otherwise, where standard error is one, the process that
        made the run says how it has ended and where it lies. Default: whether ``$SHMLOG_QUIET`` is set.
    resume : str, path, StoredRun or the like, optional
        Resume a run that is over, as its next attempt: its id, its folder, or an object that has its
        ``dir``; ``"latest"`` is the newest run of the experiment, ``"auto"`` the run of the given ``id`` if there is
        one, which is begun if it is pending, else a new one. Experiment, folder, id and ``sinks`` stay; ``name``,
        ``tags``, ``group``, ``notes`` and ``parent``, if given, replace those of the run, and ``config`` is merged into
        its parameters. ``level``, ``console``, ``rotate_events``, ``git_diff`` and ``redact``, if not given, are those
        of the previous attempt.
        Variables of the environment replace nothing. A run that has crashed is recovered first.
    run : str, path, RunRecord or the like, optional
        Begin a pending run, which `Store.create_run` has made, instead of a new one: its id, its folder, or an object
        that has its ``dir``. Experiment, folder and id stay; ``name``, ``tags``, ``group``, ``notes`` and ``parent``,
        if given, replace those of the run, and ``config`` is merged into its parameters. Variables of the environment
        replace nothing.

    Returns
    -------
    Run
        Also a context manager, which finishes the run.

    Raises
    ------
    TypeError, ValueError
        If an argument, or a variable in its place, is not usable. Nothing was made.
    RunNotFoundError
        If there is no run to resume, or to begin.
    RunStateError
        If the run to resume is, or may be, running, the one to begin is not pending, or a run has this ``id`` and
        ``resume`` is not given. Nothing was changed.
    CorruptDataError
        If run.yaml of the run to resume is damaged. Nothing was changed.
    StorageError
        If the run folder can't be made or written to. Nothing was made.
    SegmentError
        If there is no room for the shared memory. Nothing was made.
    """
    if is_disabled(mode):
        _finish_earlier_of_cell()
        described = Description(name=name, tags=list(tags or ()), notes=notes)
        experiment = experiment or variables.value_of(variables.EXPERIMENT) or variables.DEFAULT_EXPERIMENT
        return disabled_run(experiment, described, variables.config() | fields_of(config, "config"))
    if resume is not None and run is not None:
        raise ValueError("pass run, to begin a pending run, or resume, to go on with one that is over, not both")
    if isinstance(resume, str) and resume in (AUTO, LATEST):
        from shmlog.run.resume import run_of_word  # rarely needed, and it imports half of the flusher

        resume, run = run_of_word(resume, check_place(root, experiment, id, is_new=True))
    is_new = resume is None and run is None
    options = check(
        check_place(root, experiment, id, is_new=is_new),
        name=name, config=config, tags=tags, group=group, notes=notes, parent=parent,
        sinks=sinks, lane_records=lane_records, lanes=lanes, on_full=on_full, max_wait=max_wait, clock=clock,
        strict=strict, level=level, console=console, rotate_events=rotate_events, git_diff=git_diff, redact=redact,
        quiet=quiet, is_new=is_new,
    )  # fmt: skip
    _finish_earlier_of_cell()
    current = _parents_run() or _meet(options, resume, run)
    if _may_be_notebook():
        from shmlog.run import notebook

        notebook.remember(current)
    return current


def _may_be_notebook() -> bool:
    """Whether IPython is loaded: if not, `notebook` need not be imported."""
    return "IPython" in sys.modules


def _finish_earlier_of_cell() -> None:
    if _may_be_notebook():
        from shmlog.run import notebook

        notebook.finish_earlier()


def _meet(options: Options, resume: RunLike | None, pending: RunLike | None) -> Run:
    again = partial(_next_attempt, options)
    if resume is None and pending is None:
        return _take_turn(options.place.root, options.place.experiment, Makers(partial(create, options), again))
    from shmlog.run.resume import begin, find, reopen  # as above

    if pending is not None:
        layout, make = find(pending, options, "run"), begin
    elif resume is not None:
        layout, make = find(resume, options, "resume"), reopen
    return _take_turn(layout.root, layout.experiment, Makers(partial(make, options, layout), again))


def _take_turn(root: Path, experiment: str, makers: Makers) -> Run:
    """Return the run that another rank of this launch has made in this turn, or make one."""

    def run_of(turn: int) -> Run:
        if rank_among_several() is None and lone_local_rank() is None:
            return makers.make(turn)
        from shmlog.run.rendezvous import meet  # slow to import, and for ranks alone

        return meet(root, experiment, turn, makers)

    return take_turn(root, experiment, run_of)


def _next_attempt(options: Options, layout: RunLayout, turn: int) -> Run | None:
    from shmlog.run.resume import next_attempt  # as above

    return next_attempt(options, layout, turn)


def _parents_run() -> Run | None:
    """Return the parent's run if this child is importing its parent's ``__main__``.

    If the parent's run has ended, or does not exist yet, return a run that logs nothing until the parent starts its
    next one: a second run, which the user did not intend, would be worse.
    """
    process: Any = sys.modules.get("multiprocessing.process")
    if process is None or not getattr(process.current_process(), "_inheriting", False):
        return None
    handed = handed_down()
    if handed is not None and handed.is_disabled:
        return None
    from shmlog.run.current import current, unbound_run  # not needed by a process that only makes runs

    return current() or unbound_run()
