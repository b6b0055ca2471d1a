"""Read a run folder: the same calls for a live, finished or crashed run. Nothing is written."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from shmlog.base.warn import warn_caller
from shmlog.errors import CorruptDataError, RunNotFoundError, UnreadableError
from shmlog.folder import liveness
from shmlog.folder.description import Description
from shmlog.folder.extent import extents_of
from shmlog.folder.layout import RUN_LOG, RunLayout, RunLike, folder_of
from shmlog.folder.root import why_not_found
from shmlog.folder.runfile import read_mapping, read_provenance
from shmlog.folder.status import status_of_events
from shmlog.reader import read, snapshot
from shmlog.reader.artifacts import Artifact, choose, find_artifacts
from shmlog.reader.attempts import mark_attempts
from shmlog.reader.belonging import own_parts
from shmlog.reader.convert import Conversions
from shmlog.reader.event_lines import fault_of
from shmlog.reader.queries import Queries
from shmlog.reader.snapshot import Snapshot
from shmlog.reader.tally import Tally
from shmlog.records.late import read_late
from shmlog.records.ledger import Ledger, lost_of
from shmlog.records.producers import sum_dropped
from shmlog.records.schema import RECORDS

_TRIES = 20

Result = TypeVar("Result")
_Books = tuple[list[dict[str, Any]], dict[str, int], dict[int, int]]  # producers, drops by reason, lost by lane


def load(run_dir: RunLike) -> StoredRun:
    """Open a run folder for reading.

    Parameters
    ----------
    run_dir : path, Run or RunRecord
        Folder of a run, which may be running, finished, crashed, or a copy; or an object with such a ``dir``.

    Returns
    -------
    StoredRun
        It reads the files anew at each call, so that a live run is seen to grow.

    Raises
    ------
    RunNotFoundError
        If the folder has no run.yaml.
    RefusedError
        If a folder in it is a link. ``run_dir`` itself may be one.

    Warns
    -----
    ShmlogWarning
        Here and at every later call, for each file that is damaged, missing or another run's. The calls return
        what the other files hold.
    """
    layout = find(folder_of(run_dir, "load takes the folder of a run"))
    warn_of_strange_parts(layout)
    return StoredRun(layout)


def find(run_dir: str | os.PathLike[str]) -> RunLayout:
    """Return the paths of a run; raises RunNotFoundError if there is none, RefusedError for a link in it."""
    layout = RunLayout(run_dir)
    if not layout.files.is_file(layout.run_yaml):
        raise RunNotFoundError(why_not_found(layout.dir))
    snapshot.refuse_links(layout)
    return layout


def warn_of_strange_parts(layout: RunLayout) -> None:
    """Warn if parts of a run that is complete are missing, or are another run's. For other runs, reading warns."""
    try:
        if Description.read_or_guess(layout)[0].complete is not True:
            return
        problems = own_parts(layout, snapshot.take(layout))[1]
    except (UnreadableError, OSError):
        return  # the next read says what is wrong
    for problem in problems:
        warn_caller(problem)


