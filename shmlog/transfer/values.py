"""NaN and infinities in JSON documents of results, and the fields of nested results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from shmlog.base.plain import WORDS, word_of

Place = list[str | int]


def take_out(value: Any) -> list[Place]:
    """Replace NaN and infinities in plain dicts and lists by words; return their places."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    places: list[Place] = []
    for key, item in items:
        if isinstance(item, float) and not math.isfinite(item):
            value[key] = word_of(item)
            places.append([key])
        places += [[key, *place] for place in take_out(item)]
    return places


def restore(value: Any, places: object) -> None:
    """Replace words by numbers again, at the places that `take_out` returned.

    Raises
    ------
    ValueError
        If one of the places holds no such word.
    """
    if not isinstance(places, list):
        raise ValueError("the places of NaN and infinities are not a list")
    for place in places:
        try:
            *path, last = place
            parent = value
            for key in path:
                parent = parent[key]
            parent[last] = WORDS[parent[last]]
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"no word for a number at {place!r}") from error


def flatten(result: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a result; those of a dict in it as ``"outer.inner"``."""
    for key, value in result.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value
