"""What the small files of a run say, whatever is wrong inside; without numpy or pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shmlog.errors import CorruptDataError
from shmlog.storage import runfile
from shmlog.storage.layout import RunLayout
from shmlog.storage.regular import read_regular


def read_mapping(path: Path) -> dict[str, Any]:
    """Return what a small file of ours holds; raises CorruptDataError whatever is wrong inside."""
    return _parse(path, read_regular(path))


def read_sealed_mapping(path: Path) -> tuple[dict[str, Any], str | None]:
    """Return what `read_mapping` does, and it if the checksum in the file is wrong."""
    data = read_regular(path)
    fault = None if runfile.is_intact(data) else f"{path}: its checksum is wrong: any of it may be"
    return _parse(path, data), fault


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    try:
        return runfile.parse(path, data)
    except (CorruptDataError, OSError):
        raise
    except Exception as error:  # the YAML library has many ways to fail
        raise CorruptDataError(f"{path}: neither JSON nor YAML ({type(error).__name__}: {error})") from error


def read_description(layout: RunLayout) -> tuple[dict[str, Any], str | None]:
    """Return run.yaml, or what can be said without it, and why it can't be read.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    try:
        return read_sealed_mapping(layout.run_yaml)
    except CorruptDataError as error:
        is_over = not layout.sealed_json.exists() and not layout.logs()
        return {"run_id": layout.run_id, "experiment": layout.experiment, "complete": is_over}, str(error)
