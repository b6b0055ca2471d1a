"""annotations.yaml: what people say of a run. The store writes it, or a run that is told a name or tags; no flusher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from shmlog.errors import StorageError
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.folder.runfile import read_mapping

_SCHEMA = 1

KEEP: Any = object()
"""Marks a field that stays as it is."""


def read_annotations(layout: RunLayout) -> dict[str, Any]:
    """Return a run's annotations; raises CorruptDataError if they are damaged."""
    try:
        return dict(read_mapping(layout.annotations_yaml, layout.files))
    except FileNotFoundError:
        return {}


def write_annotations(layout: RunLayout, changes: dict[str, Any]) -> None:
    """Change fields of a run's annotations; the caller holds the store's lock.

    Raises
    ------
    CorruptDataError
        If the file is damaged. It is left as it is.
    StorageError
        If it can't be written.
    """
    annotations = read_annotations(layout)
    try:
        runfile.write(layout.annotations_yaml, {"schema": _SCHEMA, **annotations, **changes})
    except OSError as error:
        raise StorageError(f"cannot write {layout.annotations_yaml}: {error.strerror}") from error


def check_changes(texts: Mapping[str, str | None], tags: Iterable[str]) -> dict[str, Any]:
    """Return the fields to change; raises TypeError or ValueError if one is invalid."""
    changes: dict[str, Any] = {field: value for field, value in texts.items() if value is not KEEP}
    for field, value in changes.items():
        check_text(field, value)
    return changes if tags is KEEP else {**changes, "tags": check_tags(tags)}


def check_text(what: str, value: object) -> None:
    """Raise TypeError unless ``value`` is a str or None."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")


def check_tags(tags: Iterable[str]) -> list[str]:
    """Return tags without repetitions; raises TypeError if one is not a str, ValueError if one is empty."""
    if isinstance(tags, str):
        raise TypeError(f"tags must be a list of str, not one str; write [{tags!r}]")
    if isinstance(tags, Mapping) or not isinstance(tags, Iterable):
        raise TypeError(f"tags must be a list of str, not {type(tags).__name__}")
    unique = list(dict.fromkeys(tags))
    for tag in unique:
        if not isinstance(tag, str):
            raise TypeError(f"a tag must be a str, not {type(tag).__name__}")
        if not tag.strip():
            raise ValueError("a tag must not be empty")
    return unique
