"""What users put into results, as JSON has it, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from pathlib import PurePath
from typing import Any

DEPTH_MAX = 100

_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

Keys = list[str | int]


def word_of(value: float) -> str:
    """Return the word for a number that JSON can't hold."""
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def plain(value: Any, words: list[Keys] | None = None, where: Keys | None = None) -> Any:
    """Return ``value`` as dicts, lists, str, int, float, bool and None.

    Numpy scalars and arrays become numbers and lists, whichever version of numpy there is.

    Parameters
    ----------
    words : list, optional
        NaN and infinities become words, and the place of each is added here. Without it
        they stay floats.
    where : list, optional
        The place of ``value``.

    Raises
    ------
    TypeError
        If JSON has nothing for it.
    ValueError
        If it is nested more than 100 levels deep, or two keys become one.
    """
    where = where or []
    if len(where) > DEPTH_MAX:
        raise ValueError(f"nested more than {DEPTH_MAX} levels deep")
    value = value.tolist() if not isinstance(value, (list, dict)) and hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {key: plain(item, words, [*where, key]) for key, item in _items(value, where)}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [plain(item, words, [*where, i]) for i, item in enumerate(items)]
    return _scalar(value, words, where)


def _items(value: Mapping[Any, Any], where: Keys) -> Iterator[tuple[str, Any]]:
    seen = set()
    for key, item in value.items():
        text = key if type(key) is str else str(key)
        if text in seen:
            raise ValueError(f"{_path(where)}: two keys are {text!r} as text")
        seen.add(text)
        yield text, item


def _scalar(value: Any, words: list[Keys] | None, where: Keys) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value) or words is None:
            return float(value)
        words.append(where)
        return word_of(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{_path(where)}: JSON has nothing for a {type(value).__name__}")


def _path(where: Keys) -> str:
    return "results" + "".join(f"[{key!r}]" for key in where)


def restore(value: Any, words: object) -> None:
    """Put numbers in the place of words, at the places that `plain` has told.

    Raises
    ------
    ValueError
        If there is no such word at one of the places.
    """
    if not isinstance(words, list):
        raise ValueError("the places of NaN and infinities are no list")
    for where in words:
        try:
            *path, last = where
            found = value
            for key in path:
                found = found[key]
            found[last] = _WORDS[found[last]]
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"no word for a number at {where!r}") from error


def flatten(result: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a result; those of a dict in it as ``"outer.inner"``."""
    for key, value in result.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value
