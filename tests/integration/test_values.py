"""What is logged comes back exactly; what is not usable raises at once and changes nothing."""

from __future__ import annotations

import ctypes
import gc
import math
import multiprocessing
import re
import struct
from array import array
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shmlog
from tests.support.books import assert_books_balance
from tests.support.processes import wait_for_end

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
VALUES = st.one_of(st.floats(allow_nan=True), INT64, st.booleans(), TEXT)
CALLS = st.lists(
    st.tuples(st.one_of(st.tuples(NAMES, VALUES), st.dictionaries(NAMES, VALUES, max_size=12)), INT64), max_size=30
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[shmlog.Run]:
    with shmlog.init("values", root=tmp_path, sinks=("parquet", "jsonl")) as run:
        yield run


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[shmlog.Run]:
    """Return the run of all calls that change nothing."""
    with shmlog.init("refused", root=tmp_path_factory.mktemp("runs")) as run:
        yield run


def bits(value: Any) -> tuple[str, Any]:
    """Return a value with its kind, so that -0.0, NaN and 1, 1.0, True differ."""
    if isinstance(value, float):
        return "float", struct.pack("<d", value) if not math.isnan(value) else "NaN"
    return {bool: "bool", int: "int", str: "text"}[type(value)], value


def read_back(row: dict[str, Any]) -> tuple[str, Any]:
    kind = row["kind"]
    value = {"float": row["value"], "int": row["int_value"], "bool": bool(row["int_value"]), "text": row["text"]}[kind]
    return kind, bits(value)[1]


def by_seq(stored: shmlog.StoredRun) -> list[dict[str, Any]]:
    return sorted(stored.metrics().to_pylist(), key=lambda row: row["seq"])


@settings(max_examples=25)
@given(calls=CALLS)
def test_name_kind_value_and_step_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, calls: Any) -> None:
    expected = []
    with shmlog.init("exact", root=tmp_path_factory.mktemp("runs")) as run:
        for what, step in calls:
            if isinstance(what, dict):
                run.log(what, step=step)
                expected += [(name, step, bits(value)) for name, value in what.items()]
            else:
                run.log(*what, step=step)
                expected.append((what[0], step, bits(what[1])))
        assert run.flush()
        live = [(row["name"], row["step"], read_back(row)) for row in by_seq(shmlog.load(run.dir))]
        assert live == expected, "a live read must see what flush() has returned for"
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=len(expected))
    assert [(row["name"], row["step"], read_back(row)) for row in by_seq(stored)] == expected


def label(value: object) -> str:
    """Return what names a value in a test's id, without its address: workers compare the ids."""
    return re.sub(" at 0x[0-9a-f]+", "", repr(value))[:60]


NUMPY = [
    (np.float64(0.1), ("float", 0.1)),
    (np.float32(0.5), ("float", 0.5)),
    (np.float16(0.25), ("float", 0.25)),
    (np.longdouble(1.5), ("float", 1.5)),
    (np.int8(-3), ("int", -3)),
    (np.uint64(2**63 - 1), ("int", 2**63 - 1)),
    (np.bool_(True), ("bool", True)),
    (np.array(7), ("int", 7)),
    (np.array([2.5]), ("float", 2.5)),
    (np.str_("numpy"), ("text", "numpy")),
    (Decimal("1.5"), ("float", 1.5)),
]


@pytest.mark.parametrize(("value", "expected"), NUMPY, ids=label)
def test_scalars_of_numpy_and_others_are_values(run: shmlog.Run, value: Any, expected: tuple[str, Any]) -> None:
    run.log("x", value, step=np.int32(4))
    run.metric("x")(value, np.int64(4))
    run.log({"x": value}, step=4)
    assert run.flush()
    rows = shmlog.load(run.dir).metrics("x").to_pylist()
    assert [(row["kind"], row["step"]) for row in rows] == [(expected[0], 4)] * 3
    assert {read_back(row) for row in rows} == {bits(expected[1])}


