"""Filter the runs of a store, and sort them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from shmlog.base.times import moment
from shmlog.errors import QueryError
from shmlog.folder.status import RunStatus
from shmlog.reader.model import RunRecord
from shmlog.store.tagquery import parse_tags
from shmlog.store.where import MISSING, Subject, check_known, parse_field, parse_where

_SPAN = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_OLDEST = datetime.min.replace(tzinfo=UTC)

Test = Callable[[Subject], bool]
Moment = str | datetime | timedelta


def tests_of(
    status: str | Iterable[str] | None, tags: str | Iterable[str] | None, where: str | None,
    since: Moment | None, until: Moment | None, *, group: str | None,
) -> list[Test]:  # fmt: skip
    """Return the tests that a run must meet, the cheapest first; raises QueryError."""
    tests: list[Test] = []
    if status is not None:
        statuses = _statuses(status)
        tests.append(lambda subject: subject.record.status in statuses)
    if since is not None:
        first = to_moment("since", since)
        tests.append(lambda subject: _began(subject.record) >= first)
    if until is not None:
        end = to_moment("until", until)
        tests.append(lambda subject: _began(subject.record) < end)
    if not isinstance(group, str | None):
        raise TypeError(f"group must be a str, not {type(group).__name__}")
    if group is not None:
        tests.append(lambda subject: subject.record.group == group)
    if tags is not None:
        has_tags = parse_tags(tags)
        tests.append(lambda subject: has_tags(subject.record.tags))
    if where is not None:
        tests.append(parse_where(where))
    return tests


def _statuses(words: str | Iterable[str]) -> set[RunStatus]:
    if not isinstance(words, Iterable):
        raise TypeError(f"status must be a str, or a list of them, not {type(words).__name__}")
    try:
        return {RunStatus.parse(word) for word in ([words] if isinstance(words, str) else words)}
    except ValueError as error:
        raise QueryError(str(error)) from error


def _began(record: RunRecord) -> datetime:
    return record.began_at or _OLDEST


def sort_subjects(subjects: list[Subject], by: str | None, all_subjects: list[Subject]) -> list[Subject]:
    """Return runs in the order of a field, descending if it begins with ``-``; newest first without one.

    Runs that lack the field come last. Raises QueryError if ``all_subjects`` lacks it.
    """
    newest = sorted(subjects, key=lambda subject: (_began(subject.record), subject.record.run_id), reverse=True)
    if by is None:
        return newest
    if not isinstance(by, str):
        raise TypeError(f"sort must be a str, such as 'lr' or '-metrics.loss.min', not {type(by).__name__}")
    name = by.removeprefix("-")
    field = parse_field(name)
    pairs = [(field(subject), subject) for subject in newest]
    if all(value is MISSING for value, _ in pairs):
        check_known("sort", [name], all_subjects)
    sortable = [pair for pair in pairs if pair[0] is not MISSING and pair[0] is not None and pair[0] == pair[0]]
    sortable.sort(key=lambda pair: _rank(pair[0]), reverse=by.startswith("-"))
    sortable_ids = {id(subject) for _, subject in sortable}
    return [subject for _, subject in sortable] + [subject for subject in newest if id(subject) not in sortable_ids]


def _rank(value: Any) -> tuple[str, Any]:
    """Return a key that orders values of one kind, and keeps kinds apart."""
    if isinstance(value, (bool, int, float)):
        return "number", value
    return type(value).__name__, value if isinstance(value, (str, datetime)) else str(value)


def to_moment(what: str, value: Moment) -> datetime:
    """Return the time that ``value`` means: a datetime, RFC 3339, or a span before now such as ``"30d"``.

    Raises
    ------
    QueryError
        If it is not a time.
    """
    if isinstance(value, timedelta):
        return datetime.now(UTC) - value
    try:
        if isinstance(value, str) and _SPAN.fullmatch(value):
            return datetime.now(UTC) - to_span(what, value)
        return moment(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise QueryError(
            f"{what}: {value!r:.60} is not a time; write 2026-11-21, 2026-11-21T03:15:00Z or 30d"
        ) from error


def to_span(what: str, value: str | timedelta) -> timedelta:
    """Return a time span such as ``"30d"``; units are s, m, h, d and w. Raises QueryError."""
    if isinstance(value, timedelta):
        return value
    match = _SPAN.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise QueryError(f"{what}: {value!r:.60} is not a time span; write 30d, 12h or 2w")
    return timedelta(**{_UNITS[match[2]]: float(match[1])})


def matching(subjects: Iterable[Subject], tests: list[Test]) -> Iterator[Subject]:
    """Yield the runs that meet all tests."""
    return (subject for subject in subjects if all(test(subject) for test in tests))
