"""Queries and files from strangers: bounded time, bounded memory, nothing of them is run (FAULTS 70 to 74)."""

from __future__ import annotations

import os
import pickle
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

import shmlog
from shmlog import CheckpointManager
from shmlog.base.durable import replacing
from shmlog.cli.main import main
from shmlog.logs import load_structured_logs
from shmlog.reader.verify.verify import verify
from shmlog.records import footer
from shmlog.records.parts import open_writer
from shmlog.records.schema import METRICS
from shmlog.results import load_results_csv, load_results_json, load_results_pickle
from shmlog.transfer.importers.formats import reader_of
from tests.support.bombs import BOMBS
from tests.support.folders import Folder
from tests.support.stores import add_metrics, add_run

MEMORY_BYTES = 64 << 20
SECONDS = 5.0


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """Fail a test that takes long: none of what is asked here may."""
    begun = time.process_time()
    yield
    assert time.process_time() - begun < SECONDS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_metrics(tmp_path / "runs", "one")
    return tmp_path / "runs"


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `import_run` read sources in this process, where it is seen what they do."""
    monkeypatch.setattr("shmlog.transfer.imports.read_apart", lambda format, path, _: reader_of(format)(path))


# ---- queries ----

LONG = {
    "escapes": '"\\' * 500_000,
    "dots": "a." * 500_000,
    "open quotes": "\"a'b" * 250_000,
    "letters": "a" * 1_000_000,
    "blanks": " " * 1_000_000,
    "parentheses": "(" * 1_000_000,
    "digits": "9" * 1_000_000,
    "a pattern for backtracking": "(a+)+$" * 160_000,
}
CODE = ["__import__('os').system('touch pwned')", "lr = 1; drop table runs", "{lr.__class__}", "lr = 1 -- '", "%s%n"]


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
@pytest.mark.parametrize("argument", ["where", "tags", "sort", "since", "status"])
def test_a_megabyte_of_a_question_is_refused_at_once(root: Path, argument: str, text: str) -> None:
    """FAULTS 70: the sizes are limited before anything is parsed."""
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - QueryError is one
        shmlog.Store(root).runs(**{argument: text})
    assert len(str(refused.value)) < 500 or argument in ("since", "status")


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
@pytest.mark.parametrize("argument", ["where", "tags", "sort"])
def test_the_longest_question_takes_no_time(root: Path, argument: str, text: str) -> None:
    """FAULTS 70: what just passes the limit is not backtracked over."""
    try:
        shmlog.Store(root).runs(**{argument: text[:4096]})
    except shmlog.errors.QueryError:
        pass


@pytest.mark.parametrize("text", CODE)
def test_no_question_is_run(root: Path, text: str) -> None:
    """FAULTS 70: it is parsed by a grammar of its own."""
    for argument in ("where", "tags", "sort"):
        try:
            shmlog.Store(root).runs(**{argument: text})
        except shmlog.errors.QueryError:
            pass
    with pytest.raises(shmlog.errors.QueryError):
        shmlog.Store(root).sql(text)
    assert not Path("pwned").exists()
    assert len(shmlog.Store(root).runs()) == 1


def test_a_pattern_of_names_is_not_backtracked_over(root: Path) -> None:
    """FAULTS 70: names are long, and a glob has many stars."""
    stored = shmlog.Store(root).load("one")
    for pattern in ("*a" * 500 + "b", "*" * 10_000 + "b", "[" * 10_000, "?" * 10_000):
        assert stored.metrics(pattern).num_rows == 0


def test_a_megabyte_of_sql_is_answered_or_refused(root: Path) -> None:
    """FAULTS 70: DuckDB's own limits hold."""
    store = shmlog.Store(root)
    assert store.sql("select 1 as x --" + "y" * 1_000_000)["x"].to_pylist() == [1]
    for query in ("select " + "(" * 100_000 + "1" + ")" * 100_000, "select " + "-" * 1_000_001 + "1 from"):
        with pytest.raises(shmlog.errors.QueryError):
            store.sql(query)


# ---- small files ----


