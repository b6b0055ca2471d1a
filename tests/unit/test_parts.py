"""Parts: rows come back exactly, sorted; a part is there whole or not at all; damage is named."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shmlog.errors import CorruptDataError, RefusedError, UnreadableError
from shmlog.records import order, parts, schema
from shmlog.records.decode import Decoder
from shmlog.records.schema import METRICS, write_options
from shmlog.records.wal import Frame, scan
from tests.support.frames import Log

OWNER = {"pid": 41, "rank": 3, "local_rank": None, "worker": 7, "host": "h", "started_ns": 1, "process": "p"}


class ShortWrites(FileIO):
    """A file of which the system takes 100 bytes at a time."""

    def write(self, data: Any, /) -> int:
        return super().write(memoryview(data).cast("B")[:100])


class WholeWrites(parts._WholeWrites, ShortWrites):
    """What a part is written into, on such a system."""


def table_of(log: Log) -> pa.Table:
    found = [one for one in scan(log.data, path=Path("x"), log=log.number, run_id=None) if isinstance(one, Frame)]
    return Decoder(Path()).decode(found).metrics


def mixed(rows: int, seed: int = 0, names: Sequence[str] = "cabé") -> pa.Table:
    """Return records of all kinds from two lanes, in the order of a log."""
    rng = random.Random(seed)
    log = Log()
    log.lane(0).owner(OWNER)
    for i in range(rows):
        numbers = [rng.random(), float("nan"), -0.0, 2**63 - 1, True]
        value = rng.choice([*numbers, "short", "a text that is long", ""])
        log.lane(rng.randrange(2)).metric(rng.choice(names), value, rng.randrange(-3, 9), i * 1000)
        if rng.random() < 0.01:
            log.frame()
    log.frame()
    return table_of(log)


def rows_of(table: pa.Table) -> list[str]:
    """Return the rows as texts: NaN is equal to itself then."""
    assert table.schema.equals(METRICS)
    return [str(row) for row in table.to_pylist()]


def read_or_name(path: Path) -> list[str] | str:
    """Return the rows of a part; if it is damaged, its name as the error tells it."""
    try:
        return rows_of(parts.read_part(path))
    except UnreadableError as error:
        return path.name if path.name in str(error) else str(error)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("name", "step", "ts", "lane", "seq"))


def write(path: Path, table: pa.Table) -> None:
    parts.write_part(path, table, run_id="run", first=3, last=3, progress=lambda: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "part-000003.parquet"


def test_rows_come_back_exactly_and_sorted(path: Path) -> None:
    table = mixed(500)
    write(path, table)
    expected = [str(row) for row in sorted(table.to_pylist(), key=key)]
    assert rows_of(parts.read_part(path)) == expected


def test_batches_with_names_of_their_own_make_one_part(path: Path) -> None:
    first, second = Log(), Log()
    first.lane(0).metric("b", 1, 0, 0)
    second.lane(1).metric("a", 2, 0, 0)
    first.frame()
    second.frame()
    write(path, pa.concat_tables([table_of(first), table_of(second)]))
    read = parts.read_part(path)
    assert read["name"].to_pylist() == ["a", "b"]
    assert read["int_value"].to_pylist() == [2, 1]


def test_an_empty_part_is_a_part(path: Path) -> None:
    write(path, METRICS.empty_table())
    assert rows_of(parts.read_part(path)) == []
    assert rows_of(parts.read_part(path, ["a"])) == []


def test_only_the_names_wanted_are_read(path: Path) -> None:
    table = mixed(300)
    write(path, table)
    for wanted in (["a"], ["c", "é"], ["nobody"], []):
        rows = [row for row in sorted(table.to_pylist(), key=key) if row["name"] in wanted]
        assert rows_of(parts.read_part(path, wanted)) == [str(row) for row in rows]


def test_row_groups_without_a_name_are_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 50)
    write(path, mixed(400))
    file = parts.open_file(path)
    ranges = [file.metadata.row_group(i).column(1).statistics for i in range(len(file.groups))]
    assert [one.max for one in ranges] == sorted(one.max for one in ranges)
    data = bytearray(path.read_bytes())
    first = file.metadata.row_group(0).column(0)
    at = first.data_page_offset + first.total_compressed_size // 2
    data[at] ^= 0xFF
    path.write_bytes(data)
    assert parts.read_part(path, ["é"]).num_rows > 0
    with pytest.raises(CorruptDataError):
        parts.read_part(path, ["a"])


def test_a_row_group_ends_where_a_name_does_if_it_has_rows_enough(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 50)
    monkeypatch.setattr(parts, "NAME_GROUP_ROWS", 10)
    monkeypatch.setattr(parts, "NAME_GROUPS", 100)
    rows = {"a": 9, "b": 9, "c": 12, "d": 120, "e": 15, "f": 3}
    names = [name for name, count in rows.items() for _ in range(count)]
    table = parts.sort_by_name(mixed(len(names)).drop(["name"]).append_column(
        METRICS.field("name"), pa.array(names).dictionary_encode()).select(METRICS.names))  # fmt: skip
    sizes = [group.num_rows for group in parts.row_groups(table)]
    assert sizes == [18, 12, 50, 50, 20, 15, 3]
    assert list(parts.row_groups(table.slice(0, 0))) == []


def test_progress_is_told_with_each_row_group(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROW_GROUP_ROWS", 50)
    calls: list[None] = []
    parts.write_part(path, mixed(200), run_id="r", first=0, last=0, progress=lambda: calls.append(None))
    assert len(calls) == 4
    assert pq.read_metadata(path).num_row_groups == 4


def test_a_part_says_what_it_is_and_is_checked(path: Path) -> None:
    write(path, mixed(100))
    told = pq.read_metadata(path).metadata
    assert told[b"shmlog.run_id"] == b"run"
    assert told[b"shmlog.experiment"] == path.absolute().parents[3].name.encode()
    assert (told[b"shmlog.first_log"], told[b"shmlog.last_log"]) == (b"3", b"3")
    assert told[b"shmlog.schema"] == b"1"
    group = pq.read_metadata(path).row_group(0)
    columns = {column.path_in_schema: column for column in map(group.column, range(group.num_columns))}
    assert (columns["value"].compression, columns["lane"].compression) == ("ZSTD", "SNAPPY")
    assert all(column.is_stats_set and column.has_column_index for column in columns.values())


def test_other_readers_need_nothing_of_ours(path: Path) -> None:
    table = mixed(100)
    write(path, table)
    duckdb = pytest.importorskip("duckdb")
    counts = duckdb.sql(f"select name, count(*) from '{path}' group by name order by name").fetchall()
    names = table["name"].to_pylist()
    assert counts == [(name, names.count(name)) for name in sorted(set(names))]


def test_a_part_appears_when_it_is_whole(path: Path) -> None:
    there: list[bool] = []
    parts.write_part(path, mixed(100), run_id="run", first=3, last=3, progress=lambda: there.append(path.exists()))
    assert there == [False]
    assert path.exists()


def test_a_part_that_is_there_is_durable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(path.exists()))
    write(path, mixed(10))
    assert synced == [False, True], "P5: the file, then its name"


def test_a_write_that_fails_leaves_nothing(path: Path) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        parts.write_part(path, mixed(10), run_id="r", first=0, last=0, progress=fail)
    assert list(path.parent.iterdir()) == []


def test_what_an_earlier_try_has_left_is_replaced(path: Path) -> None:
    path.with_name(path.name + ".tmp").write_bytes(b"left behind" * 10_000)
    write(path, mixed(10))
    assert parts.read_part(path).num_rows == 10
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_part_that_is_gone_is_told_from_a_damaged_one(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        parts.read_part(path)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"text" * 100])
def test_what_is_no_parquet_is_named(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(CorruptDataError, match=path.name):
        parts.read_part(path)


# ---- texts ----


def texts(values: Sequence[str]) -> pa.Table:
    """Return metrics that are these texts."""
    log = Log()
    log.lane(0).owner(OWNER)
    for step, value in enumerate(values):
        log.lane(0).metric("note", value, step, step)
    log.frame()
    return table_of(log)


def repeated(count: int, rows: int) -> pa.Table:
    """Return metrics that are one text of so many bytes again and again."""
    table = texts([f"text {i}" for i in range(rows)])
    text = pa.array(["x" * count]).take(pa.array([0] * rows))
    return table.set_column(METRICS.get_field_index("text"), METRICS.field("text"), text)


@contextmanager
def writer_of_bombs(monkeypatch: pytest.MonkeyPatch, encoding: str) -> Iterator[None]:
    """Have parts be written as no writer of ours does it: a text that is there often takes next to no room."""
    options = write_options()
    if encoding == "dictionary":
        options["use_dictionary"] = [*options["use_dictionary"], "text"]
        del options["column_encoding"]["text"]
    with monkeypatch.context() as patched:
        patched.setattr(parts, "write_options", lambda _: options)
        patched.setattr(parts, "GROUP_TEXT_BYTES", 1 << 40)
        yield


@pytest.mark.parametrize("encoding", ["dictionary", "plain"])
def test_texts_that_would_fill_the_memory_are_refused(
    path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kilobytes, made by no writer of ours, whose texts would be 300 MB."""
    monkeypatch.setattr(parts, "TEXT_BYTES", 16 << 20)
    with writer_of_bombs(monkeypatch, encoding):
        write(path, repeated(1 << 16, 4800))
    assert path.stat().st_size < 200_000

    def read_batches() -> None:
        with parts.open_file(path) as file:
            for group in file.groups:
                list(file.batches(group, 1000))

    for read in (lambda: parts.read_part(path), read_batches):
        with pytest.raises(RefusedError, match=r"bytes of text, .*refused"):
            read()