class Bad:
    def __float__(self) -> float:
        raise ZeroDivisionError("in __float__")


BAD_VALUES = [
    ([1.0], TypeError),
    (b"bytes", TypeError),
    (1j, TypeError),
    (np.complex64(1), TypeError),
    (np.datetime64("2026-01-01"), TypeError),
    (np.arange(2), ValueError),
    (np.ma.masked, ValueError),
    (np.ma.masked_equal(3.0, 3.0), ValueError),
    (np.float64, TypeError),
    (object(), TypeError),
    (2**63, OverflowError),
    (-(2**63) - 1, OverflowError),
    (10**1000, OverflowError),
    ("\ud800", ValueError),
    (Bad(), ZeroDivisionError),
]
BAD_STEPS = [(1.0, TypeError), ("1", TypeError), (2**63, OverflowError), (math.nan, TypeError), ([1], TypeError)]
BAD_NAMES = [
    ("", ValueError),
    ("x" * 1025, ValueError),
    ("x" * 2**20, ValueError),
    ("\ud800", ValueError),
    (3, TypeError),
    (None, TypeError),
    (b"x", TypeError),
]


@pytest.mark.parametrize(("value", "error"), BAD_VALUES, ids=label)
def test_a_bad_value_raises_and_changes_nothing(one_run: shmlog.Run, value: Any, error: type[Exception]) -> None:
    before = one_run.stats
    fifty = {f"good{i}": 0.5 for i in range(49)}
    for call in (
        lambda: one_run.log("val_loss", value, step=1),
        lambda: one_run.metric("val_loss")(value, 1),
        lambda: one_run.log({**fifty, "val_loss": value}, step=1),
        lambda: one_run.log({"text": "x", "val_loss": value, **fifty}, step=1),
    ):
        with pytest.raises(error) as raised:
            call()
        assert names_the_metric(raised.value)
    assert one_run.stats["logged"] == before["logged"]
    assert sum(one_run.stats["dropped"].values()) == 0


def names_the_metric(error: Exception) -> bool:
    """Whether a message begins with the metric; an error that has a place in Python of its own has it as a note."""
    return str(error).startswith("metric 'val_loss': ") or getattr(error, "__notes__", []) == ["metric 'val_loss'"]


def test_a_bad_value_is_told_by_metric_and_type(run: shmlog.Run) -> None:
    with pytest.raises(TypeError, match=r"^metric 'val_loss': a value must be a float, .*, not list$"):
        run.log({"loss": 0.5, "val_loss": []}, step=1)
    with pytest.raises(OverflowError, match=r"^metric 'val_loss': an int value must fit in 64 bits"):
        run.log({"loss": 0.5, "val_loss": 2**63}, step=1)
    with pytest.raises(ValueError, match=r"^metric 'val_loss': can only convert an array of size 1"):
        run.metric("val_loss")(np.zeros(2))
    with pytest.raises(TypeError, match=r"^metric 'val_loss': values\[1\]: a value must be .*, not NoneType$"):
        run.metric("val_loss").extend([1.0, None])
    with pytest.raises(TypeError, match=r"^metric 'val_loss': steps\[0\]: step must be an int, not str$"):
        run.metric("val_loss").extend([1.0], steps=["a"])


def test_what_a_value_raises_in_python_keeps_its_place(run: shmlog.Run) -> None:
    class Value:
        def __float__(self) -> float:
            raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine") as raised:
        run.log({"val_loss": Value()}, step=1)
    assert names_the_metric(raised.value)
    assert raised.traceback[-1].name == "__float__"


def test_the_type_of_an_event_is_called_so(run: shmlog.Run) -> None:
    for event_type in ("", "x" * 1025):
        with pytest.raises(ValueError, match=r"^the type of an event must have 1 to 1024 bytes of UTF-8, not \d+"):
            run.event(event_type, {})
        with pytest.raises(ValueError, match=r"^the name of a metric must have 1 to 1024 bytes of UTF-8, not \d+"):
            run.log({"a": 1.0, event_type: 2.0})


