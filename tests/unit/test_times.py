"""Times as files of ours have them: one form, whoever writes it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from shmlog.base.times import moment, parse_us, read_time, rfc3339, time_in_range, timestamp, utc_now


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


@pytest.mark.parametrize(
    "text",
    ["2026-11-21T05:15:22+02:00", "2026-11-21T03:15:22Z", "2026-11-21T03:15:22", "2026-11-21 03:15:22.000000"],
)
def test_a_text_is_read_as_a_time_in_utc(text: str) -> None:
    when = datetime(2026, 11, 21, 3, 15, 22, tzinfo=UTC)
    assert moment(text) == read_time(text) == when
    assert parse_us(text) == when.timestamp() * 1_000_000
    assert (read_time(text, needs_zone=True) is None) == (datetime.fromisoformat(text).tzinfo is None)


@pytest.mark.parametrize("value", [None, 20261121, 1.5, "", "yesterday", "0001-01-01T00:00:00+05:00", ["2026-11-21"]])
def test_what_is_no_time_is_read_as_none(value: object) -> None:
    assert read_time(value) is None
    assert parse_us(value) is None


def test_a_time_that_utc_has_no_year_for_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="9999"):
        moment("9999-12-31T23:00:00-05:00")


def test_microseconds_and_text_are_the_same_both_ways() -> None:
    first, last = -62_135_596_800_000_000, 253_402_300_799_999_999
    for ts_us in (first, -1, 0, 1_795_231_522_000_001, last):
        assert parse_us(timestamp(ts_us)) == ts_us
    assert time_in_range(first)
    assert time_in_range(last)
    assert not time_in_range(first - 1)
    assert not time_in_range(last + 1)
