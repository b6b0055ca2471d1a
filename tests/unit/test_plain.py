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

import shmlog
from shmlog import results
from shmlog.base import plain as plain_module
from shmlog.base.plain import DEPTH_MAX, WORDS, dumps, from_word, plain, word_of
from shmlog.types import register_type


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


# ---- types of the user ----


class Model:
    def __init__(self, layers: int = 2) -> None:
        self.layers = layers


class Child(Model):
    pass


class Shape(dict[str, int]):
    pass


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_module, "_to_plain", {})
    register_type(Model, lambda model: {"layers": np.int64(model.layers), "at": Path("x")})
    register_type(Shape, lambda shape: "x".join(map(str, shape.values())))


@pytest.mark.usefixtures("registered")
def test_types_that_are_registered_are_converted_everywhere(tmp_path: Path) -> None:
    shape = Shape(a=2, b=3)
    expected = {"layers": 2, "at": "x"}
    with shmlog.init("types", root=tmp_path, config={"model": Model()}) as run:
        run.event("e", {"model": [Child()], "shape": shape})
        run.log_dict({"model": Model()}, "a.json")
    stored = shmlog.load(run.dir)
    assert stored.config == {"model": expected}
    assert stored.events("e")[0]["data"] == {"model": [expected], "shape": "2x3"}
    assert json.loads(stored.artifact("a.json").path.read_text()) == {"model": expected}
    results.export_results_json([{"model": Model()}], tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["results"] == [{"model": expected}]


def test_default_converts_results(tmp_path: Path) -> None:
    made = [{"model": Model(3), "loss": 0.5}]
    for export in (results.export_results_json, results.export_results_csv):
        with pytest.raises(TypeError, match="JSON has nothing for a Model"):
            export(made, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    results.export_results_json(made, tmp_path / "r.json", default=vars)
    assert json.loads((tmp_path / "r.json").read_text())["results"] == [{"model": {"layers": 3}, "loss": 0.5}]
    results.export_results_csv(made, tmp_path / "r.csv", default=vars)
    assert (tmp_path / "r.csv").read_text().splitlines() == ['"loss","model.layers"', "0.5,3"]
    with pytest.raises(ValueError, match="nested more than 100 levels deep"):
        results.export_results_json(made, tmp_path / "no", default=lambda value: value)


def test_no_address_is_written_and_a_warning_names_the_type_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_module, "_told", set())
    with pytest.warns(shmlog.ShmlogWarning) as warned:
        text = dumps({"model": [Model(), Model()], "call": dumps, "1j": 1j})
    assert b"0x" not in text
    assert json.loads(text)["model"] == [f"<{__name__}.Model object>"] * 2
    assert [w.filename for w in warned] == [__file__] * 2
    assert "register_type(Model, to_plain)" in str(warned[0].message)


@pytest.mark.parametrize(("cls", "to_plain"), [(3, str), (dict, str), (object, str), (Model, "text")])
def test_what_is_not_a_type_of_the_user_is_not_registered(cls: Any, to_plain: Any) -> None:
    with pytest.raises(TypeError, match=r"register_type\(\) takes a class|to_plain must be callable"):
        register_type(cls, to_plain)