@pytest.mark.parametrize(("step", "error"), BAD_STEPS, ids=repr)
def test_a_bad_step_raises_and_changes_nothing(one_run: shmlog.Run, step: Any, error: type[Exception]) -> None:
    before = one_run.stats["logged"]
    for call in (
        lambda: one_run.log("x", 1.0, step=step),
        lambda: one_run.metric("x")(1.0, step),
        lambda: one_run.log({"x": 1.0}, step),
    ):
        with pytest.raises(error):
            call()
    assert one_run.stats["logged"] == before


@pytest.mark.parametrize(("name", "error"), BAD_NAMES, ids=lambda value: f"{repr(value)[:20]} {len(repr(value))}")
def test_a_bad_name_raises_and_changes_nothing(one_run: shmlog.Run, name: Any, error: type[Exception]) -> None:
    before = one_run.stats["logged"]
    for call in (
        lambda: one_run.log(name, 1.0),
        lambda: one_run.metric(name),
        lambda: one_run.event(name, {}),
        lambda: one_run.log({name: 1.0}),
    ):
        with pytest.raises(error):
            call()
    assert one_run.stats["logged"] == before


@pytest.mark.parametrize("call", ["log()", "log('x')", "log('x', 1.0, 2, 3)", "log('x', 1.0, steps=2)", "log({}, 1, 2)",
                                  "metric('x')()", "metric('x')(1.0, 2, 3)", "metric('x')(1.0, s=2)"])  # fmt: skip
def test_a_wrong_call_raises_type_error(one_run: shmlog.Run, call: str) -> None:
    with pytest.raises(TypeError):
        eval(f"one_run.{call}")


# ---- arguments by keyword ----


def test_each_argument_can_be_given_by_name(run: shmlog.Run) -> None:
    run.log(name="loss", value=0.5, step=3)
    run.log("loss", value=True, step=4)
    run.log("loss", 7, step=5)
    run.log(value="text", name="loss")
    run.log(metrics={"loss": 0.25, "acc": 1}, step=6)
    shmlog.log(step=7, name="loss", value=0.5)
    run.metric("loss")(value=0.5, step=8)
    run.metric("loss").log(step=9, value=0.5)
    run.metric("loss").extend(steps=[10], values=[0.5])
    assert steps_of(run, "loss") == [0, 3, 4, 5, 6, 7, 8, 9, 10]


WRONG_CALLS = {
    "log('x', 1.0, value=2.0)": "the argument 'value' was given twice",
    "log('x', 1.0, 2, step=3)": "the argument 'step' was given twice",
    "log('x', 1.0, stpe=3)": "there is no argument 'stpe'",
    "log(name='x')": r"log\(\) takes \(name, value, step=None, \*, timestamp=None\)",
    "log(name={'x': 1.0})": r"log\(\) takes \(name, value, step=None, \*, timestamp=None\)",
    "log('x', metrics={'x': 1.0})": r"log\(\) takes \(name, value, step=None, \*, timestamp=None\)",
    "log({'x': 1.0}, value=1.0)": r"log\(\) takes \(name, value, step=None, \*, timestamp=None\)",
    "log(metrics=[1.0])": r"log\(\) takes \(name, value, step=None, \*, timestamp=None\)",
    "metric('x')(step=3)": r"a metric takes \(value, step=None, \*, timestamp=None\)",
    "metric('x')(1.0, value=2.0)": "the argument 'value' was given twice",
    "metric('x').extend([1.0], [2], [3])": r"a metric takes \(values, steps=None, \*, ts=None\)",
}


@pytest.mark.parametrize("call", WRONG_CALLS)
def test_a_wrong_argument_is_named(one_run: shmlog.Run, call: str) -> None:
    before = one_run.stats["logged"]
    with pytest.raises(TypeError, match=WRONG_CALLS[call]):
        eval(f"one_run.{call}")
    assert one_run.stats["logged"] == before


