"""Queries and files from strangers: bounded time, bounded memory, nothing of them is run (FAULTS 70 to 74)."""

from __future__ import annotations

import os
import pickle
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shmlog
from shmlog import CheckpointManager
from shmlog.cli.main import main
from shmlog.reader.verify import verify
from shmlog.storage.schema import METRICS
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
    except shmlog.QueryError:
        pass


@pytest.mark.parametrize("text", CODE)
def test_no_question_is_run(root: Path, text: str) -> None:
    """FAULTS 70: it is parsed by a grammar of its own."""
    for argument in ("where", "tags", "sort"):
        try:
            shmlog.Store(root).runs(**{argument: text})
        except shmlog.QueryError:
            pass
    with pytest.raises(shmlog.QueryError):
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
        with pytest.raises(shmlog.QueryError):
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
    "load_results_pickle": shmlog.load_results_pickle,
    "load_results_json": shmlog.load_results_json,
    "load_results_csv": shmlog.load_results_csv,
    "import_run": lambda path: shmlog.import_run(path, "runs"),
    "load_structured_logs": shmlog.load_structured_logs,
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
    folder.describe(complete=True, status="success", producers=[], dropped={})
    rows = 9_000_000
    alike = {
        field.name: pa.nulls(rows, field.type) if field.nullable else pa.repeat(_one(field), rows) for field in METRICS
    }
    path = folder.layout.part(0)
    pq.write_table(pa.table(alike, METRICS), path, compression="zstd", row_group_size=rows)
    assert path.stat().st_size < 1 << 20
    before = pa.total_allocated_bytes()
    del alike
    with pytest.warns(shmlog.ShmlogWarning, match="may fill the memory"):
        assert shmlog.load(folder.dir).metrics().num_rows == 0
    assert any("may fill the memory" in finding.message for finding in verify(folder.dir).findings)
    assert pa.total_allocated_bytes() <= before + MEMORY_BYTES


def _one(field: pa.Field) -> pa.Scalar:
    kind = field.type
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(pa.array([0], kind.index_type), ["a"])[0]
    return pa.scalar(0, kind) if not pa.types.is_timestamp(kind) else pa.scalar(0, pa.int64()).cast(kind)
