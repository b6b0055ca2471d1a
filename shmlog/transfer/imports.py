"""Import runs of other systems, and exports of shmlog."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shmlog.base.times import parse_us, utc_now
from shmlog.base.variables import root_or_default
from shmlog.errors import RefusedError, RunNotFoundError, SeveralRunsError
from shmlog.folder.artifacts import Logged
from shmlog.folder.names import check_experiment
from shmlog.folder.root import Root
from shmlog.store import experiments
from shmlog.transfer.folder import final_status, find_run, write_run
from shmlog.transfer.imported import ImportedRun, fit_name
from shmlog.transfer.importers.formats import check_format, guess_format, place_of
from shmlog.transfer.limited import BYTES_MAX, read_apart


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """The result of an import.

    Attributes
    ----------
    dir : Path
        Folder of the run.
    is_new : bool
        False if the same source was imported before: then nothing was changed.
    counts : dict
        ``metrics``, ``events``, ``artifacts``.
    problems : tuple of str
        What of the source is not in the run, or not as it was.
    further : tuple of str
        Other runs that lie in the source: import each of these paths, as ``shmlog import`` does.
    notes : tuple of str
        How the importer has read what the source leaves open, such as times without a zone; nothing is missing
        because of it.
    """

    dir: Path
    run_id: str
    experiment: str
    source: Path
    format: str
    status: str
    is_new: bool
    counts: Mapping[str, int]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    further: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as dicts, lists, str, int and bool."""
        return {
            "dir": str(self.dir), "run_id": self.run_id, "experiment": self.experiment, "source": str(self.source),
            "format": self.format, "status": self.status, "is_new": self.is_new, "counts": dict(self.counts),
            "problems": list(self.problems), "notes": list(self.notes),
            "further": list(self.further),
        }  # fmt: skip


def import_run(
    source: str | os.PathLike[str], root: str | os.PathLike[str] | None = None, format: str | None = None, *,
    experiment: str | None = None, max_bytes: int = BYTES_MAX,
) -> ImportReport:  # fmt: skip
    """Read a run of another system, or an export, into a finished run of ours.

    Parameters
    ----------
    source : path
        A folder of fetch_ml, expman or experiment_logger, a TensorBoard event file or a folder of them, or a file:
        JSON Lines, CSV, records of trueno-db as JSON, a database of entrenar, or what `export_run` wrote as JSON,
        CSV, Parquet or Arrow. The source is not changed.
        Of a source that holds several runs, the source and the name of one: ``FOLDER/NAME``, ``experiments.db/RUN_ID``.
    root : path, optional
        Folder of all experiments; the run goes below it. Default: ``$SHMLOG_ROOT``, else ``runs``.
    format : str, optional
        ``fetch_ml``, ``expman``, ``experiment_logger``, ``jsonl``, ``csv``, ``json``, ``parquet``, ``arrow``,
        ``tensorboard`` or ``entrenar``.
        Default: what the source looks like.
    experiment : str, optional
        Default: the experiment that the source names, or the source's own name.
    max_bytes : int
        Most memory that reading the source may take: a small file can unpack to any size. A separate process
        reads it; where the system can't limit its memory, sources of more than 64 MiB are refused.

    Returns
    -------
    ImportReport
        The run, and what of the source is not in it.

    Raises
    ------
    RunNotFoundError
        If there is no such source.
    ValueError
        If the format is unknown, or the source looks like none.
    CorruptDataError
        If the source can't be read. Nothing was written.
    SeveralRunsError
        If the source is a store, not a run. Nothing was written.
    RefusedError
        If the source holds nothing that can be imported, or reading it takes more than ``max_bytes`` or, for each
        GiB of ``max_bytes``, ten minutes of processor time. Nothing was written.
    MissingExtraError
        If a package for the format is missing.
    StorageError
        If the run can't be written, or no process can be started. Nothing was written.

    Notes
    -----
    The run's id is made from the content of the source, so that importing it again, from any place,
    finds the existing run. A source that has grown is another run.
    """
    path = Path(os.path.abspath(source))
    place = place_of(path)
    if not place.exists():
        raise RunNotFoundError(f"nothing to import: {path} does not exist")
    format = check_format(format or guess_format(place))
    if experiment is not None:
        experiment = check_experiment(experiment)
    if not isinstance(max_bytes, int) or max_bytes < 1:
        raise ValueError(f"max_bytes must be a number of bytes, not {max_bytes!r}")
    run = read_apart(format, path, max_bytes)
    _refuse_nothing(run, path)
    _note_missing_artifacts(run)
    digest = _digest(format, run)
    runs = Root(root_or_default(root))
    experiment, run_id = experiment or fit_name(run.experiment), _run_id(run, digest)
    wanted = runs.run(experiment, run_id)
    layout = find_run(runs, run_id, experiment)
    is_new = False
    status = final_status(run)
    problems, notes = tuple(dict.fromkeys(run.problems)), tuple(dict.fromkeys(run.notes))
    if layout is None:
        origin = {
            "format": format, "path": str(path), "sha256": digest, "status": run.status,
            "imported_at": utc_now(), "problems": list(problems), "notes": list(notes),
        }  # fmt: skip
        layout = write_run(runs, wanted, run, origin)
        is_new = layout is wanted
        _annotate_experiment(runs, layout.experiment, run.of_experiment)
    counts = {"metrics": run.records, "events": len(run.events), "artifacts": len(run.artifacts)}
    return ImportReport(
        dir=layout.dir, run_id=layout.run_id, experiment=layout.experiment, source=path, format=format, status=status,
        is_new=is_new, counts=counts, problems=problems, notes=notes, further=tuple(run.further),
    )  # fmt: skip