# ---- dicts in dicts, None ----


def rows_of(run: shmlog.Run) -> list[tuple[str, int, Any]]:
    assert run.flush()
    return [(row["name"], row["step"], read_back(row)[1]) for row in shmlog.load(run.dir).metrics().to_pylist()]


def test_names_of_nested_dicts_are_joined(run: shmlog.Run) -> None:
    run.log({"train": {"loss": 0.5, "top": {"1": True, "5": "good"}}, "lr": 1, "none": {}}, step=3)
    run.log("test", {"loss": np.float32(0.5)})
    run.log("nothing", {})
    half = bits(0.5)[1]
    assert sorted(rows_of(run)) == [
        ("lr", 3, 1),
        ("test/loss", 0, half),
        ("train/loss", 3, half),
        ("train/top/1", 3, True),
        ("train/top/5", 3, "good"),
    ]


def test_none_is_left_out_with_one_warning_a_name(run: shmlog.Run) -> None:
    none = run.metric("c")

    def log() -> None:
        for _ in range(3):
            run.log({"loss": 0.5, "a": None, "nested": {"b": None}})
            run.log("a", None)
            none(None)
            none.log(None, 3)

    with pytest.warns(shmlog.ShmlogWarning) as warned:
        log()
    told = sorted(str(w.message) for w in warned)
    assert [text.partition(":")[0] for text in told] == ["metric 'a'", "metric 'c'", "metric 'nested/b'"]
    assert {w.filename for w in warned} == {__file__}, "the user's own line is named"
    none(0.5)
    half = bits(0.5)[1]
    assert sorted(rows_of(run)) == [("c", 0, half), ("loss", 0, half), ("loss", 1, half), ("loss", 2, half)]
    assert run.stats["dropped"] == dict.fromkeys(run.stats["dropped"], 0), "it was not logged: there is no drop"


def test_none_is_an_error_in_a_strict_run(tmp_path: Path) -> None:
    with shmlog.init("strict", root=tmp_path, strict=True) as run:
        before = run.stats["logged"]
        for name, call in (
            ("val_loss", lambda: run.log({"loss": 0.5, "val_loss": None})),
            ("val_loss", lambda: run.log("val_loss", None)),
            ("val_loss", lambda: run.metric("val_loss")(None)),
            ("test/loss", lambda: run.log({"loss": 0.5, "test": {"loss": None}})),
        ):
            with pytest.raises(TypeError, match=f"^metric '{name}': a value must be a float, .*, not NoneType$"):
                call()
        assert run.stats["logged"] == before


WRONG_DICTS: list[tuple[Any, type[Exception], str]] = [
    ({"a": {"b": 1.0}, "a/b": 2.0}, ValueError, "metric 'a/b' has two values in one call"),
    ({"a": {0: 1.0}}, TypeError, "the name of a metric must be a str, not int: 0"),
    ({0: {"a": 1.0}}, TypeError, "the name of a metric must be a str, not int: 0"),
    ({"a": {"b": [1.0]}}, TypeError, "metric 'a/b': a value must be a float, .*, not list"),
    ({"a": {"b" * 1024: 1.0}}, ValueError, "the name of a metric must have 1 to 1024 bytes"),
]


@pytest.mark.parametrize(("metrics", "error", "text"), WRONG_DICTS)
def test_a_wrong_dict_raises_and_changes_nothing(
    one_run: shmlog.Run, metrics: Any, error: type[Exception], text: str
) -> None:
    before = one_run.stats["logged"]
    with pytest.raises(error, match=text):
        one_run.log(metrics)
    assert one_run.stats["logged"] == before


def test_what_comes_after_the_end_is_counted_value_by_value(tmp_path: Path) -> None:
    with shmlog.init("ended", root=tmp_path) as run:
        pass
    with pytest.warns(shmlog.ShmlogWarning, match="metric 'none'"):
        run.log({"a": {"b": 1.0, "c": 2.0}, "d": 3.0, "none": None})
    assert run.stats["dropped"]["closed"] == 3


