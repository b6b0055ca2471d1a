"""Checks of what the caller passes."""

from __future__ import annotations

import operator
from typing import Any

MODES = ("min", "max")


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return an argument as an int; raises TypeError, or ValueError if it is out of range."""
    span = f"{least} or more" if most is None else f"{least} to {most}"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, {span}, not {value!r}") from None
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name} must be {span}, not {number}")
    return number


def metric_and_mode(value: Any) -> tuple[str, str]:
    """Return ``keep_best`` as a metric and ``"min"`` or ``"max"``; raises ValueError."""
    if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str) and value[1] in MODES:
        return value[0], value[1]
    raise ValueError(f"keep_best must be (metric, 'min') or (metric, 'max'), not {value!r}")
