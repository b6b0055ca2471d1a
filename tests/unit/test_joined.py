"""Parts read as one file: the rows are those of each part, and what is wrong with one is not passed over."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmlog import _bulk
from shmlog.errors import CorruptDataError
from shmlog.records import footer, joined, parts
from shmlog.records.schema import METRICS
from tests.unit.test_parts import mixed, rows_of

NAME = METRICS.get_field_index("name")


def write(path: Path, table: pa.Table) -> Path:
    parts.write_part(path, table, run_id="run", first=0, last=0, progress=lambda: None)
    return path


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 90)
    monkeypatch.setattr(parts, "NAME_GROUP_ROWS", 20)
    tables = [mixed(300, 1), mixed(20, 2, "xyz"), METRICS.empty_table(), mixed(400, 3, "ab"), mixed(100, 4)]
    return [write(tmp_path / f"{i}.parquet", table) for i, table in enumerate(tables)]


def one_by_one(paths: list[Path], names: list[str] | None) -> list[str]:
    return [row for path in paths for row in rows_of(parts.read_part(path, names))]


def all_rows(tables: list[pa.Table]) -> list[str]:
    return [row for table in tables for row in rows_of(table)]


def footer_of(path: Path) -> tuple[int, bytes]:
    with footer.checked(path) as (_, begin, data):
        return begin, data


# ---- what is read ----


@pytest.mark.parametrize("names", [None, ["a"], ["é", "c"], ["x"], ["nobody"], [], ["\ud800", "b"]])
@pytest.mark.parametrize("most", [1, 40_000, 1 << 24], ids=["each alone", "a few", "all"])
def test_the_rows_are_those_of_each_part(
    paths: list[Path], names: list[str] | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined, "_MOST_BYTES", most)
    tables = list(joined.read_parts(paths, names))
    assert sorted(all_rows(tables)) == sorted(one_by_one(paths, names))


def test_so_much_is_joined_as_memory_allows(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(list(joined.read_parts(paths))) == 1
    size = sum(path.stat().st_size for path in paths)
    monkeypatch.setattr(joined, "_MOST_BYTES", size // 2)
    assert 1 < len(list(joined.read_parts(paths))) < len(paths)


def test_row_groups_without_a_name_are_not_read(paths: list[Path]) -> None:
    data = bytearray(paths[0].read_bytes())
    first = pq.read_metadata(paths[0]).row_group(0).column(0)
    data[first.data_page_offset + first.total_compressed_size // 2] ^= 0xFF
    paths[0].write_bytes(data)
    assert sum(table.num_rows for table in joined.read_parts(paths, ["é"])) > 0
    with pytest.raises(CorruptDataError):
        list(joined.read_parts(paths, ["a"]))


# ---- what is wrong ----


def test_a_flip_anywhere_is_found(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.parquet", mixed(5, i)) for i in range(3)]
    expected = all_rows(list(joined.read_parts(paths)))
    whole = paths[1].read_bytes()
    begin, _ = footer_of(paths[1])
    for at in range(4, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 0x10
        paths[1].write_bytes(data)
        try:
            tables = list(joined.read_parts(paths))
            for table in tables:
                table.validate(full=True)
        except (CorruptDataError, pa.ArrowInvalid):
            continue
        assert at < begin, "a footer has no byte that has no meaning"
        assert all_rows(tables) == expected, at


def test_a_part_of_another_schema_is_refused(paths: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    with pq.ParquetWriter(other, pa.schema([("a", pa.int64()), ("b", pa.string())])) as writer:
        writer.write_table(pa.table({"a": [1], "b": ["z"]}))
        writer.add_key_value_metadata({footer.KEY: footer.UNSEALED})
    with other.open("r+b") as file:
        footer.seal(file.fileno())
    for names in (None, ["a"]):
        with pytest.raises(CorruptDataError, match="not a part of shmlog"):
            list(joined.read_parts([*paths, other], names))


def test_more_rows_than_a_file_can_hold_are_refused(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_CELLS", 10)
    monkeypatch.setattr(parts, "_CELLS_PER_BYTE", 0.001)
    with pytest.raises(CorruptDataError, match="may fill the memory"):
        list(joined.read_parts(paths, ["nobody"]))


def test_a_part_that_has_gone_is_no_damage(paths: list[Path]) -> None:
    paths[3].unlink()
    with pytest.raises(FileNotFoundError):
        list(joined.read_parts(paths))


def test_a_place_outside_the_file_is_refused(paths: list[Path], tmp_path: Path) -> None:
    begin, data = footer_of(paths[0])
    schema_end, end, groups = _bulk.footer_groups(data, NAME)
    moved = b"".join(_bulk.footer_move(data, at, begin) for at, *_ in groups)
    bad = resealed(tmp_path / "bad.parquet", paths[0].read_bytes()[:begin], data[: groups[0][0]] + moved + data[end:])
    assert schema_end < groups[0][0]
    with pytest.raises(CorruptDataError, match="not in the file"):
        list(joined.read_parts([paths[1], bad]))


def resealed(path: Path, pages: bytes, described: bytes) -> Path:
    at = described.rindex(b"crc32:") + 6
    described = described[:at] + b"00000000" + described[at + 8 :]
    path.write_bytes(pages + described + struct.pack("<I", len(described)) + b"PAR1")
    fd = os.open(path, os.O_RDWR)
    footer.seal(fd)
    os.close(fd)
    return path


# ---- footers ----


def test_a_footer_is_read_as_pyarrow_reads_it(paths: list[Path]) -> None:
    for path in paths:
        _, data = footer_of(path)
        _, _, groups = _bulk.footer_groups(data, NAME)
        metadata = pq.read_metadata(path)
        assert len(groups) == metadata.num_row_groups
        for i, (_, rows, begin, end, low, high) in enumerate(groups):
            group = metadata.row_group(i)
            columns = [group.column(k) for k in range(metadata.num_columns)]
            begins = [column.dictionary_page_offset or column.data_page_offset for column in columns]
            ends = [at + column.total_compressed_size for at, column in zip(begins, columns, strict=True)]
            bounds: Any = columns[NAME].statistics
            assert (rows, begin, end) == (group.num_rows, min(begins), max(ends))
            assert (low, high) == (bounds.min.encode(), bounds.max.encode())


@given(by=st.integers(-(2**40), 2**40))
def test_moved_by_nothing_or_there_and_back_a_row_group_is_as_it_was(by: int) -> None:
    _, end, groups = _bulk.footer_groups(SOME, NAME)
    for (at, *_), last in zip(groups, [*(begin for begin, *_ in groups[1:]), end], strict=True):
        assert _bulk.footer_move(SOME, at, 0) == SOME[at:last]
        there = _bulk.footer_move(SOME, at, by)
        assert (there == SOME[at:last]) == (by == 0)
        assert _bulk.footer_move(there, 0, -by) == SOME[at:last]


def some_footer() -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, METRICS) as writer:
        writer.write_table(mixed(30), row_group_size=10)
    data = sink.getvalue().to_pybytes()
    return data[-8 - struct.unpack("<I", data[-8:-4])[0] : -8]


SOME = some_footer()


def test_a_footer_that_is_cut_off_is_refused() -> None:
    _, end, groups = _bulk.footer_groups(SOME, NAME)
    for size in range(end):
        with pytest.raises(ValueError, match="makes no sense"):
            _bulk.footer_groups(SOME[:size], NAME)
    at = groups[-1][0]
    for size in range(at, end):
        with pytest.raises(ValueError, match="makes no sense"):
            _bulk.footer_move(SOME[:size], at, 1)


@given(data=st.data())
def test_no_bytes_are_trusted(data: st.DataObject) -> None:
    noise = bytearray(SOME)
    for _ in range(data.draw(st.integers(1, 8))):
        noise[data.draw(st.integers(0, len(noise) - 1))] = data.draw(st.integers(0, 255))
    for some in (bytes(noise), data.draw(st.binary(max_size=200))):
        try:
            _, end, groups = _bulk.footer_groups(some, NAME)
        except ValueError:
            groups, end = [], 0
        assert all(at < end and rows >= 0 and 0 <= first <= last for at, rows, first, last, *_ in groups)
        for at in [data.draw(st.integers(-1, len(some) + 1)), *(at for at, *_ in groups)]:
            try:
                assert _bulk.footer_move(some, at, data.draw(st.integers(-(2**63), 2**63 - 1)))
            except ValueError:
                continue
