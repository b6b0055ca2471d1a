"""Import of runs that other systems, or exports of ours, have left."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shmlog.base.times import parse_us, utc_now
from shmlog.errors import RunNotFoundError, StorageError
from shmlog.folder.artifacts import Logged
from shmlog.folder.layout import RunLayout, check_id
from shmlog.folder.root import Root
from shmlog.transfer.folder import final_status, write_run
from shmlog.transfer.found import Found, fit_name
from shmlog.transfer.importers.formats import check_format, guess_format
from shmlog.transfer.limited import BYTES_MAX, read_apart


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportReport:
    """What came of an import.

    Attributes
    ----------
    dir : Path
        Folder of the run.
    is_new : bool
        False if the same source had been imported before: nothing was changed then.
    counts : dict
        ``metrics``, ``events``, ``artifacts``.
    problems : tuple of str
        What could not be read, or not be read as it stood.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the report as dicts, lists, str, int and bool."""
        return {
            "dir": str(self.dir), "run_id": self.run_id, "experiment": self.experiment, "source": str(self.source),
            "format": self.format, "status": self.status, "is_new": self.is_new, "counts": dict(self.counts),
            "problems": list(self.problems),
        }  # fmt: skip


def import_run(
    source: str | os.PathLike[str], root: str | os.PathLike[str] = "runs", format: str | None = None, *,
    experiment: str | None = None, max_bytes: int = BYTES_MAX,
) -> ImportReport:  # fmt: skip
    """Read a run of another system, or an export, into a finished run of ours.

    Parameters
    ----------
    source : path
        A folder of fetch_ml or expman, a TensorBoard event file or a folder of them, or a file:
        JSON Lines, CSV, or what `export_run` wrote as JSON, CSV, Parquet or Arrow. Nothing in it is changed.
    root : path
        Folder of all experiments, where the run goes.
    format : str, optional
        ``fetch_ml``, ``expman``, ``jsonl``, ``csv``, ``json``, ``parquet``, ``arrow`` or ``tensorboard``.
        Default: what the source looks like.
    experiment : str, optional
        Default: what the source says, or its name.
    max_bytes : int
        Of memory, that reading the source may take: a small file can hold any number of them. A process of its
        own reads it; where the system does not limit the memory of one, sources of more than 64 MiB are refused.

    Returns
    -------
    ImportReport
        The run, and what of the source could not be read.

    Raises
    ------
    RunNotFoundError
        If there is no such source.
    ValueError
        If there is no such format, or the source looks like none.
    CorruptDataError
        If nothing of it can be read, or that takes more than ``max_bytes``, or ten minutes of work for each
        GiB of them. Nothing was written.
    MissingExtraError
        If a package for the format is missing.
    StorageError
        If the run can't be written, or no process can be started. Nothing was written.

    Notes
    -----
    The run's id is made of what the source holds, so that importing it again, from wherever, finds
    the run that is there. A source that has grown is another run.
    """
    path = Path(os.path.abspath(source))
    if not path.exists():
        raise RunNotFoundError(f"nothing to import: {path} does not exist")
    wanted = check_format(format or guess_format(path))
    if experiment is not None:
        check_id(experiment, "experiment")
    if not isinstance(max_bytes, int) or max_bytes < 1:
        raise ValueError(f"max_bytes must be a number of bytes, not {max_bytes!r}")
    found = read_apart(wanted, path, max_bytes)
    _tell_of_missing_artifacts(found)
    digest = _digest(wanted, found)
    store = Root(root)
    experiment, run_id = experiment or fit_name(found.experiment), _run_id(found, digest)
    layout = _existing(store, run_id, experiment)
    is_new = layout is None
    layout = layout or store.run(experiment, run_id)
    status = final_status(found)
    problems = tuple(dict.fromkeys(found.problems))
    if is_new:
        told = {
            "format": wanted, "path": str(path), "sha256": digest, "status": found.status,
            "imported_at": utc_now(), "problems": list(problems),
        }  # fmt: skip
        write_run(store, layout, found, told)
    counts = {"metrics": found.records, "events": len(found.events), "artifacts": len(found.artifacts)}
    return ImportReport(
        dir=layout.dir, run_id=layout.run_id, experiment=layout.experiment, source=path, format=wanted, status=status,
        is_new=is_new, counts=counts, problems=problems,
    )  # fmt: skip


def _tell_of_missing_artifacts(found: Found) -> None:
    for logged in filter(None, map(Logged.of_event, found.events)):
        if logged.name not in found.artifacts:
            found.problems.add("artifacts", f"artifact {logged.name!r} was logged, and is not in the source")


# ---- identity ----


def _digest(format: str, found: Found) -> str:
    total = hashlib.sha256(f"shmlog import 1 {format}\n".encode())
    for name, path in sorted({**found.files, **{f"artifacts/{n}": p for n, p in found.artifacts.items()}}.items()):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{digest} {name}\n".encode())
    return total.hexdigest()


def _run_id(found: Found, digest: str) -> str:
    """Return an id that begins with when the run began, as all ids do, if that is known."""
    began = parse_us(found.described.started_at or found.described.created_at)
    if began is None or began < 0:
        return f"imported-{digest[:16]}"
    return f"{datetime.fromtimestamp(began // 1_000_000, UTC):%Y%m%d-%H%M%S}-{digest[:16]}"


def _existing(root: Root, run_id: str, experiment: str) -> RunLayout | None:
    if root.path.exists() and not root.path.is_dir():
        raise StorageError(f"{root.path} is no folder")
    for name in sorted(root.experiments(), key=lambda name: name != experiment):
        layout = root.run(name, run_id)
        if layout.run_yaml.is_file():
            return layout
    return None
