"""SQL and frames: every record once, live or sealed, and a query that can do nothing but read."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.cli import text
from shmlog.cli.commands.sql import rows_of
from shmlog.cli.main import main
from shmlog.errors import CorruptDataError, MissingExtraError, QueryError, ShmlogWarning
from shmlog.reader import sources
from shmlog.reader.model import flat_params
from shmlog.records import parts, schema
from shmlog.records.schema import METRICS
from tests.support.folders import Folder, fill, simple_log
from tests.support.frames import Log
from tests.support.stores import add_metrics, add_run, tree
from tests.unit.test_parts import repeated, writer_of_bombs

ROWS = 20 * 4 + 1

COLUMNS = ", ".join(f'"{name}"' for name in METRICS.names)
IN_ORDER = f"select {COLUMNS} from metrics order by step, ts, lane, seq"


def comparable(table: pa.Table) -> list[tuple[str, ...]]:
    """Return rows as texts, for NaN equals nothing; sorted."""
    return sorted(tuple(map(repr, row.values())) for row in table.select(METRICS.names).cast(METRICS).to_pylist())


@pytest.fixture
def live(tmp_path: Path) -> Folder:
    """Return a run of which one log is sealed and one is not."""
    folder = Folder(tmp_path / "runs" / "digits" / "live")
    log = simple_log()
    folder.add(log)
    folder.seal(1)
    log = log.next()
    fill(log)
    folder.add(log)
    return folder


# ---- what is seen ----


@pytest.mark.parametrize("sinks", [("parquet",), ("parquet", "jsonl"), ("jsonl",)])
@pytest.mark.parametrize("state", ["unsealed", "half", "complete"])
def test_sql_sees_each_record_once(tmp_path: Path, sinks: tuple[str, ...], state: str) -> None:
    folder = Folder(tmp_path / "runs" / "digits" / "one", sinks=sinks)
    log = simple_log()
    folder.add(log)
    if state != "unsealed":
        folder.seal(1)
        log = log.next()
        fill(log)
        folder.add(log)
    if state == "complete":
        folder.complete()
    stored = shmlog.load(folder.layout.dir)
    expected = comparable(stored.metrics())
    assert len(expected) == ROWS * (1 if state == "unsealed" else 2)
    assert comparable(stored.sql(f"select {COLUMNS} from metrics")) == expected
    assert comparable(shmlog.Store(tmp_path / "runs").sql(f"select {COLUMNS} from metrics")) == expected
    assert comparable(stored.scan().to_table()) == expected


def test_runs_are_told_apart(tmp_path: Path, live: Folder) -> None:
    add_metrics(tmp_path / "runs", "one")
    add_metrics(tmp_path / "runs", "one", experiment="letters")
    add_run(tmp_path / "runs", "empty", experiment="letters")
    store = shmlog.Store(tmp_path / "runs")
    counts = store.sql("select experiment, run_id, count(*) from metrics group by all order by all")
    assert [tuple(row.values()) for row in counts.to_pylist()] == [
        ("digits", "live", 2 * ROWS), ("digits", "one", ROWS), ("letters", "one", ROWS),
    ]  # fmt: skip
    only = store.sql("select count(*) as n from metrics where experiment = 'letters' and run_id = 'one'")
    assert only.to_pylist() == [{"n": ROWS}]
    joined = store.sql("select count(*) as n from runs left join metrics using (experiment, run_id) where step is null")
    assert joined.to_pylist() == [{"n": 1}]
    assert store.sql("select count(*) as n from events").to_pylist()[0]["n"] == 2 * len(store.load("live").events())


def test_sealed_records_are_scanned_in_place(tmp_path: Path, live: Folder) -> None:
    add_metrics(tmp_path / "runs", "one")
    store = shmlog.Store(tmp_path / "runs")
    plan = str(store.sql("select * from duckdb_views() where view_name = 'metrics'").to_pylist())
    assert plan.count(".parquet") == 2
    folder = Folder(tmp_path / "other" / "digits" / "done")
    folder.add(simple_log())
    folder.complete()
    view = shmlog.load(folder.layout.dir).sql("select sql as q from duckdb_views() where view_name = 'metrics'")
    assert "shmlog_unsealed" not in str(view.to_pylist())


def test_a_copied_run_keeps_its_names(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "digits" / "one")
    folder.add(simple_log())
    folder.complete()
    copy = tmp_path / "it's a [copy]* of {x},y?\n;--"
    folder.layout.dir.rename(copy)
    found = shmlog.load(copy).sql(
        "select distinct run_id, experiment from metrics join runs using (run_id, experiment)"
    )
    assert found.to_pylist() == [{"run_id": shmlog.load(copy).id, "experiment": shmlog.load(copy).experiment}]


def test_a_path_that_is_no_utf8(tmp_path: Path) -> None:
    """Not even pyarrow can open it, which is told; the rest is there."""
    root = tmp_path / os.fsdecode(b"\xff")
    add_metrics(root, "one")
    store = shmlog.Store(root)
    with pytest.warns(ShmlogWarning, match="utf-8"):
        assert store.sql("select * from metrics").num_rows == 0
    assert store.sql("select dir from runs").num_rows == 1


HOSTILE = ["x'; drop view metrics; --", 'a"b', "it''s", "läuft 🏃", "a.b/c d", "%s ? $1", "\\", "run_id", "step"]


def test_hostile_names_are_values(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "runs" / "digits" / "one")
    log = Log(0)
    lane = log.lane(0)
    lane.owner({"pid": 1})
    for i, name in enumerate(HOSTILE):
        lane.metric(name, i, i, i)
    log.frame()
    folder.add(log)
    folder.seal(1)
    stored = shmlog.load(folder.layout.dir)
    for i, name in enumerate(HOSTILE):
        found = stored.sql("select int_value from metrics where name = ?", [name])
        assert found.to_pylist() == [{"int_value": i}]
        assert stored.sql("select step from metrics where name = $n", {"n": name}).to_pylist() == [{"step": i}]
    pivoted = stored.pivot([name for name in HOSTILE if name != "step"])
    assert sorted(pivoted.column_names) == sorted(HOSTILE)
    with pytest.raises(ValueError, match="'step'"):
        stored.pivot()


def test_values_of_all_kinds(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "runs" / "digits" / "one")
    log = Log(0)
    lane = log.lane(0)
    lane.owner({"pid": 1})
    values: list[Any] = [math.nan, math.inf, -math.inf, -0.0, 2**63 - 1, -(2**63), True, False, "", "t" * 100, 5e-324]
    for i, value in enumerate(values):
        lane.metric("m", value, i, i)
    log.frame()
    folder.add(log)
    for seal in (False, True):
        if seal:
            folder.seal(1)
        rows = shmlog.load(folder.layout.dir).sql(IN_ORDER).to_pylist()
        found = [
            row["text"] if row["kind"] == "text" else row["value"] if row["kind"] == "float" else row["int_value"]
            for row in rows
        ]
        assert list(map(repr, found)) == [repr(int(v) if isinstance(v, bool) else v) for v in values]


def test_the_other_tables(tmp_path: Path) -> None:
    config = {"lr": 0.1, "model": {"name": "small", "layers": [1, 2]}, "on": True, "none": None, "a.b": "x"}
    with shmlog.init("digits", config=config, tags=["t1", "t2"]) as run:
        run.event("checked", {"a": [1, None, "ü"]})
        (run.dir / "artifacts").mkdir()
        (run.dir / "artifacts" / "f.txt").write_text("four")
    store = shmlog.Store("runs")
    params = {row["name"]: (row["value"], row["number"]) for row in store.sql("select * from params").to_pylist()}
    assert params == {
        "lr": ("0.1", 0.1), "model.name": ("small", None), "model.layers": ("[1, 2]", None), "on": ("true", None),
        "none": ("null", None), '"a.b"': ("x", None),
    }  # fmt: skip
    (row,) = store.sql("select * from runs").to_pylist()
    assert (row["run_id"], row["tags"], row["status"], row["events"]) == (run.id, ["t1", "t2"], "success", 4)
    (row,) = store.sql("select data->>'$.a[2]' as a, ts from events where event_type = 'checked'").to_pylist()
    assert row["a"] == "ü"
    assert row["ts"].utcoffset().total_seconds() == 0
    assert store.sql("select path, size_bytes from artifacts").to_pylist() == [{"path": "f.txt", "size_bytes": 4}]


def test_an_empty_store_and_an_empty_run(tmp_path: Path) -> None:
    store = shmlog.Store(tmp_path / "none")
    for name in ("metrics", "events", "runs", "params", "artifacts"):
        assert store.sql(f"select * from {name}").num_rows == 0
    stored = shmlog.load(add_run(tmp_path, "empty").dir)
    assert stored.sql("select * from metrics").num_rows == 0
    assert stored.scan().count_rows() == 0
    assert stored.pivot().to_pydict() == {"step": []}
    assert [len(array) for array in stored.to_numpy("x")] == [0, 0]
    assert len(stored.to_pandas()) == len(stored.to_polars()) == 0


def test_a_live_run_is_seen_as_it_grows_and_each_look_is_consistent() -> None:
    with shmlog.init("live") as run:
        loss = run.metric("loss")
        for step in range(300):
            loss(float(step), step)
            if step % 30 == 29:
                assert run.flush()
                query = "select count(*) as n, max(step) as last, count(distinct step) as d from metrics"
                found = shmlog.load(run.dir).sql(query).to_pylist()
                assert found == [{"n": step + 1, "last": step, "d": step + 1}]


def test_a_part_that_is_merged_meanwhile(live: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes from files that belong together, whatever happens during the query."""
    from shmlog.reader.sql import sql

    define, merged = sql._define_metrics, []

    def merge_then_define(*args: Any) -> Any:
        paths = define(*args)
        if not merged:
            merged.append(live.layout.parts())
            live.complete()
            live.merge()
        return paths

    monkeypatch.setattr(sql, "_define_metrics", merge_then_define)
    stored = shmlog.load(live.layout.dir)
    assert stored.sql("select count(*) as n from metrics").to_pylist() == [{"n": 2 * ROWS}]
    assert merged


