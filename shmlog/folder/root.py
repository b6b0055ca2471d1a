"""The root of a store: every path in it is made here, and none leads out of it."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from shmlog.errors import ExperimentNotFoundError, RunNotFoundError, StorageError
from shmlog.folder import flock
from shmlog.folder.labels import choose, describe
from shmlog.folder.layout import RunLayout
from shmlog.folder.names import LATEST, check_experiment, check_id, experiment_of, folder_name, is_experiment, is_id

_STALE_S = 86_400
STAMP = re.compile(r"(\d{8}-\d{6})-")
"""The beginning of an id that `init` has made: the time, in UTC."""

_RUN_FILES = ("run.yaml", "events.jsonl")


class Runs(NamedTuple):
    """The runs that a text means, oldest first."""

    folders: list[Path]
    named_by: Path | None
    """The folder that the text names; None: it names one run itself."""
    is_vague: bool = False
    """Whether the text may mean another run tomorrow: it is ``latest``, or a prefix of an id or a commit."""

    def check_exact(self, text: str) -> None:
        """Raise RunNotFoundError if the text is too vague to delete what it means; the message has the whole name."""
        if self.is_vague and self.folders:
            raise RunNotFoundError(
                f"{text!r} is not the whole name of a run; now it means {describe(RunLayout(self.folders[-1]))}: "
                "to delete that, name it by its id, or pass --force (force=True)"
            )


class Root:
    """The root of a store and its folders. The constructor touches no file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.given = Path(path)
        self.path = Path(os.path.realpath(path))
        self.own = self.path / ".shmlog"
        self.index = self.own / "index"
        self.trash = self.own / "trash"
        self.lock = self.own / "lock"
        self.archive = self.path / ".archive"

    def experiments(self) -> list[str]:
        """Return the names of all experiments, sorted."""
        return sorted(_experiments(self.path))

    def experiment(self, name: str) -> Path:
        """Return the folder of an experiment, which need not exist.

        Raises
        ------
        ValueError
            If no experiment can have the name.
        StorageError
            If it is a symbolic link or anything else than a folder.
        """
        return self.inside(self.path / folder_name(check_experiment(name)))

    def shown(self, experiment: str) -> Path:
        """Return the folder of an experiment below the root as it was given."""
        return self.given / folder_name(experiment)

    def archived_experiments(self) -> list[str]:
        """Return the names of the experiments that have archives, sorted."""
        return sorted(_experiments(self.archive))

    def existing_experiment(self, name: str) -> Path:
        """Return the folder of an existing experiment, else raise ExperimentNotFoundError."""
        folder = self.experiment(name)
        if not folder.is_dir():
            raise ExperimentNotFoundError(f"no experiment {name!r} in {self.path}; it has {some(self.experiments())}")
        return folder

    def run_ids(self, experiment: str) -> Iterator[str]:
        """Yield the names of the folders in an experiment that can be runs, in no order."""
        return filter(is_id, _folders(self.experiment(experiment)))

    def run(self, experiment: str, run_id: str) -> RunLayout:
        """Return the paths of a run, which need not exist; raises ValueError, StorageError."""
        folder = self.experiment(experiment) / check_id(run_id, "run id")
        return RunLayout(self.inside(folder))

    def with_id(self, text: str, *, prefer: str | None = None) -> RunLayout | None:
        """Return the paths of the run with the name ``id`` or ``experiment/id``; None if there is none.

        Parameters
        ----------
        text : str
        prefer : str, optional
            The experiment to choose if runs of several have this id.

        Raises
        ------
        ValueError
            If more than one run has it.
        StorageError
            If it is a symbolic link.
        """
        experiment, slash, run_id = text.rpartition("/")
        if not is_id(run_id) or (slash and not is_experiment(experiment)):
            return None
        names = [experiment] if slash else [name for name in self.experiments() if not self._links(name, run_id)]
        layouts = [layout for layout in (self.run(name, run_id) for name in names) if is_run(layout)]
        layouts = [layout for layout in layouts if layout.experiment == prefer] or layouts
        if len(layouts) > 1:
            ways = " or ".join(f"{layout.experiment}/{run_id}" for layout in layouts[:3])
            raise ValueError(f"{len(layouts)} runs have the id {run_id!r}; write {ways}")
        return layouts[0] if layouts else None

    def find(self, text: str) -> RunLayout:
        """Return the paths of the run that ``text`` means, of several the newest; `named` says how.

        Raises
        ------
        ValueError
            If no run can have the name, or it does not say which of several runs is meant.
        RunNotFoundError
            If it means no run.
        """
        return RunLayout(self._existing(text).folders[-1])

    def find_to_delete(self, text: str, *, force: bool) -> RunLayout:
        """Return the paths of the run that ``text`` names as a whole; with ``force``, also by a prefix or ``latest``.

        It raises what `find` raises, and RunNotFoundError for the name of an experiment.
        """
        runs = self._existing(text)
        if not force:
            runs.check_exact(text)
        if runs.named_by is not None and not runs.is_vague:
            raise RunNotFoundError(f"{text!r} means {len(runs.folders)} runs of {self.path}; name one by its id")
        return RunLayout(runs.folders[-1])

    def _existing(self, text: str) -> Runs:
        runs = self.named(text)
        if runs is None:
            check_id(text.rpartition("/")[2], "run id")
            raise RunNotFoundError(f"no run {text!r} in {self.path}; 'shmlog runs' lists them")
        if not runs.folders:
            raise RunNotFoundError(f"{text!r} means 0 runs of {self.path}; name one by its id")
        return runs

    def runs(self, text: str | None) -> Runs:
        """Return the runs that a text means.

        Parameters
        ----------
        text : str or None
            A run folder; a root or an experiment folder, for all runs in it; what `named` takes; or None, for all
            runs below this root.

        Raises
        ------
        RunNotFoundError
            If it means no run, experiment or root.
        ValueError
            If it does not say which of several runs is meant.
        """
        folder = self.given if text is None else Path(text)
        if has_description(folder):
            return Runs([folder], None)
        below = runs_below(folder)
        if not below and text is not None:
            if is_run(RunLayout(folder)):  # a run that has lost its run.yaml
                return Runs([folder], None)
            named = self.named(text.rstrip("/"))
            if named is not None:
                return named._replace(folders=[self.given / run.parent.name / run.name for run in named.folders])
        if not folder.is_dir():
            what = "" if text is None else f"{text}: no such folder, and no such run or experiment; "
            raise RunNotFoundError(f"{what}{self.content()}")
        return Runs(below, folder)

    def named(self, text: str) -> Runs | None:
        """Return the runs in this root that a name means; None if it means none.

        Parameters
        ----------
        text : str
            The id of a run or EXPERIMENT/ID; the name of an experiment, for all its runs; ``latest``, for all runs;
            or what fits one run alone, with or without its experiment in front: a name, or the beginning of an id
            or of a commit.

        Raises
        ------
        ValueError
            If it does not say which of several runs is meant; the message lists them.
        """
        layout = self.with_id(text)
        if layout is not None:
            return Runs([layout.dir], None)
        if text in self.experiments():
            return Runs(runs_below(self.experiment(text)), self.shown(text))
        if text == LATEST:
            return Runs(runs_below(self.path), self.given, is_vague=True)
        return self._fitting(text)

    def _fitting(self, text: str) -> Runs | None:
        """Return the one run that a name, or the beginning of an id or a commit, means."""
        experiments = self.experiments()
        every = [RunLayout(self.experiment(name) / run_id) for name in experiments for run_id in self.run_ids(name)]
        choice = choose(filter(is_run, every), text)
        experiment, slash, rest = text.partition("/")
        if not choice.layouts and slash and experiment in experiments:
            choice = choose((run for run in every if run.experiment == experiment and is_run(run)), rest)
        fitting = choice.layouts
        if len(fitting) > 1:
            ways = sorted(map(describe, fitting), reverse=True)
            raise ValueError(f"{text!r} fits {len(fitting)} runs; write more of one: {some(ways)}")
        return Runs([fitting[0].dir], None, choice.is_prefix) if fitting else None

    def content(self) -> str:
        """Return a text that lists the experiments, or says how to get runs."""
        names = self.experiments()
        if not names:
            why = "" if self.path.is_dir() else ", which is not there"
            return f"no runs in {self.given}{why}; create one with 'shmlog demo', or name another folder"
        return f"experiments in {self.given}: {some(names)}"

    def _links(self, experiment: str, run_id: str) -> bool:
        """Whether that name is a link in an experiment, such as one to a run of another: it does not count."""
        return (self.path / folder_name(experiment) / run_id).is_symlink()

    def inside(self, path: Path) -> Path:
        """Return ``path``; raises StorageError if a symbolic link is on the way to it from the root."""
        if path.is_symlink():
            raise StorageError(f"{path} is a symbolic link: refused, since it can lead out of {self.path}")
        if os.path.realpath(path) != str(path):
            raise StorageError(f"{path} leads out of {self.path}: refused")
        return path

    # ---- the store's own files ----

    def make_own(self, folder: Path) -> Path:
        """Make a folder for the store's own files, which pyarrow and shells skip; return it."""
        self.inside(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {folder}: {error.strerror}") from error
        return folder

    @contextmanager
    def temporary(self, purpose: str) -> Iterator[Path]:
        """Yield a new folder, which is removed afterwards; also remove folders that killed processes left a day ago."""
        parent = self.make_own(self.own / purpose)
        for leftover in parent.iterdir():
            if time.time() - leftover.lstat().st_mtime > _STALE_S:
                shutil.rmtree(leftover, ignore_errors=True)
        folder = parent / os.urandom(8).hex()
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time change annotations, experiments and the set of runs.

        Raises
        ------
        StorageError
            If another process holds the lock for long, or it can't be opened.
        """
        self.make_own(self.own)
        fd = _open_lock(self.lock)
        try:
            if not _lock(fd):
                raise StorageError(
                    f"{self.lock}: another process has held this lock for {flock.PATIENCE_S:g} s; "
                    "try again when the process that changes the store, such as 'shmlog prune', has ended"
                )
            yield
        finally:
            flock.release(fd)


def _open_lock(path: Path) -> int:
    flags = os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            return os.open(path, os.O_RDWR | flags, 0o664)  # NFS locks only files open for writing
        except PermissionError:
            return os.open(path, os.O_RDONLY | flags, 0o664)  # another user's file, which can still be locked
    except OSError as error:
        raise StorageError(f"{path} can't be opened: {error.strerror}") from error


def _lock(fd: int) -> bool:
    try:
        return flock.lock(fd)
    except OSError:
        return True  # a file system without locks: of two simultaneous writers the last one wins


def name_of(run_dir: Path) -> tuple[Path, str]:
    """Return the root that a run folder is in, and the run's name there, ``experiment/id``."""
    layout = RunLayout(run_dir)
    return layout.root, f"{layout.experiment}/{layout.run_id}"


def is_run(layout: RunLayout) -> bool:
    """Whether a folder is, or was, a run: it describes itself, or holds records."""
    if any(layout.files.is_file(layout.dir / name) for name in _RUN_FILES):
        return True
    return bool(layout.logs() or layout.parts())


def _folders(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name
    except FileNotFoundError:
        return


def _experiments(folder: Path) -> Iterator[str]:
    return filter(None, map(experiment_of, _folders(folder)))


def some(names: list[str]) -> str:
    """Return the first ten names, and how many more there are, as text."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more if names else "none"


def why_not_found(folder: Path) -> str:
    """Return a text that says why a folder is not that of a run."""
    if not folder.is_dir():
        return f"no run in {folder}: there is no such folder; pass the folder of one run"
    below = runs_below(folder)
    if below:
        return f"no run in {folder}, but {len(below)} below it; pass the folder of one, such as {below[-1]}"
    return f"no run in {folder}: it has no run.yaml; pass the folder of one run"


def has_description(path: Path) -> bool:
    """Whether a folder has a run.yaml."""
    return (path / "run.yaml").is_file()


def runs_below(folder: Path) -> list[Path]:
    """Return the run folders in a root or an experiment folder, oldest first, without those behind links."""
    runs = [file.parent for pattern in ("*/run.yaml", "*/*/run.yaml") for file in folder.glob(pattern)]
    return sorted((run for run in runs if not _is_linked(run, folder)), key=_created)


def _is_linked(run: Path, folder: Path) -> bool:
    """Whether a link between ``folder``, which may be a link itself, and the run leads elsewhere."""
    return run.is_symlink() or (run.parent != folder and run.parent.is_symlink())


def _created(run: Path) -> tuple[str, int]:
    """Return when a run was created, from its id or else from the time of its run.yaml."""
    changed = (run / "run.yaml").stat().st_mtime_ns
    stamp = STAMP.match(run.name)
    return (stamp[1] if stamp else time.strftime("%Y%m%d-%H%M%S", time.gmtime(changed / 1e9)), changed)
