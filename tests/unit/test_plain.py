"""Python objects as JSON has them: one way for configs, events, results, files and the command line."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shmlog.base.plain import DEPTH_MAX, WORDS, dumps, from_word, plain, word_of


class Color(enum.Enum):
    RED = "red"


class Text(str, enum.Enum):  # noqa: UP042, what programs have that are older than StrEnum
    ONE = "one"


@dataclasses.dataclass
class Point:
    x: int
    y: Any


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Color.RED, "red"), (Text.ONE, "one"), (Path("a/b"), "a/b"),
        (b"\x01\xff", "01ff"), (date(2026, 11, 21), "2026-11-21"),
        (datetime(2026, 11, 21, tzinfo=UTC), "2026-11-21T00:00:00+00:00"), (Point(1, {2}), {"x": 1, "y": [2]}),
        (np.float64(0.5), 0.5), (np.arange(3), [0, 1, 2]), (np.bool_(True), True), ({3, 1, 2}, [1, 2, 3]),
        (argparse.Namespace(lr=0.1), {"lr": 0.1}),
        ({1: "a", None: "b", Color.RED: "c"}, {"1": "a", "null": "b", "red": "c"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("unknown", [repr, None])
def test_what_programs_hold_is_converted(value: Any, expected: Any, unknown: Callable[[Any], Any] | None) -> None:
    converted = plain(value, unknown)
    assert converted == expected
    assert type(converted) is type(expected)


def test_what_json_lacks_becomes_what_was_asked_for_or_is_refused_with_its_place() -> None:
    value = {"a": [0, {"b": 1 + 2j}]}
    assert plain(value) == {"a": [0, {"b": "(1+2j)"}]}
    assert plain(value, type) == {"a": [0, {"b": complex}]}
    with pytest.raises(TypeError, match=r"^config\['a'\]\[1\]\['b'\]: JSON has nothing for a complex$"):
        plain(value, None, name="config")
    with pytest.raises(ValueError, match=r"\['a'\]: two keys are '1' as text"):
        plain({"a": {1: "x", "1": "y"}}, None)


def test_a_number_and_its_word_are_the_same_both_ways() -> None:
    for word, number in WORDS.items():
        assert word_of(number) == word
        assert from_word(word) == number or (math.isnan(from_word(word)) and math.isnan(number))
        assert plain([number]) == [word]
        assert json.loads(dumps({"x": number})) == {"x": word}
    assert math.isnan(plain(math.nan, words=False))
    assert from_word("infinity") == "infinity"


def test_the_depth_is_limited_at_one_place() -> None:
    value: Any = 1
    for _ in range(DEPTH_MAX):
        value = [value]
    assert plain(value, None)
    with pytest.raises(ValueError, match="100 levels"):
        plain([value])