STRANGE_NAMES = [
    "nul\0inside",
    "line\nbreak",
    "\x1b[31mred",
    "rtl\u202e",
    "\u2028",
    "\u00e9",
    "e\u0301",
    "a/b",
    "../x",
    "-x",
    "🙂",
    "x" * 1024,
]


def test_strange_names_stay_one_line_and_come_back(run: shmlog.Run) -> None:
    for name in STRANGE_NAMES:
        run.log(name, 1.0)
    assert run.flush()
    assert sorted(shmlog.load(run.dir).names()) == sorted(STRANGE_NAMES)
    run.finish()
    wait_for_end(run.dir)
    stored = shmlog.load(run.dir)
    assert sorted(stored.names()) == sorted(STRANGE_NAMES)
    lines = (run.dir / "events.jsonl").read_bytes().split(b"\n")
    assert len(lines) == len(STRANGE_NAMES) + 3  # start, end, and nothing behind the last line break


@pytest.mark.parametrize("size", [0, 8, 9, 24, 25, 1000, 300_000, 1 << 20])
def test_a_text_of_any_size_comes_back(run: shmlog.Run, size: int) -> None:
    text = ("äb\n\0" * size)[:size]
    run.log("text", text, step=1)
    run.metric("text")(text, 2)
    run.log({"text": text, "loss": 0.5}, step=3)
    run.event("large", {"text": text})
    run.info(text)
    assert run.flush()
    assert shmlog.load(run.dir).metrics("text")["text"].to_pylist() == [text] * 3
    run.finish()
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=4)
    assert stored.metrics("text")["text"].to_pylist() == [text] * 3
    assert stored.dropped == {}
    assert len(stored.events("large")) == len(stored.events("log")) == 1


def test_a_dict_of_ten_thousand_names_is_kept_whole(run: shmlog.Run) -> None:
    metrics = {f"name{i}": float(i) for i in range(10_000)}
    run.log(metrics, step=1)
    run.finish()
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=10_000)
    assert (
        dict(zip(stored.metrics()["name"].to_pylist(), stored.metrics()["value"].to_pylist(), strict=True)) == metrics
    )


def test_too_many_names_drop_and_count(run: shmlog.Run) -> None:
    for i in range(20_000):
        run.log(f"name{i}", float(i))
    run.finish()
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=20_000)
    assert stored.dropped["names"] == 20_000 - len(stored.names())
    assert len(stored.names()) > 16_000


def test_handles_of_names_without_room_are_not_kept(run: shmlog.Run) -> None:
    for i in range(20_000):
        run.metric(f"name{i}")
    handle = run.metric("one more")
    assert gc.get_referrers(handle) == []
    handle(1.0)
    assert run.stats["dropped"]["names"] == 1
    assert run.metric("name0") is run.metric("name0")


def steps_of(run: shmlog.Run, name: str) -> list[int]:
    assert run.flush()
    steps: list[int] = shmlog.load(run.dir).metrics(name)["step"].to_pylist()
    return steps


def test_omitted_steps_are_counted_by_name(run: shmlog.Run) -> None:
    first, second = run.metric("first"), run.metric("second")
    for _ in range(3):
        first(1.0)
        second(True)
        run.log("third", 1.0)
        run.log("second", 2.0)
        shmlog.log("third", "text")
    first.extend([1.0, 2.0])
    assert steps_of(run, "first") == [0, 1, 2, 3, 4]
    assert steps_of(run, "second") == steps_of(run, "third") == [0, 1, 2, 3, 4, 5]
    run.log({f"other{i}": i for i in range(200)})
    run.log("other199", 1)
    assert steps_of(run, "other0") == [0]
    assert steps_of(run, "other199") == [0, 1]


