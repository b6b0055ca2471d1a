"""Readers in every state that sealing, merging, kills and damage leave: all is read once, and nothing wrongly."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.errors import ShmlogError, ShmlogWarning, UnreadableError
from shmlog.reader.stored import StoredRun
from shmlog.reader.verify.verify import verify
from tests.support.folders import OWNER, Folder, fill, simple_log, states_of
from tests.support.frames import Log
from tests.support.readings import SINKS, assert_whole, expected_rows, rows_of

# ---- every state ----

VALUES = st.one_of(
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
NAMES = st.sampled_from(["loss", "acc", "a/b", "*", 'ü "\n', "NaN"])
STEPS = st.integers(-(2**63), 2**63 - 1)


@st.composite
def logs(draw: st.DrawFn, *, texts_like_numbers: bool = True) -> list[Log]:
    """Draw consecutive logs of up to three lanes."""
    made = [Log()]
    for number in range(draw(st.integers(1, 3))):
        log = made[-1] if number == 0 else made[-1].next()
        if number:
            made.append(log)
        for _ in range(draw(st.integers(0, 3))):
            for _ in range(draw(st.integers(0, 5))):
                put(draw, log, texts_like_numbers)
            log.frame(now=draw(st.integers(0, 10**12)))
        if not log.index:
            log.frame()
    return made


def put(draw: st.DrawFn, log: Log, texts_like_numbers: bool) -> None:
    lane, ts = log.lane(draw(st.integers(0, 2))), draw(st.integers(0, 10**12))
    if not lane.owner_text:
        lane.owner({**OWNER, "pid": 40 + lane.number})
    unusual = ("NaN", "Infinity", "-Infinity")
    values = VALUES if texts_like_numbers else VALUES.filter(lambda value: value not in unusual)
    match draw(st.sampled_from(["metric", "row", "event", "gap", "owner"])):
        case "metric":
            lane.metric(draw(NAMES), draw(values), draw(STEPS), ts)
        case "row":
            lane.row(draw(st.dictionaries(NAMES, values, min_size=1)), draw(STEPS), ts)
        case "event":
            lane.event(draw(st.sampled_from(["checked", "gap", "metrics"])), {"x": draw(st.integers())}, ts)
        case "gap":
            lane.gap([total + draw(st.integers(0, 3)) for total in lane.gapped], ts)
        case "owner":
            lane.owner({**OWNER, "pid": draw(st.integers(50, 52))})


@pytest.mark.parametrize("sinks", SINKS, ids="+".join)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_every_state_that_sealing_and_merging_pass_through_is_read_exactly_once(
    tmp_path: Path, sinks: tuple[str, ...], data: st.DataObject
) -> None:
    made = data.draw(logs(texts_like_numbers="parquet" in sinks))
    shutil.rmtree(tmp_path, ignore_errors=True)
    folder = Folder(tmp_path / "run" / "one", sinks)
    for log in made:
        folder.add(log)
    with states_of(folder.dir, tmp_path / "states") as states:
        folder.seal(len(made) - 1)
        folder.complete()
        folder.merge()
    for state in states:
        assert_whole(state, folder)
        assert verify(state).ok, verify(state).findings


@pytest.mark.parametrize("rotate_bytes", [None, 1024], ids=["one file", "rotated"])
@pytest.mark.parametrize("sinks", SINKS, ids="+".join)
def test_a_sealer_that_is_killed_anywhere_and_started_again_gives_the_same(
    tmp_path: Path, sinks: tuple[str, ...], rotate_bytes: int | None
) -> None:
    folder = Folder(tmp_path / "run" / "one", sinks)
    folder.describe(structured_log={"rotate_bytes": rotate_bytes})
    log = simple_log()
    folder.add(log)
    log = log.next()
    fill(log)
    folder.add(log)
    with states_of(folder.dir, tmp_path / "states") as states:
        folder.complete()
    for state in states:
        if (state / "wal").exists():
            again = Folder.__new__(Folder)
            again.__dict__.update(folder.__dict__, layout=type(folder.layout)(state))
            again.described = json.loads((state / "run.yaml").read_text())
            if not again.described["complete"]:
                try:
                    again.complete()
                except UnreadableError as error:
                    pytest.fail(f"I6: what a kill has left can't be gone on with: {error}")
        assert_whole(state, folder)
        assert verify(state).ok


# ---- damage ----

LINES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": LINES | st.sampled_from(["2026-11-21T03:15:22Z", "0001-01-01T00:00:00+23:00", "2026-11-21"]),
        "event_type": LINES | st.sampled_from(["metrics", "gap", "experiment_end"]),
        "data": LINES
        | st.fixed_dictionaries({"step": LINES, "metrics": st.dictionaries(st.text(), LINES)})
        | st.fixed_dictionaries({"dropped": st.dictionaries(st.sampled_from(["full", "x"]), LINES)}),
        "lane": LINES | st.integers(0, 3),
        "seq": LINES | st.integers(0, 3),
        "pid": LINES,
        "rank": LINES,
    },
)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "digits" / "one")
    made.add(simple_log())
    return made


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(NEARLY | st.dictionaries(st.text(), LINES) | LINES, max_size=5))
def test_no_line_makes_a_reader_fail(folder: Folder, lines: list[Any]) -> None:
    folder.describe(complete=True, sinks=["jsonl"], producers=None)
    folder.layout.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShmlogWarning)
        use(shmlog.load(folder.dir))
    verify(folder.dir)


def use(stored: StoredRun) -> None:
    """Read everything that there is."""
    stored.metrics(), stored.metrics("loss"), stored.metrics("*"), stored.names()
    stored.events(), stored.events("metrics"), stored.producers, stored.dropped, stored.counts
    stored.status, stored.live, stored.unrecovered, stored.age, stored.config, repr(stored)


FILES = ["run.yaml", "config.yaml", "events.jsonl", "wal/sealed.json", "wal/000001.wal", "part"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data(), file=st.sampled_from(FILES), complete=st.booleans())
def test_no_bytes_make_a_reader_fail_and_no_value_is_silently_wrong(
    tmp_path: Path, data: st.DataObject, file: str, complete: bool
) -> None:
    folder = made_folder(tmp_path, complete)
    path = folder.layout.part(0) if file == "part" else folder.dir / file
    if not path.exists():
        return
    path.write_bytes(mutated(data, path.read_bytes()))
    report = verify(folder.dir)
    stored = shmlog.load(folder.dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ShmlogWarning)
        try:
            use(stored)
            rows = rows_of(stored)
        except ShmlogError as error:
            assert not report.ok, error  # noqa: PT017 - most damage raises nothing
            return
    # Lines have no checksum, and the end of an open log may be anywhere.
    if report.ok and file not in ("events.jsonl", "wal/000001.wal"):
        assert rows == expected_rows(folder)
    if file in ("part", "wal/000001.wal"):
        assert not rows - expected_rows(folder), "a value is wrong"


def made_folder(tmp_path: Path, complete: bool) -> Folder:
    shutil.rmtree(tmp_path, ignore_errors=True)
    folder = Folder(tmp_path / "run" / "one")
    folder.layout.config_yaml.write_text('{"lr": 0.1}\n')
    log = simple_log()
    folder.add(log)
    folder.seal(1)
    log = log.next()
    fill(log)
    folder.add(log)
    if complete:
        folder.complete()
    return folder


def mutated(data: st.DataObject, content: bytes) -> bytes:
    """Flip, cut, overwrite or repeat something in ``content``."""
    at = data.draw(st.integers(0, max(0, len(content) - 1)))
    match data.draw(st.sampled_from(["flip", "cut", "overwrite", "insert", "nul", "all"])):
        case "flip":
            return content[:at] + bytes([content[at] ^ 1 << data.draw(st.integers(0, 7))]) + content[at + 1 :]
        case "cut":
            return content[:at]
        case "overwrite":
            new = data.draw(st.binary(min_size=1, max_size=16))
            return content[:at] + new + content[at + len(new) :]
        case "insert":
            return content[:at] + data.draw(st.binary(min_size=1, max_size=16)) + content[at:]
        case "nul":
            return content[:at] + bytes(len(content) - at)
    return data.draw(st.binary(max_size=200))
