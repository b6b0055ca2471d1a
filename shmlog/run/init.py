"""Make a run: its folder, its segment, its flusher."""

from __future__ import annotations

import datetime
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from shmlog.errors import RunStateError, SegmentError, ShmlogError, StorageError
from shmlog.flusher.process import start_flusher
from shmlog.run import exits, registry, rendezvous
from shmlog.run.attach import attach, join_member, parse_variable, publish, published, variable_for
from shmlog.run.plain import to_plain
from shmlog.run.run import Run
from shmlog.segment import shm
from shmlog.segment.boot import boot_id
from shmlog.storage import runfile
from shmlog.storage.layout import TEMPORARY_SUFFIX, RunLayout, check_id, new_run_id
from shmlog.storage.segmentref import SegmentRef

SINKS = ("parquet", "jsonl")
EVENT_TYPES = ("experiment_start", "config", "progress", "result", "error", "log", "experiment_end")
_TRIES = 16


class Options(NamedTuple):
    """The checked arguments of `init`."""

    experiment: str
    root: Path
    name: str | None
    config: dict[str, Any]
    tags: list[str]
    group: str | None
    notes: str | None
    parent: str | None
    sinks: tuple[str, ...]
    lane_records: int | None
    lanes: int | None
    wait: bool
    max_wait: float
    clock: str
    strict: bool


def init(
    experiment: str = "default",
    *,
    root: str | os.PathLike[str] = "runs",
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    tags: Iterable[str] | None = None,
    group: str | None = None,
    notes: str | None = None,
    parent: str | None = None,
    mode: str | None = None,
    sinks: Iterable[str] = SINKS,
    lane_records: int | None = None,
    lanes: int | None = None,
    on_full: str = "wait",
    max_wait: float = 0.1,
    clock: str = "auto",
    strict: bool = False,
) -> Run:
    """Start a run and make it the current one.

    A spawned or forkserver child that calls it while importing ``__main__``
    attaches to its parent's run instead, and so do further ranks of one launcher.

    Parameters
    ----------
    experiment : str
        Name of the folder that groups the runs: 1 to 64 letters, digits, ``_``, ``-``.
    root : path
        Folder of all experiments; made if it does not exist.
    name : str, optional
        For people; need not be unique. Default: the run's id.
    config : mapping, optional
        Parameters of the run, kept in config.yaml.
    tags, group, notes, parent : optional
        Kept in run.yaml.
    mode : str, optional
        ``"enabled"``, or ``"disabled"``: every call is a no-op and no file is
        made. Default: ``$SHMLOG_MODE``, else enabled.
    sinks : iterable of str
        ``"parquet"``: metrics as Parquet. ``"jsonl"``: metrics as lines of
        events.jsonl too. Events always go to events.jsonl.
    lane_records : int, optional
        Records (32 bytes each) that wait for the flusher, per process; rounded
        up to a power of two. Default: 65,536, less where shared memory is small.
    lanes : int, optional
        Most processes that log at the same time. Default: 256. Costs nothing
        until used.
    on_full : str
        When a process's lane is full: ``"wait"`` or ``"drop"`` the new record.
    max_wait : float
        Seconds to wait for room while the flusher gets nothing done, then drop and count.
    clock : str
        ``"auto"``, ``"monotonic"`` or ``"tsc"``.
    strict : bool
        Raise `DroppedError` when a record is dropped.

    Returns
    -------
    Run
        Also a context manager, which finishes it.

    Raises
    ------
    TypeError, ValueError
        If an argument is not usable. Nothing was made.
    StorageError
        If the run folder can't be made. Nothing was made.
    SegmentError
        If there is no room for the shared memory. Nothing was made.
    """
    if _is_disabled(mode):
        return _disabled_run(experiment)
    options = _check(
        experiment, root, name, config, tags, group, notes, parent, sinks, lane_records, lanes, on_full,
        max_wait, clock, strict,
    )  # fmt: skip
    shared = _parents_run()
    if shared is not None:
        return shared
    return rendezvous.once_per_launcher(options.root, options.experiment, lambda meeting: _create(options, meeting))


# ---- arguments ----


