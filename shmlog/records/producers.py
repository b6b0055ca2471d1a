"""The producers that the books of a run list, as JSON; of very many, old ones are folded.

Without that, a run of some 200,000 workers would have a run.yaml that is too large to be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from shmlog.records.lanes import Lane

LISTED_MAX = 16_384
"""Most producers in a list, as long as fewer than half as many lanes are used. They take some 5 MB of run.yaml."""

_TENANCIES = "tenancies"


def read_producers(value: object) -> list[dict[str, Any]] | None:
    """Return the producers that a file of ours lists; None if that is not a list of producers."""
    if not isinstance(value, list) or not all(map(_is_producer, value)):
        return None
    return value


def _is_producer(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("dropped"), dict):
        return False
    numbers = [entry.get("node", 0), *(entry.get(name) for name in ("lane", "tenancy", "metrics", "events"))]
    numbers += [entry.get(_TENANCIES, 1), *entry["dropped"].values()]
    return all(type(n) is int and n >= 0 for n in numbers)


def is_folded(producer: dict[str, Any]) -> bool:
    """Whether an entry stands for all producers of its lane up to its tenancy."""
    return _TENANCIES in producer


def fold(producers: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return producers in the order of lane and tenancy, and the oldest of each lane as one if there are very many.

    If they are more than `LISTED_MAX`, each lane has its share of that number. Its oldest producers become one
    entry, of the highest tenancy among them, with the number of them as ``tenancies``, and the sums of their counts.
    What they do not have in common is None.
    """
    listed = sorted(producers, key=lambda producer: (Lane.of_producer(producer), producer["tenancy"]))
    if len(listed) <= LISTED_MAX:
        return listed
    lanes = [list(of_lane) for _, of_lane in groupby(listed, Lane.of_producer)]
    share = max(2, LISTED_MAX // len(lanes))  # with the folded one
    return [producer for of_lane in lanes for producer in _fold_oldest(of_lane, share)]


def _fold_oldest(of_lane: list[dict[str, Any]], share: int) -> list[dict[str, Any]]:
    count = len(of_lane) - share + 1
    return [_sum(of_lane[:count]), *of_lane[count:]] if count > 1 else of_lane


def _sum(producers: list[dict[str, Any]]) -> dict[str, Any]:
    latest = producers[-1]
    return {
        **{key: value if all(p.get(key) == value for p in producers) else None for key, value in latest.items()},
        "tenancy": latest["tenancy"],
        _TENANCIES: sum(producer.get(_TENANCIES, 1) for producer in producers),
        "metrics": sum(producer["metrics"] for producer in producers),
        "events": sum(producer["events"] for producer in producers),
        "dropped": sum_dropped(producers),
    }


def sum_dropped(producers: Iterable[dict[str, Any]], unlaned: dict[str, int] | None = None) -> dict[str, int]:
    """Return the drops of all producers by reason."""
    total = Counter(unlaned or {})
    for producer in producers:
        total.update(producer["dropped"])
    return dict(total)