def test_a_dict_without_a_step_has_one_for_all_its_names(run: shmlog.Run) -> None:
    run.log({"loss": 0.5, "acc": 1})
    run.log({"loss": 0.5, "acc": np.float32(0.5)})
    run.log("loss", 0.5)
    run.metric("loss")(0.5)
    run.log({"acc": 0.5, "loss": 0.5})
    run.log("acc", 0.5)
    run.log({"acc": 0.5, "loss": 0.5})
    run.log({})
    assert steps_of(run, "loss") == [0, 1, 2, 3, 4, 6]
    assert steps_of(run, "acc") == [0, 1, 4, 5, 6]


def test_a_step_that_is_given_moves_no_count(run: shmlog.Run) -> None:
    run.log("loss", 0.5, step=7)
    run.log({"loss": 0.5, "acc": 0.5}, step=9)
    run.log("loss", 0.5)
    assert steps_of(run, "loss") == [0, 7, 9]


def test_a_call_that_is_refused_counts_no_step(run: shmlog.Run) -> None:
    loss = run.metric("loss")
    for call in (lambda: run.log("loss", []), lambda: run.log({"loss": 1.0, "acc": []}), lambda: loss([])):
        with pytest.raises(TypeError):
            call()
    run.log("loss", 0.5)
    assert steps_of(run, "loss") == [0]


def test_a_forked_child_counts_steps_from_zero(run: shmlog.Run) -> None:
    run.log({"loss": 0.5, "acc": 0.5})
    loss = run.metric("loss")

    def log() -> None:
        run.log("loss", 0.5)
        loss(0.5)
        run.log({"loss": 0.5, "acc": 0.5})

    child = multiprocessing.get_context("fork").Process(target=log)
    child.start()
    child.join()
    run.log("loss", 0.5)
    assert steps_of(run, "loss") == [0, 0, 1, 1, 2]
    assert steps_of(run, "acc") == [0, 2]


ARRAYS = [
    np.arange(5).astype(dtype) for dtype in ("f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
] + [
    np.arange(10.0)[::-2], [1.0, 2.0], [1, 2], range(5), (0.5,), np.array([]), [], [True, False],
    [0.5, 2**60 + 1, True], [np.float32(0.5), np.int64(2**60 + 1), np.True_], np.ma.array([1.0, 2.0], mask=False),
    (ctypes.c_double * 3)(1.0, 2.0, 3.0), multiprocessing.RawArray("q", [1, 2, 3]), array("f", [0.5]),
]  # fmt: skip


@pytest.mark.parametrize("values", ARRAYS, ids=label)
def test_extend_logs_arrays_element_by_element(run: shmlog.Run, values: Any) -> None:
    run.metric("x").extend(values, steps=np.arange(len(values))[::-1])
    assert run.flush()
    rows = by_seq(shmlog.load(run.dir))
    plain = [value.item() if isinstance(value, np.generic) else value for value in values]
    assert [read_back(row) for row in rows] == [bits(value) for value in plain]
    assert [row["step"] for row in rows] == list(range(len(values)))[::-1]


def test_extend_of_more_than_a_lane_arrives_whole(run: shmlog.Run) -> None:
    values = np.random.default_rng(0).standard_normal(70_000)
    run.metric("x").extend(values)
    run.finish()
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=len(values))
    assert np.array_equal(stored.metrics("x")["value"].to_numpy(), values)


BAD_ARRAYS = [
    ("text", TypeError), (b"bytes", TypeError), (3.0, TypeError), (np.zeros((2, 2)), ValueError),
    (np.array([1j]), TypeError), (np.array(["a"]), TypeError), ([1.0, "x"], TypeError), ([1, 2**63], OverflowError),
    (np.array([2**64 - 1], "u8"), OverflowError), (np.ma.array([1.0, 2.0], mask=[False, True]), ValueError),
    ([1.0, np.ma.masked], ValueError), ([1.0, None], TypeError),
]  # fmt: skip


