"""Merging parts: the same rows, sorted, in one file; and whatever happens, each row once."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmlog.errors import CorruptDataError
from shmlog.folder.layout import RunLayout
from shmlog.records import merge as merge_module
from shmlog.records import parts
from shmlog.records.decode import Decoder
from shmlog.records.merge import merge, names_of, remove_covered
from shmlog.records.wal import Frame, scan
from tests.support.folders import states_of
from tests.support.frames import Log

KEY = ("name", "step", "ts", "lane", "seq")


def logged(log: Log, rows: int, rng: random.Random) -> pa.Table:
    """Log some records and return them."""
    for i in range(rows):
        value = rng.choice([rng.random(), float("inf"), rng.getrandbits(60), False, "a", "a longer text"])
        ts = rng.randrange(4) * 1000 + i
        log.lane(rng.randrange(3)).metric(rng.choice("cabdé"), value, rng.randrange(5), ts)
    log.frame()
    found = [one for one in scan(log.data, path=Path("x"), log=log.number, run_id=None) if isinstance(one, Frame)]
    return Decoder(Path()).decode(found).metrics


def write_parts(layout: RunLayout, sizes: list[int], seed: int = 0) -> list[str]:
    """Write a part for each size; return all rows as they should come back."""
    layout.metrics.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    log = Log()
    rows = []
    for number, size in enumerate(sizes):
        table = logged(log, size, rng)
        rows += table.to_pylist()
        path = layout.part(number)
        parts.write_part(path, table, run_id="run", first=number, last=number, progress=lambda: None)
        log = log.next()
    return [str(row) for row in sorted(rows, key=lambda row: tuple(row[name] for name in KEY))]


def merge_all(layout: RunLayout) -> Path:
    return merge(layout, run_id="run", parts=layout.parts(), progress=lambda: None)


def rows_in(path: Path) -> list[str]:
    return [str(row) for row in parts.read_part(path).to_pylist()]


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(tmp_path)


def test_merging_keeps_every_row_and_sorts_them(layout: RunLayout) -> None:
    rows = write_parts(layout, [100, 0, 70, 1])
    path = merge_all(layout)
    assert path == layout.part(0, 3)
    assert list(layout.metrics.iterdir()) == [path]
    assert rows_in(path) == rows
    told = pq.read_metadata(path).metadata
    assert (told[b"shmlog.first_log"], told[b"shmlog.last_log"]) == (b"0", b"3")
    assert told[b"shmlog.run_id"] == b"run"


SIZES = st.lists(st.integers(0, 30), min_size=2, max_size=7)


@settings(max_examples=30)
@given(sizes=SIZES, seed=st.integers(0, 2**32), chunk=st.integers(1, 9))
def test_any_parts_merge_in_chunks_and_rounds(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int, chunk: int
) -> None:
    layout = RunLayout(tmp_path_factory.mktemp("run", numbered=True))
    rows = write_parts(layout, sizes, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge_module, "_CHUNK_ROWS", chunk)
        patch.setattr(merge_module, "_FAN_IN", 3)
        patch.setattr(merge_module, "ROW_GROUP_ROWS", 20)
        path = merge_all(layout)
    assert rows_in(path) == rows
    assert list(layout.metrics.iterdir()) == [path]


def test_merged_parts_merge_again(layout: RunLayout) -> None:
    rows = write_parts(layout, [50, 50, 50])
    first_two = layout.parts()[:2]
    merge(layout, run_id="run", parts=first_two, progress=lambda: None)
    assert [(part.first, part.last) for part in layout.parts()] == [(0, 1), (2, 2)]
    assert rows_in(merge_all(layout)) == rows


def test_one_part_alone_stays_as_it_is(layout: RunLayout) -> None:
    rows = write_parts(layout, [10])
    path = merge_all(layout)
    assert path == layout.part(0)
    assert rows_in(path) == rows


def test_names_are_told_without_reading_values(layout: RunLayout) -> None:
    write_parts(layout, [100, 100])
    assert names_of(layout.parts()) == ["a", "b", "c", "d", "é"]


def test_a_merge_that_fails_changes_nothing(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parts(layout, [50] * 5)
    before = {path.name: path.read_bytes() for path in layout.metrics.iterdir()}
    monkeypatch.setattr(merge_module, "_FAN_IN", 2)
    calls = iter(range(4))

    def fail() -> None:
        if next(calls, None) is None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        merge(layout, run_id="run", parts=layout.parts(), progress=fail)
    assert {path.name: path.read_bytes() for path in layout.metrics.iterdir()} == before


def test_a_damaged_part_is_named_and_all_stay(layout: RunLayout) -> None:
    write_parts(layout, [200, 200])
    path = layout.part(1)
    column = pq.read_metadata(path).row_group(0).column(0)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=path.name):
        merge_all(layout)
    assert len(list(layout.metrics.iterdir())) == 2


def test_a_merge_killed_before_the_deletion_tells_no_row_twice(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_parts(layout, [50, 50])
    originals = {part.path: part.path.read_bytes() for part in layout.parts()}
    path = merge_all(layout)
    for original, data in originals.items():
        original.write_bytes(data)
    assert [part.path for part in layout.parts()] == [path]
    assert rows_in(path) == rows


def test_parts_stay_that_are_covered_by_another_runs_or_by_what_is_not_what_its_name_says_or_is_damaged(
    layout: RunLayout,
) -> None:
    write_parts(layout, [50, 50, 50])
    sound = {part.path: part.path.read_bytes() for part in layout.parts()}
    foreign = layout.part(0, 7)
    parts.write_part(foreign, parts.read_part(layout.part(0)), run_id="other", first=0, last=7, progress=lambda: None)
    another = foreign.read_bytes()
    foreign.unlink()
    copy = RunLayout(layout.dir / "copy")
    shutil.copytree(layout.metrics, copy.metrics)
    damaged = bytearray(merge_all(copy).read_bytes())
    damaged[-20] ^= 1
    for name, data in ((foreign, another), (foreign, sound[layout.part(0)]), (layout.part(0, 2), bytes(damaged))):
        foreign.unlink(missing_ok=True)
        name.write_bytes(data)
        remove_covered(layout, "run")
        assert {path: path.read_bytes() for path in sound if path.exists()} == sound


def test_a_merge_that_is_killed_anywhere_loses_and_repeats_nothing(layout: RunLayout, tmp_path: Path) -> None:
    rows = write_parts(layout, [30, 40, 5])
    with states_of(layout.metrics, tmp_path / "states") as states:
        merge_all(layout)
    assert len(states) > 6
    for state in states:
        copy = RunLayout(tmp_path / "copy")
        shutil.rmtree(copy.dir, ignore_errors=True)
        shutil.copytree(state, copy.metrics)
        assert sorted(row for part in copy.parts() for row in rows_in(part.path)) == sorted(rows)
        merge_all(copy)
        assert [part.path for part in copy.parts()] == [copy.part(0, 2)]
        assert rows_in(copy.part(0, 2)) == rows
        remove_covered(copy, "run")
        assert list(copy.metrics.iterdir()) == [copy.part(0, 2)]
