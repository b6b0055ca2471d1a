"""experiment.yaml: what people say of an experiment. Only the store writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shmlog.errors import RefusedError, StorageError, UnreadableError
from shmlog.folder import experiment, runfile
from shmlog.folder.root import Root
from shmlog.folder.runfile import read_mapping
from shmlog.reader import codec
from shmlog.reader.model import ExperimentRecord

_FIELDS = ("display_name", "description", "tags", "created_at")


def read(root: Root, name: str) -> ExperimentRecord:
    """Return an experiment that exists; it may lack an experiment.yaml."""
    folder = root.experiment(name)
    problems: list[str] = []
    content = _read_yaml(folder / experiment.FILE_NAME, problems)
    values: dict[str, Any] = {"display_name": name}
    readers = codec.readers(ExperimentRecord)
    for field in _FIELDS:
        try:
            if content.get(field) is not None:
                values[field] = readers[field].read(content[field])
        except (TypeError, ValueError, OverflowError) as error:
            problems.append(f"{folder / experiment.FILE_NAME}: {field}: {error}")
    runs = sum(1 for _ in root.run_ids(name))
    return ExperimentRecord(name=name, dir=folder, runs=runs, problems=tuple(problems), **values)


def _read_yaml(path: Path, problems: list[str]) -> Mapping[str, Any]:
    try:
        if path.is_symlink():
            raise RefusedError(f"{path}: a symbolic link; refused")
        return read_mapping(path)
    except FileNotFoundError:
        pass
    except UnreadableError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
    return {}


def write(root: Root, name: str, changes: Mapping[str, Any]) -> None:
    """Change fields of experiment.yaml; create the experiment if it does not exist.

    The caller holds the store's lock.

    Raises
    ------
    CorruptDataError
        If the file is damaged. It is left as it is.
    StorageError
        If it can't be written.
    """
    folder = root.experiment(name)
    path = folder / experiment.FILE_NAME
    try:
        experiment.note(folder, experiment.make(folder))
        if path.is_symlink():
            raise StorageError(f"{path} is a symbolic link: refused")
        try:
            content = read_mapping(path)
        except FileNotFoundError:
            content = {"schema": experiment.SCHEMA}  # of a folder that is older, as one that was copied
        runfile.write(path, {**content, **changes})
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
