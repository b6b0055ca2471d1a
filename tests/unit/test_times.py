"""Times as files of ours have them: one form, whoever writes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from shmlog.storage.times import rfc3339, timestamp, utc_now


def test_a_time_is_told_in_utc_with_microseconds() -> None:
    when = datetime(2026, 11, 21, 5, 15, 22, tzinfo=timezone(timedelta(hours=2)))
    assert rfc3339(when) == "2026-11-21T03:15:22.000000Z"


@pytest.mark.parametrize("ts_us", [0, 1, 1_795_231_522_000_001, -1])
def test_a_number_and_a_time_are_told_alike(ts_us: int) -> None:
    assert timestamp(ts_us) == rfc3339(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts_us))


def test_a_clock_that_was_nowhere_near_raises_nothing() -> None:
    assert timestamp(2**63) == "1970-01-01T00:00:00.775808Z"


def test_now_is_now() -> None:
    before, told, after = datetime.now(UTC), utc_now(), datetime.now(UTC)
    assert before <= datetime.fromisoformat(told) <= after