def _is_disabled(mode: str | None) -> bool:
    mode = mode or os.environ.get("SHMLOG_MODE") or "enabled"
    if mode not in ("enabled", "disabled"):
        raise ValueError(f"mode must be 'enabled' or 'disabled', not {mode!r}")
    return mode == "disabled"


def _disabled_run(experiment: str) -> Run:
    run = Run(RunLayout(Path(experiment) / "disabled"), None, owner=False)
    run._disable()
    registry.remember(run)
    return run


def _check(
    experiment: str, root: str | os.PathLike[str], name: str | None, config: Mapping[str, Any] | None,
    tags: Iterable[str] | None, group: str | None, notes: str | None, parent: str | None, sinks: Iterable[str],
    lane_records: int | None, lanes: int | None, on_full: str, max_wait: float, clock: str, strict: bool,
) -> Options:  # fmt: skip
    if on_full not in ("wait", "drop"):
        raise ValueError(f"on_full must be 'wait' or 'drop', not {on_full!r}")
    if not 0 <= max_wait <= 3600:
        raise ValueError(f"max_wait must be 0 to 3600 seconds, not {max_wait!r}")
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(f"config must be a mapping, not {type(config).__name__}")
    for what, text in (("name", name), ("group", group), ("notes", notes), ("parent", parent)):
        if text is not None and not isinstance(text, str):
            raise TypeError(f"{what} must be a str, not {type(text).__name__}")
    return Options(
        check_id(experiment, "experiment"), Path(os.path.abspath(root)), name, to_plain(config or {}),
        _names("tags", tags or ()), group, notes, parent, _sinks(sinks), lane_records, lanes, on_full == "wait",
        float(max_wait), clock, bool(strict),
    )  # fmt: skip


def _names(what: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str):
        raise TypeError(f"{what} must be a list of str, not one str; write [{values!r}]")
    names = list(values)
    if not all(isinstance(value, str) for value in names):
        raise TypeError(f"{what} must be a list of str, not {names!r}")
    return names


def _sinks(values: Iterable[str]) -> tuple[str, ...]:
    sinks = tuple(dict.fromkeys(_names("sinks", values)))
    if not sinks or not set(sinks) <= set(SINKS):
        raise ValueError(f"sinks must be one or both of {SINKS}, not {sinks!r}")
    return sinks


def _parents_run() -> Run | None:
    """Return the parent's run if this is a child that is importing its parent's ``__main__``."""
    process: Any = sys.modules.get("multiprocessing.process")
    if process is None or not getattr(process.current_process(), "_inheriting", False):
        return None
    value = published()
    if not value:
        return None
    try:
        return attach()
    except (RunStateError, SegmentError):
        # It has ended. A second run, made by a child that was not to make one, would
        # be worse than one that drops and counts.
        return Run(*parse_variable(value), owner=False)


# ---- making it ----


def _create(options: Options, meeting: Path | None) -> Run:
    layout = _make_folder(options)
    try:
        with _segment_errors(layout):
            placed = shm.create(
                layout.run_id, layout.dir, lanes=options.lanes, lane_records=options.lane_records,
                clock=options.clock, private=layout.segment,
            )  # fmt: skip
    except BaseException:
        _remove_folder(layout)
        raise
    ref = SegmentRef(placed.name, placed.path)
    try:
        run = Run(layout, ref, owner=True)
        with _segment_errors(layout):
            join_member(run, placed.segment, wait=options.wait, max_wait=options.max_wait, strict=options.strict)
        for event_type in EVENT_TYPES:  # they must find room, however many names the user makes
            run._intern(event_type)
        _take_first_lane(run)
        _write_files(layout, options, placed, meeting)
        _start(run, options)
    except BaseException:
        shm.unlink(ref)
        _remove_folder(layout)
        raise
    publish(variable_for(run.dir, ref))
    registry.remember(run)
    exits.watch()
    return run


@contextmanager
def _segment_errors(layout: RunLayout) -> Iterator[None]:
    """Name the limit that is in the way: of descriptors, of memory, of the size of files."""
    try:
        yield
    except ShmlogError:
        raise
    except OSError as error:
        raise SegmentError(
            f"the shared memory of {layout.dir} can't be made: {error.strerror or error}; "
            "see the limits of this process (ulimit -a)"
        ) from error


