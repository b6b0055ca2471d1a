"""Expressions that choose runs: what they mean, and that nothing in them does harm."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shmlog.errors import QueryError
from shmlog.folder.status import RunStatus
from shmlog.reader.model import RunRecord
from shmlog.store.boolean import DEPTH_MAX, LENGTH_MAX
from shmlog.store.select import to_moment, to_span
from shmlog.store.tagquery import parse_tags
from shmlog.store.where import Subject, parse_where

PARAMS = {
    "lr": 0.02, "layers": 3, "model": "resnet50", "debug": False, "nothing": None, "seed": 0,
    "optimizer": {"name": "adam", "betas": [0.9, 0.999], "clip": {"norm": 1}},
    "a.b": 7, "my key": "x", "words": ["one", "two"], "or": 1, "big": 2**60 + 1,
}  # fmt: skip
RECORD = RunRecord(
    run_id="r1", experiment="digits", dir=Path("/digits/r1"), name="best of all", status=RunStatus.SUCCESS,
    params=PARAMS, user="ada", started_at=datetime(2026, 11, 21, 3, tzinfo=UTC), pinned=True,
    ended_at=datetime(2026, 11, 21, 4, tzinfo=UTC), created_at=datetime(2026, 11, 21, 3, tzinfo=UTC),
)  # fmt: skip
SUMMARY = {
    "loss": {"last": 0.5, "min": 0.25, "max": 4.0, "count": 9},
    "val/acc.top1": {"last": 0.75, "min": 0.0, "max": 0.75, "count": 3},
    "min": {"last": 6, "min": 6, "max": 6, "count": 1},
}


def holds(where: str, params: Any = PARAMS) -> bool:
    record = RECORD if params is PARAMS else RunRecord.from_dict({**RECORD.to_dict(), "params": params})
    return parse_where(where)(Subject(record, lambda: SUMMARY))


@pytest.mark.parametrize(
    "where",
    [
        "lr > 0.01", "lr>.01", "lr >= 0.02 and lr <= 2e-2", "params.lr = 0.02", "lr == 0.02", "lr != 0.03",
        'lr > 0.01 and model contains "resnet"', "model startswith res", "model = resnet50", "model = 'resnet50'",
        "layers = 3", "layers = 3.0", "layers > -1", "debug = false", "not debug = true", "debug != true",
        "optimizer.name = adam", "optimizer.clip.norm = 1", "optimizer.betas contains 0.9", "optimizer contains name",
        "a.b = 7", 'params."my key" = x', "words contains two", "nothing = null",
        "absent = null", "lr != null", "big = 1152921504606846977", "big > 1152921504606846976",
        "metrics.loss < 1", "metrics.loss.last = 0.5", "metrics.loss.min < 0.3", "metrics.loss.count = 9",
        "metrics.val/acc.top1 > 0.7", 'metrics."val/acc.top1".max = 0.75', "metrics.min = 6", "metrics.min.min = 6",
        "run.user = ada", "run.status = finished", "run.pinned = true", 'run.name contains "of all"',
        "run.started_at > 2026-11-20", "run.started_at < 2026-11-21T03:00:01Z", "run.duration_s = 3600",
        "run.started_at = 2026-11-21T04:00:00+01:00",
        "LR = 1 OR lr = 0.02", "(lr = 1 or lr = 0.02) AND NOT (layers = 4)", "lr = 1 and lr = 2 or layers = 3",
        "layers = 3 or lr = 1 and lr = 2", "params.or = 1", "model = \"resnet\\50\" or lr = 0.02",
    ],
)  # fmt: skip
def test_a_condition_that_holds(where: str) -> None:
    assert holds(where)
    assert not holds(f"not ({where})")


@pytest.mark.parametrize(
    "where",
    [
        # Of what a run does not have, nothing holds but that it is null.
        "absent > 1", "absent != 1", "absent contains x", "nothing = 1", "nothing != 1", "lr = null", "absent != null",
        "optimizer.absent.x = 1", "lr.x = 1", "metrics.absent < 9", "run.group = x",
        # Kinds are kept apart.
        "debug = 0", "seed = false", 'layers = "3"', "model > 1", "words = one", "optimizer = adam", "debug < true",
        "words contains 1", "layers contains 3", "optimizer.betas contains 1", "lr startswith 0",
        "lr > 0.02", "model contains RES", "layers = nan", "run.status = running",
    ],
)  # fmt: skip
def test_a_condition_that_does_not_hold(where: str) -> None:
    assert not holds(where)


@pytest.mark.parametrize(
    "where",
    [
        "", " ", "lr", "lr >", "> 1", "lr > 1 and", "lr > 1 lr < 2", "(lr > 1", "lr > 1)", "()", "not", "lr > > 1",
        "lr ~ 1", "lr is 1", '"lr" > 1', "lr > 'x", 'lr > "x', "a..b = 1", ".a = 1", "a. = 1", "run.secret = 1",
        "run.__class__ = 1", "run.to_json = 1", "run.status = splendid", "run.started_at > yesterday",
        "lr > 1; drop table runs", "lr = 1 = 1", "1 < lr < 2 < 3", "\\", "and", "lr contains", "lr = (1)",
    ],
)  # fmt: skip
def test_what_is_no_condition_is_told_in_a_line(where: str) -> None:
    with pytest.raises(QueryError) as error:
        parse_where(where)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["__class__", "params.__class__.__mro__", "lr.__class__", "metrics.__class__.last"])
def test_names_reach_no_attribute(name: str) -> None:
    assert not holds(f"{name} != x")
    assert holds(f"{name} = null")


@pytest.mark.parametrize("parse", [parse_where, parse_tags])
def test_sizes_are_limited(parse: Any) -> None:
    """FAULTS 70: in length and in depth."""
    for text in ("a" * (LENGTH_MAX + 1), "a=1 or " * 200_000, '"' + "\\" * 1_000_000, "(" * 1_000_000):
        with pytest.raises(QueryError, match="the most is"):
            parse(text)
    for opening in ("(", "not ", "not ("):
        with pytest.raises(QueryError, match="nested"):
            parse(opening * (DEPTH_MAX + 1) + "a = 1")


def test_the_deepest_and_the_longest_that_is_allowed_works() -> None:
    assert parse_tags("(" * DEPTH_MAX + "a" + ")" * DEPTH_MAX)({"a"})
    assert holds(" or ".join(["lr = 1"] * 400) + " or lr = 0.02")


@settings(max_examples=300)
@given(st.text(alphabet="abl=<>!()\"'\\. \n-1not", max_size=40))
@example("((((((((((((((((a")
def test_any_text_is_a_condition_or_an_error(text: str) -> None:
    for parse, thing in ((parse_where, Subject(RECORD, lambda: SUMMARY)), (parse_tags, {"a"})):
        try:
            assert parse(text)(thing) in (True, False)
        except QueryError:
            pass


# ---- tags ----

TAGS = ("arm:tiered", "study:1", "x=1", "not-a-word", "with blank")
NAMES = st.sampled_from(TAGS)
TREES = st.recursive(
    NAMES,
    lambda inner: (
        st.tuples(st.just("not"), inner)
        | st.tuples(st.just("and"), st.lists(inner, min_size=2, max_size=3))
        | st.tuples(st.just("or"), st.lists(inner, min_size=2, max_size=3))
    ),
    max_leaves=8,
)  # fmt: skip


def render(tree: Any) -> str:
    """Return the expression of a tree with as many parentheses as it can have."""
    if isinstance(tree, str):
        return f'"{tree}"' if " " in tree else tree
    word, inner = tree
    if word == "not":
        return f"not ({render(inner)})"
    return f" {word.upper()} ".join(f"({render(part)})" for part in inner)


def means(tree: Any, tags: set[str]) -> bool:
    if isinstance(tree, str):
        return tree in tags
    word, inner = tree
    if word == "not":
        return not means(inner, tags)
    return (all if word == "and" else any)(means(part, tags) for part in inner)


@given(TREES, st.sets(NAMES))
def test_a_tag_expression_means_what_its_tree_means(tree: Any, tags: set[str]) -> None:
    assert parse_tags(render(tree))(tags) == means(tree, tags)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("arm:tiered AND (study:1 OR study:2)", True),
        ("arm:tiered and study:2", False),
        ("study:2 or arm:tiered and study:1", True),
        ("not study:2 and arm:tiered", True),
        ("not (study:1 and arm:tiered)", False),
        ('"and" or study:1', True),
        ("STUDY:1", False),
        (["arm:tiered", "study:1"], True),
        (["arm:tiered", "study:2"], False),
        ([], True),
    ],
)
def test_tags_are_chosen(text: Any, expected: bool) -> None:
    assert parse_tags(text)(("arm:tiered", "study:1")) is expected


@pytest.mark.parametrize("text", ["", "and", "a b", "a and", "(a", "a)", "not", "a or or b", '"a'])
def test_what_is_no_tag_expression_is_told(text: str) -> None:
    with pytest.raises(QueryError, match="tags, character"):
        parse_tags(text)


# ---- times ----


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("12h", 43_200), ("2w", 1_209_600), ("1.5m", 90), ("10 s", 10)]
)
def test_a_span_has_a_unit(text: str, seconds: float) -> None:
    assert to_span("older_than", text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1y", "1e3d", "9999999d", "1d2h", None, 31])
def test_what_is_no_span_is_told(text: Any) -> None:
    with pytest.raises(QueryError, match="older_than"):
        to_span("older_than", text)


def test_a_moment_is_a_date_a_time_or_so_long_ago() -> None:
    assert to_moment("since", "2026-11-21") == datetime(2026, 11, 21, tzinfo=UTC)
    assert to_moment("since", "2026-11-21T03:15:00+02:00") == datetime(2026, 11, 21, 1, 15, tzinfo=UTC)
    before, day_ago = datetime.now(UTC), to_moment("since", "1d")
    assert timedelta(0) <= day_ago + timedelta(days=1) - before <= datetime.now(UTC) - before
    for text in ("soon", "", "2026-13-01", "999999w", 5):
        with pytest.raises(QueryError, match="since"):
            to_moment("since", text)  # type: ignore[arg-type]