def test_what_we_write_is_never_refused_however_well_its_texts_pack(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of texts that would be refused if zstd packed them."""
    monkeypatch.setattr(parts, "TEXT_BYTES", 1 << 20)
    monkeypatch.setattr(schema, "TEXT_BYTES", 1 << 20)
    table = repeated(1 << 16, 100)
    write(path, table)
    assert read_or_name(path) == rows_of(table)


def test_a_row_group_has_no_more_text_than_is_in_memory_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "GROUP_TEXT_BYTES", 1000)
    table = texts(["a" * size for size in (400, 600, 1, 5000, 0, 999, 2)])
    write(path, table)
    with parts.open_file(path) as file:
        assert [file.metadata.row_group(group).num_rows for group in file.groups] == [2, 1, 1, 2, 1]
    assert rows_of(parts.read_part(path)) == rows_of(table)


@pytest.mark.parametrize("names", [None, ["note"]], ids=["all", "one name"])
def test_more_texts_than_an_array_holds_are_read(
    path: Path, names: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "TEXT_ARRAY_BYTES", 2000)
    monkeypatch.setattr(parts, "TEXT_BYTES", 2000)
    table = texts([f"text {i} " * (i % 40) for i in range(100)])
    upside_down = pa.array(range(99, -1, -1))
    write(path, table.take(upside_down))
    read = parts.read_part(path, names)
    assert rows_of(read) == rows_of(table)
    back = order.take_rows(read, upside_down.to_numpy())
    assert rows_of(back) == rows_of(table.take(upside_down))
    assert all(chunk.nbytes < 3000 for chunk in back["text"].chunks)
    assert rows_of(order.sort_rows(back)) == rows_of(table)


def test_what_is_no_part_is_named(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(CorruptDataError, match=path.name):
        parts.read_part(path)


def test_a_part_cut_anywhere_is_named(path: Path) -> None:
    write(path, mixed(50))
    for end in reversed(range(path.stat().st_size)):
        os.truncate(path, end)
        with pytest.raises(CorruptDataError, match=path.name):
            parts.read_part(path)


def test_a_flipped_bit_in_a_page_is_found(path: Path) -> None:
    write(path, mixed(200))
    data = path.read_bytes()
    expected = rows_of(parts.read_part(path))
    column = pq.read_metadata(path).row_group(0)
    chunks = [column.column(i) for i in range(column.num_columns)]
    end = max((c.dictionary_page_offset or c.data_page_offset) + c.total_compressed_size for c in chunks)
    rng = random.Random(1)
    for at in rng.sample(range(4, end), 100):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        assert read_or_name(path) in (expected, path.name)  # a few bits mean nothing


def test_a_flip_anywhere_in_the_footer_is_found(path: Path) -> None:
    """Some of them pyarrow would take as they stand, at others it would end the process."""
    write(path, mixed(200))
    data = path.read_bytes()
    begin = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    rng = random.Random(1)
    for at in range(begin, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(CorruptDataError, match=path.name):
            parts.open_file(path)


def test_metrics_may_be_named_as_the_checksum_is(path: Path) -> None:
    names = ["shmlog.footer", "shmlog.footer crc32:00000000", "crc32:12345678"]
    write(path, mixed(30, names=names))
    assert set(parts.read_part(path)["name"].to_pylist()) == set(names)


def test_a_part_that_other_tools_have_written_anew_is_told(path: Path) -> None:
    write(path, mixed(10))
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(CorruptDataError, match="the footer has no checksum"):
        parts.read_part(path)


def test_a_system_that_takes_a_part_of_each_write_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, paths = mixed(500), [tmp_path / f"{number}.parquet" for number in range(2)]
    parts.write_part(paths[0], table, run_id="r", first=0, last=0, progress=lambda: None)
    monkeypatch.setattr(parts, "_WholeWrites", WholeWrites)
    parts.write_part(paths[1], table, run_id="r", first=0, last=0, progress=lambda: None)
    assert paths[1].read_bytes() == paths[0].read_bytes()