def _refuse_nothing(run: ImportedRun, path: Path) -> None:
    """Raise RefusedError if nothing was read: an empty run would look like a success."""
    if run.records or run.events or run.params or run.artifacts:
        return
    if run.further:
        names = ", ".join(run.further[:3]) + (" …" if len(run.further) > 3 else "")
        text = f"{path}: holds {len(run.further)} runs; import each by its name: {names}"
        raise SeveralRunsError(text, tuple(run.further))
    raise RefusedError("; ".join([f"{path}: holds nothing that can be imported", *run.problems]))


def _note_missing_artifacts(run: ImportedRun) -> None:
    for logged in filter(None, map(Logged.of_event, run.events)):
        if logged.name not in run.artifacts:
            run.notes.add("artifacts", f"artifact {logged.name!r} was logged, and is not in the source")


def _annotate_experiment(root: Root, name: str, fields: Mapping[str, Any]) -> None:
    """Say of an experiment what its source says, where nobody has said anything here."""
    if not fields:
        return
    with root.locked():
        record = experiments.read(root, name)
        here = {"display_name": record.display_name != name, "description": record.description, "tags": record.tags}
        if changes := {field: value for field, value in fields.items() if not here[field]}:
            experiments.write(root, name, changes)


# ---- identity ----


def _digest(format: str, run: ImportedRun) -> str:
    total = hashlib.sha256(f"shmlog import 1 {format}\n".encode())
    if run.identity:
        total.update(f"{run.identity}\n".encode())
        return total.hexdigest()
    copied = {f"artifacts/{name}": path for name, path in run.artifacts.items() if isinstance(path, Path)}
    for name, path in sorted((run.files | copied).items()):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{digest} {name}\n".encode())
    return total.hexdigest()


def _run_id(run: ImportedRun, digest: str) -> str:
    """Return an id that begins with the time when the run began, as all ids do, if it is known."""
    began = parse_us(run.described.started_at or run.described.created_at)
    if began is None or began < 0:
        return f"imported-{digest[:16]}"
    return f"{datetime.fromtimestamp(began // 1_000_000, UTC):%Y%m%d-%H%M%S}-{digest[:16]}"