def test_a_scan_outlives_a_merge(live: Folder) -> None:
    dataset = shmlog.load(live.layout.dir).scan()
    before = comparable(dataset.to_table())
    live.complete()
    live.merge()
    assert comparable(dataset.to_table()) == before
    assert dataset.to_table(filter=ds.field("name") == "loss", columns=["value"]).num_rows == 42


def test_a_part_that_is_sound_and_not_as_ours_are_is_read_into_memory_and_told(
    live: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise CorruptDataError(f"{path}: the page at byte 4 is not as it was written")

    monkeypatch.setattr(sources, "check_whole", refuse)
    with pytest.warns(ShmlogWarning, match="the whole run is read into memory"):
        assert shmlog.load(live.layout.dir).sql("select count(*) as n from metrics").to_pylist() == [{"n": 2 * ROWS}]


@pytest.mark.parametrize("damage", ["footer", "statistics", "page", "cut"])
def test_what_is_damaged_is_left_out_and_told(tmp_path: Path, damage: str) -> None:
    folder = Folder(tmp_path / "runs" / "digits" / "one")
    log = simple_log()
    folder.add(log)
    folder.seal(1)
    log = log.next()
    fill(log)
    folder.add(log)
    folder.seal(2)
    path = folder.layout.parts()[0].path
    data = bytearray(path.read_bytes())
    if damage == "cut":
        del data[len(data) // 2 :]
    elif damage == "statistics":
        statistics = pq.read_metadata(path).row_group(0).column(METRICS.get_field_index("name")).statistics
        data[data.rindex(statistics.max.encode())] -= 1  # so that who asks for it is told that it is not there
    else:
        at = len(data) - 40 if damage == "footer" else 4
        data[at : at + 30] = b"\xff" * 30
    path.write_bytes(data)
    with pytest.warns(ShmlogWarning, match="damaged"):
        found = shmlog.load(folder.layout.dir).sql(f"select {COLUMNS} from metrics")
    assert found.num_rows == ROWS
    with pytest.warns(ShmlogWarning, match="damaged"):
        assert shmlog.Store(tmp_path / "runs").sql("select * from metrics").num_rows == ROWS


@pytest.mark.parametrize("encoding", ["dictionary", "plain"])
def test_texts_that_would_fill_the_memory_are_left_out_and_told(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 74: a part of some kilobytes is handed to no other library."""
    folder = Folder(tmp_path / "runs" / "digits" / "bomb")
    producer = {"lane": 0, "tenancy": 1, "metrics": 600, "events": 0, "dropped": {}}
    folder.describe(complete=True, status="success", producers=[producer], dropped={})
    monkeypatch.setattr(parts, "TEXT_BYTES", 16 << 20)
    with writer_of_bombs(monkeypatch, encoding):
        path = folder.layout.part(0)
        parts.write_part(path, repeated(1 << 16, 600), run_id="bomb", first=0, last=0, progress=lambda: None)
    assert path.stat().st_size < 100_000
    stored = shmlog.load(folder.dir)
    with pytest.warns(ShmlogWarning, match=r"bytes of text, .*refused"):
        assert stored.sql("select max(length(text)) as n from metrics").to_pylist() == [{"n": None}]
    with pytest.warns(ShmlogWarning, match=r"bytes of text, .*refused"):
        assert stored.scan().count_rows() == 0


def test_a_run_without_run_yaml_is_told(tmp_path: Path) -> None:
    add_metrics(tmp_path, "one")
    add_metrics(tmp_path, "two").run_yaml.unlink()
    with pytest.warns(ShmlogWarning, match=r"two: no run\.yaml") as told:
        assert shmlog.Store(tmp_path).sql("select * from metrics").num_rows == ROWS
    assert told[0].filename == __file__


# ---- what a query can't do ----


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sql") / "runs"
    add_metrics(root, "one")
    return root


def attacks(root: Path) -> Iterator[str]:
    part = next(root.rglob("*.parquet"))
    yield from (
        "copy metrics to 'out.csv'",
        f"copy metrics to '{part}' (use_tmp_file false)",
        "copy (select 1) to '/dev/stdout'",
        "explain analyze copy metrics to 'out.csv'",
        "attach 'out.db'",
        "attach 'out.db' as x; create table x.t as select 1",
        "export database 'out'",
        "install httpfs",
        "load httpfs",
        "force install httpfs from community",
        "create table t as select 1",
        "create view v as select 1",
        "create or replace view metrics as select 1",
        "create macro f(x) as x",
        "create secret s (type s3)",
        "drop view metrics",
        "delete from metrics",
        "insert into metrics select * from metrics",
        "update metrics set value = 0",
        "set enable_external_access = true",
        "reset enable_external_access",
        "pragma enable_external_access",
        "call pragma_version()",
        "prepare p as select 1",
        "execute p",
        "vacuum",
        "begin",
        "use memory",
        "checkpoint",
        "select 1; select 2",
        "select 1; copy metrics to 'out.csv'",
        "with t as (select 1) insert into metrics select * from t",
        "",
        ";;",
        "-- nothing",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_text('/etc/passwd')",
        "select * from read_blob('/etc/passwd')",
        "select * from read_json('/etc/passwd')",
        f"select * from read_csv('{root}/digits/one/run.yaml')",
        f"select * from read_parquet('{root}/*/*/*/*/*.parquet')",
        "select * from read_parquet('/tmp/x.parquet')",
        "select * from parquet_metadata('/tmp/x.parquet')",
        "select * from sniff_csv('/etc/passwd')",
        "select * from glob('/etc/*')",
        "select * from 'http://127.0.0.1:9/x.parquet'",
        "select * from 's3://bucket/x.parquet'",
        "select getenv('HOME')",
        "select * from secret",
        "select * from table_of_mine",
        "select * from query('copy metrics to ''out.csv''')",
        "select * from query_table('/etc/passwd')",
        "select 1\0; copy metrics to 'out.csv'; select 1",
        "from metrics where",
        "select nothing from metrics",
        "select cast('x' as integer)",
        "select ? from metrics",
    )


def test_no_query_does_harm(harmless: Path) -> None:
    """FAULTS 70: DuckDB reads these runs and nothing else."""
    secret = table_of_mine = pa.table({"x": [1]})  # noqa: F841 - a query must not find our variables
    before = tree(harmless)
    for stored in (shmlog.Store(harmless), shmlog.load(harmless / "digits" / "one")):
        for query in attacks(harmless):
            with pytest.raises(QueryError) as raised:
                stored.sql(query)
            assert str(raised.value).strip(), query
    assert tree(harmless) == before
    assert list(Path.cwd().iterdir()) == []


def test_nothing_of_the_home_folder_is_read_or_made(harmless: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".duckdbrc").write_text("create table of_duckdbrc as select 1;")
    ask = (
        "import shmlog, sys; s = shmlog.Store(sys.argv[1])\n"
        "assert s.sql('select count(*) as n from metrics').to_pylist() == [{'n': 81}]\n"
        "try: s.sql('from of_duckdbrc')\nexcept shmlog.errors.QueryError: pass\nelse: raise AssertionError"
    )
    environment = {**os.environ, "HOME": str(home)}
    subprocess.run([sys.executable, "-c", ask, str(harmless)], env=environment, timeout=60, check=True)
    assert [path.name for path in home.iterdir()] == [".duckdbrc"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_any_text_is_an_answer_or_a_query_error(harmless: Path, text: str) -> None:
    for query in (text, f"select * from metrics where name = '{text}'", f'select "{text}" from metrics'):
        try:
            shmlog.load(harmless / "digits" / "one").sql(query)
        except QueryError:
            pass
    found = shmlog.load(harmless / "digits" / "one").sql("select ? as x", [text.replace("\0", "")])
    assert found.to_pylist() == [{"x": text.replace("\0", "")}]


def test_without_duckdb(harmless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, extra in (("duckdb", "sql"), ("pandas", "pandas"), ("polars", "polars")):
        monkeypatch.setitem(sys.modules, package, None)
        stored = shmlog.load(harmless / "digits" / "one")
        with pytest.raises(MissingExtraError, match=rf"shmlog\[{extra}\]"):
            stored.sql("select 1") if extra == "sql" else getattr(stored, f"to_{package}")()


# ---- frames ----

VALUES = st.one_of(
    st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans(), st.text(st.characters(codec="utf-8"), max_size=12)
)
RECORDS = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), VALUES, st.integers(0, 6)), max_size=30)


def make_run(folder: Path, recorded: list[tuple[str, Any, int]]) -> shmlog.StoredRun:
    made = Folder(folder / f"x{len(list(folder.iterdir()))}")
    log = Log(0)
    lane = log.lane(0)
    lane.owner({"pid": 1})
    for ts, (name, value, step) in enumerate(recorded):
        lane.metric(name, value, step, ts * 1000)
    log.frame()
    made.add(log)
    if len(recorded) % 2:
        made.seal(1)
    return shmlog.load(made.layout.dir)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recorded=RECORDS)
def test_frames_hold_what_metrics_holds(tmp_path: Path, recorded: list[tuple[str, Any, int]]) -> None:
    stored = make_run(tmp_path, recorded)
    table = stored.metrics()
    frame = stored.to_pandas()
    assert list(frame.columns) == schema.RECORDS.names
    for column in schema.RECORDS.names:  # pandas has one word for NaN and for nothing
        expected = [None if value != value else value for value in table[column].to_pylist()]
        assert [None if pd.isna(value) else value for value in frame[column]] == expected
    plain = stored.to_polars().to_arrow()
    assert plain.column_names == schema.RECORDS.names
    assert [repr(x) for x in plain["value"].to_pylist()] == [repr(x) for x in table["value"].to_pylist()]
    assert plain["int_value"].to_pylist() == table["int_value"].to_pylist()
    for name in ("a", "b", "c", "absent"):
        own = table.filter(pa.compute.equal(table["name"], name))
        steps, values = stored.to_numpy(name)
        assert (steps.dtype, values.dtype) == (np.int64, np.float64)
        assert steps.tolist() == own["step"].to_pylist()
        np.testing.assert_array_equal(
            values, np.array([math.nan if v is None else v for v in own["value"].to_pylist()])
        )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recorded=RECORDS)
def test_pivot_has_the_last_value_of_each_step(tmp_path: Path, recorded: list[tuple[str, Any, int]]) -> None:
    found = make_run(tmp_path, recorded).pivot()
    last = {(name, step): value for name, value, step in recorded}
    kinds = {name: {type(value) for other, value, _ in recorded if other == name} for name, _, _ in recorded}
    assert found.column_names == ["step", *sorted(kinds)]
    assert found["step"].to_pylist() == sorted({step for _, _, step in recorded})
    for name in kinds:
        for step, value in zip(found["step"].to_pylist(), found[name].to_pylist(), strict=True):
            expected = last.get((name, step))
            if len(kinds[name]) > 1 and expected is not None:
                expected = None if isinstance(expected, str) else float(expected)
            assert repr(value) == repr(expected)


def test_pivot_by_pandas(harmless: Path) -> None:
    stored = shmlog.load(harmless / "digits" / "one")
    frame = stored.to_pandas("loss")
    expected = frame.pivot_table(index="step", values="value", aggfunc="last", dropna=False)["value"]
    found = stored.pivot("loss").to_pandas().set_index("step")["loss"]
    np.testing.assert_array_equal(found.to_numpy()[:-1], expected.to_numpy()[: len(found) - 1])


def test_a_scan_for_polars_and_duckdb(harmless: Path) -> None:
    import polars as pl

    dataset = shmlog.load(harmless / "digits" / "one").scan()
    lazy = pl.scan_pyarrow_dataset(dataset).filter(pl.col("name") == "n").select(pl.col("value").sum())
    assert lazy.collect().item() == sum(range(20))
    with duckdb.connect() as connection:
        connection.register("metrics", dataset)
        assert connection.sql("select count(*) from metrics").fetchall() == [(ROWS,)]


# ---- the command ----


def test_csv_is_neither_a_formula_nor_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(add_metrics(tmp_path, "cells").dir)
    query = ["sql", "select '=1+1' as \"@name\", -1.5 as number, chr(27) || '[2J' as screen", run, "--csv"]
    assert main(query) == 0
    assert capsys.readouterr().out == "'@name,number,screen\n'=1+1,-1.5,\x1b[2J\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(query) == 0
    assert capsys.readouterr().out.splitlines()[1] == "'=1+1,-1.5,\\x1b[2J"


def test_the_command(harmless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = "select name, count(*) as n from metrics group by name order by name"
    assert main(["sql", query, "--root", str(harmless)]) == 0
    assert capsys.readouterr().out.split() == ["name", "n", "good", "20", "loss", "21", "n", "20", "note", "20"]
    run = str(harmless / "digits" / "one")
    assert main(["sql", query, run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1] == {"name": "loss", "n": 21}
    assert main(["sql", "select 'a,\"b' as x, [1, 2] as y, null as z", run, "--csv"]) == 0
    assert capsys.readouterr().out == 'x,y,z\n"a,""b","[1, 2]",\n'
    assert main(["sql", "select * from metrics", run, "--limit", "3"]) == 0
    out = capsys.readouterr()
    assert len(out.out.splitlines()) == 4
    assert "78 more rows" in out.err


@pytest.mark.parametrize(
    ("words", "code"),
    [(["copy metrics to 'x'"], 2), (["select 1", "nowhere"], 3), (["select 1", "--json", "--csv"], 2)],
)
def test_the_command_fails_in_one_line(
    words: list[str], code: int, harmless: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sql", *words, *(["--root", str(harmless)] if "nowhere" not in words else [])]) == code
    err = capsys.readouterr().err
    assert err.startswith("shmlog: error: ")
    assert err.count("\n") == 1


def test_columns_of_one_name_are_kept_apart() -> None:
    table = pa.Table.from_arrays([pa.array([i]) for i in range(4)], names=["a", "a", "a_1", "a"])
    assert rows_of(table) == [{"a": 0, "a_1": 1, "a_1_1": 2, "a_2": 3}]


@given(
    rows=st.lists(st.lists(st.text(st.characters(min_codepoint=32)), min_size=5, max_size=5)),
    columns=st.integers(1, 120),
)
def test_a_table_fits_the_window(rows: list[list[str | None]], columns: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shmlog.cli.text.window_columns", lambda: columns)
        lines = list(text.table(["first", "second", "third", "fourth", "fifth column"], rows))
    assert max(map(text.width, lines)) <= columns


def test_dotted_names_of_parameters() -> None:
    assert flat_params({"a": {"b": 1, "c.d": 2}, "": 3, "e": {}, "f": []}) == {
        "a.b": 1, 'a."c.d"': 2, '""': 3, "e": {}, "f": [],
    }  # fmt: skip


def test_an_error_of_the_query_reads_no_part(harmless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a part was read")

    monkeypatch.setattr("shmlog.reader.read._read_parts", refuse)
    for query in (
        "select nothing from metrics",
        "select cast(name as integer) from metrics",
        "select f(value) from metrics",
    ):
        with pytest.raises(QueryError):
            shmlog.Store(harmless).sql(query)