@pytest.mark.parametrize(("values", "error"), BAD_ARRAYS, ids=label)
def test_a_bad_array_raises_and_changes_nothing(one_run: shmlog.Run, values: Any, error: type[Exception]) -> None:
    before = one_run.stats["logged"]
    with pytest.raises(error):
        one_run.metric("x").extend(values)
    with pytest.raises(ValueError, match="3 values but 2 steps"):
        one_run.metric("x").extend([1.0, 2.0, 3.0], steps=[1, 2])
    with pytest.raises(TypeError):
        one_run.metric("x").extend([1.0], steps=[1.5])
    assert one_run.stats["logged"] == before


def test_a_value_whose_float_logs_itself_is_no_trouble(run: shmlog.Run) -> None:
    class Nested:
        def __float__(self) -> float:
            run.log("inner", 1.0, step=1)
            return 2.0

    run.log("outer", Nested(), step=2)
    run.log({"a": 1.0, "outer": Nested()}, step=3)
    assert run.flush()
    assert [row["name"] for row in by_seq(shmlog.load(run.dir))] == ["inner", "outer", "inner", "a", "outer"]


def test_event_data_is_converted(run: shmlog.Run) -> None:
    run.event("data", {"path": Path("a/b"), "array": np.arange(3), "nan": math.nan, "inf": [math.inf, -math.inf],
                       1: {2}, "scalar": np.float32(0.5), "text": "\u2028\ud800"})  # fmt: skip
    assert run.flush()
    event = shmlog.load(run.dir).events("data")[0]
    assert event["data"] == {
        "path": "a/b", "array": [0, 1, 2], "nan": "NaN", "inf": ["Infinity", "-Infinity"], "1": [2], "scalar": 0.5,
        "text": "\u2028\ud800",
    }  # fmt: skip


def test_an_event_of_2_gib_is_refused(run: shmlog.Run) -> None:
    before = run.stats["logged"]
    with pytest.raises(ValueError, match="the most is 2 GiB"):
        run._put_event("x", bytes(2**31))  # which takes no memory: nobody touches it
    assert run.stats["logged"] == before


def test_arguments_of_another_type_and_no_time_are_refused(run: shmlog.Run) -> None:
    before = run.stats["logged"]
    with pytest.raises(TypeError, match="takes an exception or a text, not int"):
        run.log_error(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="log_progress: current must be a number, not str"):
        run.log_progress("a", 10)  # type: ignore[arg-type]
    run.log_progress(np.int64(3), np.float32(10))
    assert run.stats["logged"] == before + 1
    before += 1
    for config in ("text", [1], 3):
        with pytest.raises(TypeError, match="config must be a mapping, a Namespace or a dataclass, not"):
            run.log_config(config)
    with pytest.raises(ValueError, match="NaN"):
        run.flush(math.nan)
    assert run.stats["logged"] == before


def test_event_data_that_is_nested_in_itself_is_refused(run: shmlog.Run) -> None:
    data: dict[str, Any] = {}
    data["self"] = data
    with pytest.raises(ValueError, match="nested"):
        run.event("data", data)
    with pytest.raises(TypeError):
        run.event("data", [1])  # type: ignore[arg-type]


@pytest.mark.parametrize("argument", [{"lanes": 0}, {"lanes": "4"}, {"lane_records": 1 << 40}, {"clock": "sundial"}])
def test_an_argument_that_is_not_usable_makes_nothing(argument: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=next(iter(argument))):
        shmlog.init("nothing", root=tmp_path / "runs", **argument)
    assert not (tmp_path / "runs").exists()


def test_a_dict_within_itself_is_refused_by_name(tmp_path: Path) -> None:
    losses: dict[str, Any] = {"a": 1.0}
    losses["inner"] = losses
    with shmlog.init("values", root=tmp_path) as run:
        with pytest.raises(
            ValueError, match="metric 'inner': its dict is nested more than 100 levels deep, or in itself"
        ):
            run.log({"loss": losses})
        run.log("b", 1.0)
    assert shmlog.load(run.dir).names() == ["b"]