def _make_folder(options: Options) -> RunLayout:
    experiment = options.root / options.experiment
    try:
        experiment.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            layout = RunLayout(experiment / new_run_id())
            try:
                layout.dir.mkdir()
            except FileExistsError:
                continue
            layout.make_folders()
            _warn_if_open(layout)
            return layout
    except OSError as error:
        raise StorageError(f"cannot make a run folder in {experiment}: {error.strerror}; pass another root") from error
    raise StorageError(f"no free run id in {experiment} after {_TRIES} random ones")


def _warn_if_open(layout: RunLayout) -> None:
    """Tell of folders in which others may put a file in the place of ours; a sticky one, as /tmp, is none."""
    for folder in (layout.dir, layout.dir.parent, layout.dir.parent.parent):
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            import logging

            logging.getLogger("shmlog").warning(
                "%s may be written to by everybody: the runs in it may be replaced by any user of this host "
                "(mode %o); chmod o-w it",
                folder,
                stat.S_IMODE(mode),
            )
            return


def _remove_folder(layout: RunLayout) -> None:
    """Remove what was made, by its names: perhaps no descriptor is left to list a folder, or to import shutil."""
    files = [layout.run_yaml, layout.config_yaml]
    files += [path.with_name(path.name + TEMPORARY_SUFFIX) for path in files]
    for path in (*files, layout.segment, layout.flusher_log):
        with suppress(OSError):
            path.unlink(missing_ok=True)
    for folder in (layout.metrics, layout.metrics.parent, layout.wal, layout.dir):
        with suppress(OSError):
            folder.rmdir()


def _take_first_lane(run: Run) -> None:
    """Take a lane now, so that a lack of memory is told here and not by drops."""
    try:
        run._allot()
    except OSError as error:
        raise SegmentError(
            f"no room for the first lane in {run._segment.path} ({error.strerror}); enlarge /dev/shm "
            "(docker run --shm-size=256m) or pass a smaller lane_records"
        ) from error


def _write_files(layout: RunLayout, options: Options, placed: shm.Placed, meeting: Path | None) -> None:
    status = os.stat(placed.path)
    described = {
        "schema": 1,
        "run_id": layout.run_id,
        "experiment": options.experiment,
        "name": options.name or layout.run_id,
        "status": "running",
        "created_at": utc_now(),
        "started_at": utc_now(),
        "ended_at": None,
        "host": os.uname().nodename,
        "boot_id": boot_id(),
        "node": 0,
        "pid": os.getpid(),
        "argv": [os.fsencode(a).decode("utf-8", "replace") for a in getattr(sys, "argv", [])],
        "user": _user(),
        "python": ".".join(str(part) for part in sys.version_info[:3]),
        "clock": ("monotonic", "tsc")[placed.segment.clock],
        "segment": {
            "name": placed.name,
            "path": str(placed.path),
            "device": status.st_dev,
            "inode": status.st_ino,
        },
        "meeting": None if meeting is None else str(meeting),
        "sinks": list(options.sinks),
        "tags": options.tags,
        "group": options.group,
        "notes": options.notes,
        "parent": options.parent,
        "git": None,
        "producers": [],
        "counts": None,
        "dropped": None,
        "complete": False,
    }
    try:
        runfile.write(layout.config_yaml, options.config, durable=False)
        runfile.write_sealed(layout.run_yaml, described, durable=False)
    except OSError as error:
        raise StorageError(f"cannot write into {layout.dir}: {error.strerror}") from error


def utc_now() -> str:
    """Return the time as RFC 3339 in UTC with microseconds."""
    now = datetime.datetime.now(datetime.UTC)
    return now.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for this uid, as in containers
        return str(os.getuid())


def _start(run: Run, options: Options) -> None:
    """Log the start, and start the flusher."""
    run.event("experiment_start", {"experiment": options.experiment, "name": options.name, "tags": options.tags})
    if options.config:
        run.event("config", options.config)
    run._segment.mark_starting()
    try:
        start_flusher(run._layout)
    except OSError as error:
        raise StorageError(
            f"the flusher of {run.dir} can't be started ({error.strerror}): is there a limit of processes (ulimit -u) "
            "or of memory, or no /bin/sh?"
        ) from error
