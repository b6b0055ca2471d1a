"""Times that calls give for their records come back exactly, from every file, and order the records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shmlog
from shmlog.run.timestamps import time_us
from tests.support.books import assert_books_balance
from tests.support.processes import wait_for_end

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
WHEN = datetime(2019, 5, 4, 12, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[shmlog.Run]:
    with shmlog.init("times", root=tmp_path) as run:
        yield run


def times_of(run: shmlog.Run, name: str) -> list[datetime]:
    times: list[datetime] = shmlog.load(run.dir).metrics(name)["ts"].to_pylist()
    return times


@pytest.mark.parametrize("sinks", [("parquet",), ("jsonl",)])
@pytest.mark.parametrize("clock", ["auto", "monotonic"])
def test_given_times_come_back_from_each_file(tmp_path: Path, sinks: tuple[str, ...], clock: str) -> None:
    long, huge = "a text of more than eight bytes", "x" * (1 << 20)
    with shmlog.init("times", root=tmp_path, sinks=sinks, clock=clock) as run:
        calls = (
            lambda when: run.log("x", 0.5, step=1, timestamp=when),
            lambda when: run.log("x", 1, timestamp=when),
            lambda when: run.log({"x": True, "y": long}, step=2, timestamp=when),
            lambda when: run.log({"x": {"y": 2}, "x": 3}, timestamp=when),  # noqa: F601
            lambda when: run.log({"x": "short", "y": huge}, step=3, timestamp=when),
            lambda when: run.log(metrics={"x": 0.5}, timestamp=when),
            lambda when: run.metric("x")(0.5, 4, timestamp=when),
            lambda when: run.metric("x").log(long, timestamp=when),
            lambda when: run.metric("x")(value=huge, timestamp=when),
            lambda when: run.metric("x").extend([0.5], ts=[when]),
            lambda when: run.metric("x").extend([1], steps=[5], ts=[when]),
            lambda when: shmlog.log("x", 0.5, timestamp=when),
        )
        expected = [WHEN + 1000 * number * US for number in range(len(calls))]
        for call, when in zip(calls, expected, strict=True):
            call(when)
        assert run.flush()
        assert sorted(times_of(run, "x")) == expected, "from the log"
    wait_for_end(run.dir)
    assert sorted(times_of(run, "x")) == expected
    assert_books_balance(run.dir, offered=len(calls) + 2)


def test_records_without_a_time_keep_that_of_their_call(run: shmlog.Run) -> None:
    before = datetime.now(UTC)
    run.log("x", 0.5, timestamp=None)
    run.log("x", 0.5, timestamp=WHEN)
    run.log({"x": 0.5, "y": 1.5}, step=2)
    run.metric("x").extend([0.5], ts=None)
    assert run.flush()
    first, given, *others = times_of(run, "x")
    assert given == WHEN
    slack = timedelta(seconds=5)
    assert all(before - slack < when < datetime.now(UTC) + slack for when in (first, *others))


def test_records_are_ordered_by_their_times(run: shmlog.Run) -> None:
    loss = run.metric("loss")
    for day in (3, 1, 2):
        run.log("loss", float(day), step=0, timestamp=WHEN + timedelta(days=day))
    loss.extend([30.0, 10.0, 20.0], steps=[1, 1, 1], ts=[300, 100, 200])
    assert run.flush()
    live = shmlog.load(run.dir).metrics("loss")["value"].to_pylist()
    run.finish()
    wait_for_end(run.dir)
    assert live == shmlog.load(run.dir).metrics("loss")["value"].to_pylist() == [1.0, 2.0, 3.0, 10.0, 20.0, 30.0]


CEST = timezone(timedelta(hours=2))
TIMES: list[tuple[Any, datetime]] = [
    (WHEN, WHEN),
    (WHEN.astimezone(CEST), WHEN),
    (datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)),
    (datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
    (0, EPOCH),
    (-1, EPOCH - timedelta(seconds=1)),
    (1_556_973_000, WHEN.replace(microsecond=0)),
    (np.int32(1_556_973_000), WHEN.replace(microsecond=0)),
    (1_556_973_000.123456, WHEN),
    (np.float64(1_556_973_000.123456), WHEN),
    (Decimal("1556973000.123456"), WHEN),
    (np.array(0.25), EPOCH + 250_000 * US),
    (0.0000004, EPOCH),
    (np.datetime64("2019-05-04T12:30:00.123456"), WHEN),
    (np.datetime64("2019-05-04T12:30:00.123456789"), WHEN),
    (pd.Timestamp(WHEN), WHEN),
]


@pytest.mark.parametrize(("given", "expected"), TIMES)
def test_whatever_names_a_time_is_taken(run: shmlog.Run, given: Any, expected: datetime) -> None:
    run.log("x", 0.5, timestamp=given)
    run.metric("x").extend([0.5, 0.5], ts=[given, given])
    assert run.flush()
    assert times_of(run, "x") == [expected] * 3


@given(st.datetimes(timezones=st.just(UTC)))
def test_each_datetime_is_kept_to_the_microsecond(when: datetime) -> None:
    assert EPOCH + time_us(when) * US == when


@given(st.integers(-(2**31), 2**32), st.integers(0, 999_999))
def test_seconds_are_those_of_time_time(seconds: int, us: int) -> None:
    when = EPOCH + timedelta(seconds=seconds, microseconds=us)
    assert EPOCH + time_us(when.timestamp()) * US == when


SERIES = pd.Series(pd.to_datetime(["2019-05-04", "2019-05-05"], utc=True))
COLUMNS: list[Any] = [
    SERIES,
    SERIES.dt.tz_localize(None),
    pd.DatetimeIndex(SERIES),
    SERIES.dt.tz_localize(None).to_numpy(),
    SERIES.dt.tz_localize(None).to_numpy().astype("datetime64[D]"),
    [1_556_928_000, 1_557_014_400],
    (1_556_928_000.0, np.float32(1_557_014_400)),
    np.array([1_556_928_000.0, 1_557_014_400.0]),
    iter([1_556_928_000, datetime(2019, 5, 5, tzinfo=UTC)]),
]


@pytest.mark.parametrize("column", COLUMNS, ids=[type(column).__name__ + str(i) for i, column in enumerate(COLUMNS)])
def test_extend_takes_times_as_people_have_them(run: shmlog.Run, column: Any) -> None:
    run.metric("x").extend(np.array([1, 2]), ts=column)
    assert run.flush()
    assert times_of(run, "x") == [datetime(2019, 5, 4, tzinfo=UTC), datetime(2019, 5, 5, tzinfo=UTC)]


WRONG_TIMES: list[tuple[Any, type[Exception], str]] = [
    (datetime(2019, 5, 4), ValueError, "has no zone: local time is"),
    ("2019-05-04", TypeError, "must be a datetime or seconds since 1970, not str"),
    (True, TypeError, "not bool"),
    (timedelta(1), TypeError, "not timedelta"),
    (1_556_973_000_123, ValueError, "counts in seconds since 1970"),
    (float("nan"), ValueError, "timestamp nan is not a time"),
    (float("-inf"), ValueError, "timestamp -inf is not a time"),
    (np.datetime64("NaT"), ValueError, "years 1 to 9999"),
    (10**400, ValueError, "years 1 to 9999"),
]


@pytest.mark.parametrize(("wrong", "error", "text"), WRONG_TIMES)
def test_a_wrong_time_raises_and_changes_nothing(
    run: shmlog.Run, wrong: Any, error: type[Exception], text: str
) -> None:
    before, metric = run.stats["logged"], run.metric("x")
    for call in (
        lambda: run.log("x", 0.5, timestamp=wrong),
        lambda: run.log({"x": 0.5, "y": 1}, step=1, timestamp=wrong),
        lambda: metric(0.5, 1, timestamp=wrong),
    ):
        with pytest.raises(error, match=text):
            call()
    with pytest.raises(error, match=rf"^ts\[1\]: .*{text}.*\nmetric 'x'$"):
        metric.extend([0.5, 0.5], ts=[0, wrong])
    assert run.stats["logged"] == before
    run.log("x", 0.5)
    assert run.flush()
    assert shmlog.load(run.dir).metrics("x")["step"].to_pylist() == [0], "no step was counted"


def test_a_wrong_column_of_times_raises_and_changes_nothing(run: shmlog.Run) -> None:
    before, metric = run.stats["logged"], run.metric("x")
    for column, error, text in (
        ([1, 2, 3], ValueError, "2 values but 3 times"),
        (5, TypeError, "ts must be an array or sequence of times, not int"),
        ("ab", TypeError, "ts must be an array or sequence of times, not str"),
        (np.array(["2019-05-04", "NaT"], "datetime64[s]"), ValueError, r"ts\[1\]: .* years 1 to 9999"),
    ):
        with pytest.raises(error, match=text) as raised:
            metric.extend([0.5, 0.5], ts=column)
        assert "metric 'x'" in (str(raised.value).partition(":")[0], *getattr(raised.value, "__notes__", []))
    with pytest.raises(TypeError, match="a metric takes"):
        metric(0.5, 1, WHEN)
    with pytest.raises(TypeError, match="log\\(\\) takes"):
        run.log("x", 0.5, 1, WHEN)
    assert run.stats["logged"] == before
