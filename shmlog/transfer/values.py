"""Results as JSON has them: the places of the numbers that it lacks, and their fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from shmlog.base.plain import WORDS, word_of

Place = list[str | int]


def take_out(value: Any) -> list[Place]:
    """Put words in the place of NaN and infinities in plain dicts and lists; return the places."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    places: list[Place] = []
    for key, item in items:
        if isinstance(item, float) and not math.isfinite(item):
            value[key] = word_of(item)
            places.append([key])
        places += [[key, *place] for place in take_out(item)]
    return places


def restore(value: Any, words: object) -> None:
    """Put numbers in the place of words, at the places that `take_out` has returned.

    Raises
    ------
    ValueError
        If there is no such word at one of the places.
    """
    if not isinstance(words, list):
        raise ValueError("the places of NaN and infinities are not a list")
    for where in words:
        try:
            *path, last = where
            found = value
            for key in path:
                found = found[key]
            found[last] = WORDS[found[last]]
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
