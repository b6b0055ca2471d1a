"""What a logged dict stands for: dicts within it are joined to its names, and None is left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shmlog.base.plain import DEPTH_MAX


def flatten(metrics: Mapping[str, Any], *, keeps_none: bool) -> tuple[dict[str, Any], list[str]]:
    """Return the values of a dict by name, joined by ``/``, and the names of those that are None.

    Raises
    ------
    TypeError
        If the name of a value within a dict is not a str.
    ValueError
        If two values have the same name, or a dict is nested more than 100 levels deep, or in itself.
    """
    flat: dict[str, Any] = {}
    skipped: list[str] = []
    for name, value in _values(metrics):
        if name in flat:
            raise ValueError(f"metric {name!r} has two values in one call: one of them stands in a dict of its own")
        if value is None and not keeps_none:
            skipped.append(name)
        else:
            flat[name] = value
    return flat, skipped


def _values(metrics: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    for name, value in metrics.items():
        if not isinstance(value, dict):
            yield name, value
            continue
        if depth == DEPTH_MAX:
            raise ValueError(f"metric {name!r}: its dict is nested more than {DEPTH_MAX} levels deep, or in itself")
        for inner, what in _values(value, depth + 1):
            if not isinstance(inner, str) or not isinstance(name, str):
                wrong = inner if isinstance(name, str) else name
                raise TypeError(f"the name of a metric must be a str, not {type(wrong).__name__}: {wrong!r}")
            yield f"{name}/{inner}", what
