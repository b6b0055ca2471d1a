"""What an attempt of a run was made from: its packages, and what its code had changed since the commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shmlog.errors import CorruptDataError
from shmlog.reader.description import read_sealed_mapping
from shmlog.storage.attempts import latest_attempt
from shmlog.storage.layout import RunLayout
from shmlog.storage.regular import read_regular


def read_provenance(layout: RunLayout, attempt: int) -> dict[str, Any]:
    """Return what provenance.yaml of an attempt says; empty if there is none.

    Raises
    ------
    CorruptDataError
        If it is damaged.
    """
    try:
        told, fault = read_sealed_mapping(layout.provenance(attempt))
    except FileNotFoundError:
        return {}
    if fault:
        raise CorruptDataError(fault)
    return told


def read_diff(layout: RunLayout, attempt: int) -> bytes | None:
    """Return what git.diff of an attempt holds; None if there is none."""
    try:
        return read_regular(layout.git_diff(attempt))
    except FileNotFoundError:
        return None


def number_of(attempt: int | None, described: Mapping[str, Any]) -> int:
    """Return the number of an attempt, by default of the latest.

    Raises
    ------
    ValueError
        If the run has none of that number.
    """
    latest = latest_attempt(described)
    if attempt is not None and attempt not in range(1, latest + 1):
        raise ValueError(f"the run has no attempt {attempt!r}; they are numbered from 1 to {latest}")
    return latest if attempt is None else attempt
