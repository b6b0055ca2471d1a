"""Python objects to strict JSON on one line."""

from __future__ import annotations

import enum
import json
import math
import os
import sys
from collections.abc import Mapping
from typing import Any

DEPTH_MAX = 100


def to_plain(value: Any, depth: int = 0) -> Any:
    """Return ``value`` as dicts, lists, str, int, float, bool and None.

    numpy and torch scalars and arrays, paths, dates, enums, dataclasses, sets
    and namespaces are converted; NaN and infinities become the strings
    ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``; what is left becomes ``repr(value)``.

    Raises
    ------
    ValueError
        If it is nested more than 100 levels deep, or in itself.
    """
    if depth > DEPTH_MAX:
        raise ValueError(f"nested more than {DEPTH_MAX} levels deep, or in itself")
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, enum.Enum):
        return to_plain(value.value, depth + 1)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _finite(float(value))
    if isinstance(value, Mapping):
        return {_key(k): to_plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(v, depth + 1) for v in value]
    return _foreign(value, depth)


def _finite(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str(key)
    plain = to_plain(key)
    return plain if isinstance(plain, str) else json.dumps(plain)


def _foreign(value: Any, depth: int) -> Any:
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    datetime: Any = sys.modules.get("datetime")  # slow to import, and there if one was made
    if datetime is not None and isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return str(value.isoformat())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    dataclasses: Any = sys.modules.get("dataclasses")  # the same
    if dataclasses is not None and dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name), depth + 1) for f in dataclasses.fields(value)}
    tolist = getattr(value, "tolist", None)  # numpy and torch: scalars and arrays
    if tolist is not None and not isinstance(value, type):
        converted = tolist()
        return repr(value) if converted is value else to_plain(converted, depth + 1)
    if type(value).__name__ == "Namespace" and hasattr(value, "__dict__"):
        return to_plain(vars(value), depth + 1)
    return repr(value)


def dumps(data: Mapping[str, Any]) -> bytes:
    r"""Return ``data`` as one line of strict JSON in UTF-8.

    Lone surrogates are kept as ``\udXXX`` escapes, and every character that
    some reader takes for a line break is escaped.

    Raises
    ------
    TypeError
        If ``data`` is no mapping.
    ValueError
        If it is nested too deeply.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"the data of an event must be a dict, not {type(data).__name__}")
    return json.dumps(to_plain(data), allow_nan=False, separators=(",", ":")).encode("ascii")