@pytest.mark.parametrize("file", ["run.yaml", "config.yaml", "annotations.yaml", "manifest.json", "../experiment.yaml"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_a_store_costs_little(root: Path, file: str, bomb: str) -> None:
    """FAULTS 71: the store lists the run, or says that it is damaged, in bounded memory."""
    (root / "digits" / "one" / file).write_bytes(BOMBS[bomb])
    tracemalloc.start()
    try:
        store = shmlog.Store(root)
        assert [record.run_id for record in store.runs()] == ["one"]
        assert [experiment.name for experiment in store.experiments()] == ["digits"]
        verify(root / "digits" / "one")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= MEMORY_BYTES + 2 * len(BOMBS[bomb])
    assert not Path("pwned").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["run.yaml", "config.yaml", "old.json", "old.jsonl", "old.csv"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_an_import_costs_little(tmp_path: Path, name: str, bomb: str) -> None:
    """FAULTS 71: it is imported as far as it goes, or refused."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "run.yaml").write_text("status: FINISHED\n")
    (source / "vectors.parquet").touch()
    (source / name).write_bytes(BOMBS[bomb])
    tracemalloc.start()
    try:
        shmlog.import_run(source / name if name.startswith("old") else source, tmp_path / "runs")
    except shmlog.ShmlogError:
        assert not list((tmp_path / "runs").glob("*/*/run.yaml"))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= MEMORY_BYTES + 20 * len(BOMBS[bomb])
    assert not Path("pwned").exists()


# ---- pickles ----


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


PICKLE = pickle.dumps(Malicious())
CALLS: dict[str, Callable[[Path], object]] = {
    "load_results_pickle": load_results_pickle,
    "load_results_json": load_results_json,
    "load_results_csv": load_results_csv,
    "import_run": lambda path: shmlog.import_run(path, "runs"),
    "load_structured_logs": load_structured_logs,
    "CheckpointManager.load": lambda path: CheckpointManager(path.parent, "exp").load(path),
    "shmlog checkpoints": lambda path: main(["checkpoints", "verify", str(path.parent)]),
    "shmlog import": lambda path: main(["import", str(path)]),
    "artifact": lambda path: _log_and_verify(path),
}


def _log_and_verify(path: Path) -> None:
    layout = add_run(Path("runs").absolute(), "one")
    layout.artifacts.mkdir()
    path.rename(layout.artifacts / path.name)
    with shmlog.load(layout.dir).artifacts[0].open() as file:
        assert file.read() == PICKLE
    verify(layout.dir)


@pytest.fixture(scope="module")
def unpickled() -> list[Any]:
    """Return what pickles of this process have looked up from now on."""
    seen: list[Any] = []
    sys.addaudithook(lambda event, arguments: seen.append(arguments) if event == "pickle.find_class" else None)
    return seen


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("suffix", ["pkl", "pt", "json", "csv", "parquet", "arrow", "safetensors", "jsonl"])
def test_no_reader_unpickles(tmp_path: Path, unpickled: list[Any], call: str, suffix: str) -> None:
    """FAULTS 72: whatever the file is called, and whoever opens it."""
    path = tmp_path / "files" / f"exp-00000001.{suffix}"
    path.parent.mkdir()
    path.write_bytes(PICKLE)
    before = len(unpickled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", shmlog.ShmlogWarning)
        try:
            CALLS[call](path)
        except (shmlog.ShmlogError, ValueError):
            pass
    assert unpickled[before:] == []
    assert not Path("pwned").exists()


def test_the_hook_sees_a_pickle(unpickled: list[Any]) -> None:
    """So the test above can fail."""
    before = len(unpickled)
    pickle.loads(pickle.dumps(Path))
    assert len(unpickled) == before + 1


# ---- bombs of rows ----


def test_a_part_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    """FAULTS 74: a file of few bytes and many rows; the rest of the run is read."""
    folder = Folder(tmp_path / "runs" / "digits" / "bomb")
    rows = 9_000_000
    producer = {"lane": 0, "tenancy": 1, "metrics": rows, "events": 0, "dropped": {}}
    folder.describe(complete=True, status="success", producers=[producer], dropped={})
    alike = {
        field.name: pa.nulls(rows, field.type) if field.nullable else pa.repeat(_one(field), rows) for field in METRICS
    }
    path = folder.layout.part(0)
    with replacing(path) as fd, open_writer(fd, 0) as writer:
        writer.write_table(pa.table(alike, METRICS), row_group_size=rows)
        its_own = {footer.RUN_ID: folder.layout.run_id, footer.FIRST_LOG: "0", footer.LAST_LOG: "0"}
        writer.add_key_value_metadata(its_own)
    assert path.stat().st_size < 1 << 20
    before = pa.total_allocated_bytes()
    del alike
    with pytest.warns(shmlog.ShmlogWarning, match="may fill the memory"):
        assert shmlog.load(folder.dir).metrics().num_rows == 0
    assert any("may fill the memory" in finding.message for finding in verify(folder.dir).findings)
    assert pa.total_allocated_bytes() <= before + MEMORY_BYTES


BOUNDED = """
import re, resource, sys
import shmlog
from shmlog.transfer.limited import end_readers
try:
    shmlog.import_run(sys.argv[1], "runs", max_bytes=32 << 20)
except shmlog.errors.UnreadableError as error:
    print(error)
end_readers()  # what they have taken is known once they have ended
print(int(re.search("VmHWM:\\s*([0-9]+) kB", open("/proc/self/status").read())[1]) << 10)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)
"""
WITHOUT_SOURCE = 128 << 20  # of a process: Python, numpy and pyarrow
ZEROS = 64 << 20  # numbers, of 8 bytes each


def _records(text: Any) -> pa.Table:
    """Return rows of our columns with these texts."""
    columns = {field.name: pa.nulls(len(text), field.type) for field in METRICS}
    for field in METRICS:
        if not field.nullable:
            columns[field.name] = pa.repeat(_one(field), len(text))
    kind = pa.repeat(pa.scalar("text"), len(text)).dictionary_encode()
    return pa.table({**columns, "kind": kind, "text": text})


def _repeated(mib: int) -> pa.Array:
    """Return one long text so often that all together take so many MiB."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * mib, pa.int32()), pa.array(["x" * (1 << 20)]))


def _write_arrow(path: Path, table: pa.Table) -> None:
    new: Any = pa.ipc.new_stream if path.name.startswith("vectors-") else pa.ipc.new_file
    with new(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table, 1 << 30)


def _write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd", row_group_size=1 << 30, write_statistics=False)


IMPORTED: dict[str, tuple[str, Callable[[Path, pa.Table], None], Callable[[], pa.Table]]] = {
    "a packed buffer": ("a.arrow", _write_arrow, lambda: pa.table({"step": pa.repeat(0, ZEROS)})),
    "a text by codes": ("a.arrow", _write_arrow, lambda: _records(_repeated(512))),
    "a text by codes in Parquet": ("a.parquet", _write_parquet, lambda: _records(_repeated(512))),
    "a number so often": ("a.parquet", _write_parquet, lambda: pa.table({"step": pa.repeat(0, ZEROS)})),
    "a long text": ("a.parquet", _write_parquet, lambda: _records(pa.array(["x" * (256 << 20)]))),
    "a journal": ("e/vectors-0000.arrow", _write_arrow, lambda: pa.table({"step": pa.repeat(0, ZEROS)})),
    "nulls in a journal": ("e/vectors-0000.arrow", _write_arrow, lambda: pa.table({"a": pa.nulls(1 << 30)})),
    "a table of expman": ("e/vectors.parquet", _write_parquet, lambda: pa.table({"loss": pa.repeat(0.0, ZEROS)})),
}


@pytest.mark.parametrize("bomb", IMPORTED)
def test_an_import_takes_no_more_than_it_may(tmp_path: Path, bomb: str) -> None:
    """FAULTS 74: a small file that unpacks to hundreds of megabytes, where 32 are allowed, is refused before that."""
    name, write, make = IMPORTED[bomb]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write(path, make())
    assert path.stat().st_size < 4 << 20
    _assert_refused(tmp_path, path.parent if name.startswith("e/") else path)


def _assert_refused(folder: Path, source: Path) -> None:
    """Import it in a process of its own, whose memory is its own."""
    command = [sys.executable, "-c", BOUNDED, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    message, *peaks = done.stdout.splitlines()
    assert message.startswith(f"{source}: refused, since reading it takes more than the 33,554,432 bytes of memory")
    assert "import_run(…, max_bytes=…), shmlog import --max-gib …" in message
    assert 32 << 20 < min(map(int, peaks)) <= max(map(int, peaks)) <= WITHOUT_SOURCE + MEMORY_BYTES
    assert not list((folder / "runs").glob("*/*"))


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_a_packed_table_within_the_limit_is_imported(tmp_path: Path, compression: str | None) -> None:
    """So what is refused above is refused for its size."""
    table = _records(pa.array(["a", "b", "a"]).dictionary_encode())
    with pa.ipc.new_file(
        tmp_path / "a.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)
    ) as writer:
        writer.write_table(table)
    report = shmlog.import_run(tmp_path / "a.arrow", max_bytes=32 << 20)
    assert shmlog.load(report.dir).metrics()["text"].to_pylist() == ["a", "b", "a"]


@pytest.mark.parametrize("size", [1 << 40, (1 << 63) - 1, 100, -2])
def test_a_buffer_that_lies_about_its_size_is_refused(tmp_path: Path, size: int) -> None:
    """FAULTS 74: by the limit, or by Arrow."""
    path = tmp_path / "a.arrow"
    _write_arrow(path, _records(pa.array(["text"] * 1001)))
    data = path.read_bytes()
    honest = struct.pack("<q", 8 * 1001)
    assert honest in data
    path.write_bytes(data.replace(honest, struct.pack("<q", size)))
    with pytest.raises(shmlog.errors.UnreadableError, match=r"takes more than|damaged"):
        shmlog.import_run(path)


def test_a_footer_that_lies_about_the_pages_is_not_believed(tmp_path: Path) -> None:
    """FAULTS 74: the pages themselves say what they hold."""
    path = tmp_path / "a.parquet"
    _write_parquet(path, _records(pa.array(["x" * (256 << 20)])))
    data = path.read_bytes()
    group = pq.ParquetFile(path).metadata.row_group(0)
    (text,) = (i for i in range(group.num_columns) if group.column(i).path_in_schema == "text")
    begin = data.rindex(_varint(2 * group.column(text).total_uncompressed_size, 5))
    path.write_bytes(data[:begin] + _varint(2 * 1000, 5) + data[begin + 5 :])
    assert pq.ParquetFile(path).metadata.row_group(0).column(text).total_uncompressed_size == 1000
    _assert_refused(tmp_path, path)


def _varint(number: int, size: int) -> bytes:
    """Return a number as Thrift writes it, in so many bytes."""
    return bytes([number >> 7 * i & 127 | 128 for i in range(size - 1)] + [number >> 7 * (size - 1)])


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_texts_written_as_differences_are_refused(tmp_path: Path, version: Any) -> None:
    """FAULTS 74: a byte each, and a megabyte each in memory; Arrow reads none of them by codes."""
    table = _records(pa.array(["x" * 10_000 + str(number) for number in range(1000)]))
    pq.write_table(
        table, tmp_path / "a.parquet", use_dictionary=["name", "kind"], data_page_version=version,
        column_encoding={"text": "DELTA_BYTE_ARRAY"},
    )  # fmt: skip
    with pytest.raises(shmlog.errors.CorruptDataError, match="DeltaByteArray"):
        shmlog.import_run(tmp_path / "a.parquet", max_bytes=32 << 20)


def test_a_damaged_page_header_is_refused(tmp_path: Path) -> None:
    """Whatever byte of it that is."""
    path = tmp_path / "a.parquet"
    _write_parquet(path, _records(pa.array(["text"] * 5)))
    data = path.read_bytes()
    begin = pq.ParquetFile(path).metadata.row_group(0).column(0).dictionary_page_offset
    for place in range(begin, begin + 16):
        for byte in (0, 1, 0x15, 0x7F, 0x80, 0xFF):
            path.write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
            try:
                shmlog.import_run(path)
            except shmlog.errors.UnreadableError:
                pass


def test_lists_in_lists_without_an_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    _write_parquet(path, _records(pa.array(["text"] * 5)))
    data = bytearray(path.read_bytes())
    begin = pq.ParquetFile(path).metadata.row_group(0).column(0).dictionary_page_offset
    path.write_bytes(data[:begin] + b"\x19" * 3000 + data[begin:])
    with pytest.raises(shmlog.errors.CorruptDataError, match="damaged"):
        shmlog.import_run(path)


def test_json_that_takes_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"run": {}, "events": [], "metrics": [' + ",".join(["[]"] * 2_000_000) + "]}")
    _assert_refused(tmp_path, path)


def test_a_damaged_message_is_refused(tmp_path: Path) -> None:
    """Whatever byte it is that has changed."""
    path = tmp_path / "a.arrow"
    _write_arrow(path, _records(pa.array(["text"] * 5)))
    data = path.read_bytes()
    chance = random.Random(0)
    for _ in range(100):
        changed = bytearray(data)
        changed[chance.randrange(8, len(data))] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            shmlog.import_run(path)
        except shmlog.errors.UnreadableError:
            pass


def _one(field: pa.Field) -> pa.Scalar:
    kind = field.type
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(pa.array([0], kind.index_type), ["a"])[0]
    return pa.scalar(0, kind) if not pa.types.is_timestamp(kind) else pa.scalar(0, pa.int64()).cast(kind)