class StoredRun(Conversions, Queries):
    """A run on disk; made by `load`."""

    def __init__(self, layout: RunLayout) -> None:
        self._layout = layout

    def __repr__(self) -> str:
        return f"<shmlog.StoredRun {self.experiment}/{self.id} {self.status} at {str(self.dir)!r}>"

    # ---- description ----

    @property
    def dir(self) -> Path:
        """Folder of the run."""
        return self._layout.dir

    @property
    def id(self) -> str:
        """Id of the run."""
        return str(self.described.run_id or self._layout.run_id)

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.described.experiment or self._layout.experiment)

    @property
    def metadata(self) -> dict[str, Any]:
        """What run.yaml says."""
        return self.described.mapping

    @property
    def described(self) -> Description:
        """What run.yaml says, field by field."""
        return self._describe()[0]

    @property
    def annotations(self) -> dict[str, Any]:
        """What people said of the run afterwards; its fields replace those of run.yaml. Empty if there is nothing."""
        return self._read_small(self._layout.annotations_yaml)

    @property
    def config(self) -> dict[str, Any]:
        """Parameters of the run; empty if config.yaml is missing or damaged."""
        path = self._layout.config_yaml
        extent = extents_of(self.described.files).get(path.name)
        fault = extent.fault(path, self._layout.files) if extent else None
        if fault:
            warn_caller(f"{path}: {fault}")
        return self._read_small(path)

    def _read_small(self, path: Path) -> dict[str, Any]:
        try:
            return read_mapping(path, self._layout.files)
        except FileNotFoundError:
            return {}
        except UnreadableError as error:
            warn_caller(str(error))
            return {}

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The attempts of the run, the latest last, as run.yaml lists them.

        Each has ``attempt`` (1, 2 and so on), ``first_lane``, ``status``, ``started_at``, ``ended_at``, ``host``,
        ``pid``, ``argv``, ``python``, ``git``, ``environment``, and in ``config`` the parameters that differ
        from those of the attempt before.
        """
        *earlier, latest = self.described.all_attempts()
        return [*earlier, {**latest, "status": self.status}]

    @property
    def paused_s(self) -> float:
        """Seconds between the attempts, in which nothing ran; 0 if the run was never resumed."""
        return self.described.paused_s()

    def packages(self, attempt: int | None = None) -> dict[str, str]:
        """Return the versions of the installed packages by name; empty if they are unknown.

        Parameters
        ----------
        attempt : int, optional
            Default: the latest.
        """
        number = self.described.number_of(attempt)
        try:
            packages = read_provenance(self._layout, number).get("packages")
        except UnreadableError as error:
            warn_caller(str(error))
            packages = None
        return packages if isinstance(packages, dict) else {}

    def git_diff(self, attempt: int | None = None) -> bytes | None:
        """Return the changes of the code since its commit, as ``git apply`` reads them.

        Parameters
        ----------
        attempt : int, optional
            Default: the latest.

        Returns
        -------
        bytes or None
            None if there is none: the code was unchanged, ``git_diff=True`` was not given, or
            ``metadata["git"]["diff_problem"]`` says why.
        """
        path = self._layout.git_diff(self.described.number_of(attempt))
        try:
            return self._layout.files.read(path)
        except FileNotFoundError:
            return None

    @property
    def live(self) -> bool | None:
        """Whether processes are attached; None if this machine can't know."""
        described = self.described
        return False if described.complete is True else liveness.members_live(described)

    @property
    def status(self) -> str:
        """``pending``, ``running``, ``success``, ``failed``, ``cancelled`` or ``crashed``.

        A run whose run.yaml says ``running`` while the kernel knows that none of its processes
        lives has crashed. If run.yaml is damaged, the run's last event counts.
        """
        described, problem = self._describe()
        if problem:
            described.status = status_of_events(self.events()) or described.status
        return liveness.find_status(described, liveness.members_live(described))

    @property
    def unrecovered(self) -> bool:
        """Whether records wait for ``shmlog recover``: no process is left to drain them."""
        described = self.described
        if described.complete is True or liveness.members_live(described) is not False:
            return False
        # A flusher that was about to end may have closed the run in the meantime.
        return liveness.has_flusher(described) is not True and self.described.complete is not True

    @property
    def age(self) -> float:
        """Seconds since something was last written into the run folder."""
        layout = self._layout
        paths = [layout.run_yaml, layout.sealed_json, *layout.event_files().values()]
        paths += layout.text_files(RUN_LOG).values()
        paths += [layout.log(number) for number in layout.logs()]
        states = filter(None, map(layout.files.known_state, paths))
        return max(0.0, time.time() - max((state.st_mtime for state in states), default=0.0))

    def _describe(self) -> tuple[Description, str | None]:
        try:
            described, problem = Description.read_or_guess(self._layout)
        except FileNotFoundError as error:
            raise RunNotFoundError(f"no run in {self.dir} any more: its run.yaml is gone") from error
        if problem:
            warn_caller(problem)
        return described, problem

    # ---- records ----

    def metrics(
        self, names: str | Sequence[str] | None = None, *, superseded: bool = False, nodes: bool = False
    ) -> pa.Table:
        """Return metric records; of a resumed run, the curve that its attempts form together.

        Parameters
        ----------
        names : str or sequence of str, optional
            A name, several names, or a pattern with ``*``, ``?`` or ``[ ]`` that is
            not itself a name. Default: all.
        superseded : bool
            Include records that a later attempt has superseded: of each metric, those of
            earlier attempts from the smallest step on that a later attempt has logged.
        nodes : bool
            Add the column ``node`` (int32), as the last: each node numbers its lanes by itself.

        Returns
        -------
        pyarrow.Table
            Schema `shmlog.records.schema.RECORDS`, ordered by step and time. One
            row per record. Of a live run, at least all records that were
            logged before a ``flush()`` that has returned.
        """
        checked = _check_names(names)

        def look(snapshot: Snapshot) -> tuple[pa.Table, list[str]]:
            table, problems = read.read_metrics(self._layout, snapshot, checked)
            return mark_attempts(table, snapshot.described, superseded=superseded), problems

        table = self._look(look)
        return table if nodes else table.select(RECORDS.names)

    def reduce(self, fold: Callable[[Iterator[pa.Table]], Result]) -> Result:
        """Return what ``fold`` makes of all metric records, which it is given in pieces that take little memory.

        Parameters
        ----------
        fold : callable
            It gets tables of `shmlog.records.schema.OF_NODES`, those records that a later attempt has superseded
            included. The rows of a table are ordered by name, step, time, lane and seq; the tables are in no order.
            It is called again if files have changed meanwhile.
        """

        def look(snapshot: Snapshot) -> tuple[Result, list[str]]:
            problems: list[str] = []
            return fold(read.read_pieces(self._layout, snapshot, problems)), problems

        return self._look(look)

    def names(self) -> list[str]:
        """Return the names of all metrics, sorted."""
        return self._look(lambda snapshot: read.read_names(self._layout, snapshot))

    def events(self, event_type: str | None = None) -> list[dict[str, Any]]:
        """Return structured events in the order of events.jsonl.

        Parameters
        ----------
        event_type : str, optional
            Only events of this type. Default: all but the ``metrics`` lines,
            which `metrics` returns; ask for those with ``"metrics"``.
        """
        return self._look(lambda snapshot: read.read_events(self._layout, snapshot, event_type))

    def _look(self, look: Callable[[Snapshot], tuple[Result, list[str]]]) -> Result:
        """Return what ``look`` reads from files that belong together; warn of those that are damaged."""
        for _ in range(_TRIES):
            try:
                current = snapshot.take(self._layout)
                result, problems = look(current)
            except FileNotFoundError as error:
                if not self._layout.files.exists(self._layout.run_yaml):
                    raise RunNotFoundError(f"no run in {self.dir} any more: its run.yaml is gone") from error
                continue  # a part was merged meanwhile
            if current.is_still_there(self._layout):
                for problem in [*(text for _, text in current.problems), *problems]:
                    warn_caller(problem)
                return result
        raise CorruptDataError(f"{self.dir}: its parts keep disappearing; copy the run and read the copy")

    # ---- books ----

    @property
    def producers(self) -> list[dict[str, Any]]:
        """The producers: lane, tenancy, pid, rank, worker …, and their counts.

        Of more than 16,384 the oldest of each lane are one entry, whose ``tenancies`` says of how many; what they
        do not have in common is None there.
        """
        return self._books()[0]

    @property
    def dropped(self) -> dict[str, int]:
        """Drops of the run by reason, those after its end included; empty if there were none."""
        return self._books()[1]

    @property
    def lost(self) -> dict[int, int]:
        """Lost records by lane: logged, but neither stored nor counted as dropped. Empty if there are none.

        Damage or a mistake of this package loses records. The logs that held them lie in ``kept/``, unless these
        are damaged themselves. A loss is known when its log is sealed. A negative number means that records of
        the lane are stored twice.
        """
        return self._books()[2]

    @property
    def segment_lost(self) -> bool:
        """Whether the shared memory was gone when the run was recovered, with the records that only it held, if any."""
        return self._look(lambda snapshot: (snapshot.described.recovered_without_segment is True, []))

    @property
    def counts(self) -> dict[str, int]:
        """Metrics, events and drops of the whole run."""
        producers, dropped, _ = self._books()
        return {
            "metrics": sum(producer["metrics"] for producer in producers),
            "events": sum(producer["events"] for producer in producers),
            "dropped": sum(dropped.values()),
        }

    def _books(self) -> _Books:
        producers, dropped, lost = self._look(self._books_of)
        late, problems = read_late(self._layout)
        for problem in problems:
            warn_caller(problem)
        return producers, dict(Counter(dropped) + Counter(late)), lost

    def _books_of(self, snapshot: Snapshot) -> tuple[_Books, list[str]]:
        if snapshot.producers is None:
            return self._count(snapshot)
        lost = {lane.number: count for lane, count in lost_of(snapshot.producers, snapshot.offered).items()}
        if snapshot.complete:
            return (snapshot.producers, {reason: n for reason, n in snapshot.dropped.items() if n}, lost), []
        ledger = Ledger.of(snapshot.producers, snapshot.dropped)
        problems: list[str] = []
        for batch, damage in snapshot.batches(self._layout):
            ledger.add_batch(batch)
            problems += read.texts_of(damage)
        return (ledger.producers(), ledger.dropped(), lost), problems

    def _count(self, snapshot: Snapshot) -> tuple[_Books, list[str]]:
        """Count the records, because the books are lost."""
        tally = Tally()
        metrics, problems = read.read_metrics(self._layout, snapshot, None)
        tally.add_metrics(metrics)
        events, problems_of_events = read.read_events(self._layout, snapshot, None)
        for event in events:
            if fault_of(event) is None:
                tally.add_event(event)
        producers = tally.producers()
        return (producers, sum_dropped(producers), {}), problems + problems_of_events

    # ---- artifacts ----

    @property
    def artifacts(self) -> list[Artifact]:
        """The files that were logged, and all others below artifacts/, by name."""
        return find_artifacts(self._layout, self.events("artifact"))

    def artifact(self, name: str) -> Artifact:
        """Return the file, or the folder, that was logged under a name, or the file with a digest.

        Parameters
        ----------
        name : str
            As it was logged; or a digest, such as ``"sha256:…"``, in full or its first digits, eight at least. Of
            several files with that content the first by name.

        Raises
        ------
        ArtifactNotFoundError
            If there is none, or the digits fit several contents.
        """
        return choose(self._layout, self.artifacts, name)


def _check_names(names: str | Sequence[str] | None) -> str | list[str] | None:
    """Return names of metrics; raises TypeError if they are not names."""
    if names is None or isinstance(names, str):
        return names
    checked = list(names) if isinstance(names, Iterable) else [names]
    for name in checked:
        if not isinstance(name, str):
            raise TypeError(f"names must be the name of a metric, or a list of them, not {type(name).__name__}")
    return checked
