"""Exports: of runs in every format, and of results as lists of dicts."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.cli.main import main
from shmlog.cli.progress import ProgressBar
from shmlog.folder.layout import RunLayout
from shmlog.records import parts
from shmlog.records.schema import METRICS
from shmlog.results import (
    create_results_dataframe,
    export_all_formats,
    export_results_csv,
    export_results_json,
    export_results_pickle,
    export_summary_statistics,
    load_results_csv,
    load_results_json,
    load_results_pickle,
)
from shmlog.transfer.cells import guard, guard_column, unguard, unguard_column
from tests.support.records import HOSTILE, INT64, RECORDS, TEXTS, bits, make_run, records_of, sound

pc: Any = pyarrow.compute  # its stubs refuse most of the calls it takes

MANY = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

ALL_KINDS = [
    ("loss", 0, -1.5, 1_000_000, None), ("loss", 1, float("nan"), 2_000_000, 0), ("loss", 2, -0.0, 2_000_001, 0),
    ("n", 0, 2**62 + 1, 1_000_000, None), ("ok", 0, True, 1_000_000, None),
    ("=cmd|' /C calc'!A0", 0, "=1+1", 1_000_000, None),
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> shmlog.StoredRun:
    return make_run(tmp_path / "runs", ALL_KINDS)


# ---- runs, there and back ----


@pytest.mark.parametrize("suffix", ["json", "csv", "parquet", "arrow"])
@MANY
@given(records=RECORDS)
def test_every_kind_comes_back_as_it_was(
    suffix: str, records: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    run = make_run(folder / "runs", records)
    (path,) = shmlog.export_run(run, folder / f"run.{suffix}")
    if suffix == "csv" and not records:  # it holds metrics alone
        with pytest.raises(shmlog.errors.RefusedError, match="holds nothing that can be imported"):
            shmlog.import_run(path, folder / "back")
        return
    report = shmlog.import_run(path, folder / "back")
    assert report.problems == ()
    back = sound(report.dir)
    assert records_of(back.metrics()) == records_of(run.metrics())
    if suffix != "csv":
        assert back.config == run.config
        assert (back.status, back.metadata["tags"]) == ("success", ["t"])
    if suffix == "json":
        assert back.events() == run.events()


@settings(MANY, max_examples=15)
@given(records=RECORDS)
def test_floats_texts_and_bools_survive_an_event_file(
    records: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("trip")
    records = [(n, s, float(v) if isinstance(v, int) and abs(v) > 2**53 else v, t, r) for n, s, v, t, r in records]
    run = make_run(folder / "runs", records)
    (path,) = shmlog.export_run(run, folder / "tb", "tensorboard")
    back = sound(shmlog.import_run(path, folder / "back").dir)
    found = [(r["name"], r["step"], r["ts"], bits(r["value"]), r["text"]) for r in rows_in_order(back)]
    assert found == [(r["name"], r["step"], r["ts"], bits(r["value"]), r["text"]) for r in rows_in_order(run)]
    assert back.config == run.config


def rows_in_order(run: shmlog.StoredRun) -> list[dict[str, Any]]:
    rows = run.metrics().to_pylist()
    return sorted(rows, key=lambda r: (r["step"], r["ts"], r["name"], repr(bits(r["value"])), str(r["text"])))


def test_prometheus_itself_reads_the_last_values(tmp_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    name = 'say "hi"\\\n'
    records = [
        ("loss", 0, 1.5, 1, 0), ("loss", 1, 0.25, 2, 0), ("loss", 1, math.nan, 3, 1), ("loss", 2, "late", 4, 0),
        (name, 7, -math.inf, 5, None), ("n", 3, 2**53, 6, None), ("ok", 4, True, 7, None),
    ]  # fmt: skip
    run = make_run(tmp_path / "runs", records)
    (path,) = shmlog.export_run(run, tmp_path / "out.prom")
    families = {family.name: family.samples for family in text_string_to_metric_families(path.read_text())}
    values = {(s.labels["metric"], s.labels.get("rank")): s.value for s in families["shmlog_metric"]}
    assert math.isnan(values.pop(("loss", "1")))
    assert values == {("loss", "0"): 0.25, (name, None): -math.inf, ("n", None): 2.0**53, ("ok", None): 1.0}
    steps = {(s.labels["metric"], s.labels.get("rank")): s.value for s in families["shmlog_metric_step"]}
    assert steps == {("loss", "0"): 1, ("loss", "1"): 1, (name, None): 7, ("n", None): 3, ("ok", None): 4}
    (status,) = families["shmlog_run_status"]
    assert status.labels == {"experiment": run.experiment, "run": run.id, "status": "success"}
    assert "shmlog_run_dropped_records" not in families
    with pytest.raises(ValueError, match="'prometheus' can't mark superseded records"):
        shmlog.export_run(run, path, superseded=True)


def test_tensorboard_itself_reads_what_is_written(run: shmlog.StoredRun, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.warns(shmlog.ShmlogWarning, match="1 ints of more than 53 bits"):
        (path,) = shmlog.export_run(run, tmp_path / "tb", "tensorboard")
    with pytest.warns(shmlog.ShmlogWarning):
        assert shmlog.export_run(run, tmp_path / "tb", "tensorboard") == [path]  # no second file beside it
    found = EventAccumulator(str(path))
    found.Reload()
    assert {"loss", "n", "ok"} <= set(found.Tags()["tensors"])
    assert [event.step for event in found.Tensors("loss")] == [0, 1, 2]
    assert found.Tensors("loss")[0].tensor_proto.double_val == [-1.5]


def test_without_tensorboard_the_error_says_what_to_install(
    run: shmlog.StoredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(shmlog.errors.MissingExtraError, match=r"shmlog\[tensorboard\]"):
        shmlog.export_run(run, tmp_path / "tb", "tensorboard")
    assert not (tmp_path / "tb").exists()


def test_without_tensorboard_all_is_the_other_formats_and_nothing_more(
    run: shmlog.StoredRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    written = shmlog.export_run(run, tmp_path / "out", "all")
    assert {path.suffix for path in written} == {".json", ".csv", ".parquet", ".arrow"}
    assert sorted((tmp_path / "out").iterdir()) == sorted(written)


# ---- single formats ----


def test_csv_keeps_numbers_and_disarms_texts(run: shmlog.StoredRun, tmp_path: Path) -> None:
    """FAULTS 68: -1.5 stays a number."""
    shmlog.export_run(run, tmp_path / "a.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert {row["name"]: row["value"] for row in rows}["loss"] == "-0"
    assert "-1.5" in {row["value"] for row in rows}
    assert [row["text"] for row in rows if row["kind"] == "text"] == ["'=1+1"]
    assert {row["name"] for row in rows} == {"loss", "n", "ok", "'=cmd|' /C calc'!A0"}


def test_wide_csv_has_a_row_for_each_call_and_sorted_columns(run: shmlog.StoredRun, tmp_path: Path) -> None:
    shmlog.export_run(run, tmp_path / "a.csv", "wide-csv")
    head, *rows = csv.reader(io.StringIO((tmp_path / "a.csv").read_text()))
    assert head == ["step", "ts", "rank", "local_rank", "worker", "'=cmd|' /C calc'!A0", "loss", "n", "ok"]
    assert [row[5:] for row in rows] == [
        ["'=1+1", "-1.5", str(2**62 + 1), "true"], ["", "nan", "", ""], ["", "-0", "", ""],
    ]  # fmt: skip


def test_wide_csv_keeps_what_a_call_has_twice(tmp_path: Path) -> None:
    run = make_run(
        tmp_path, [("x", 0, 1.5, 1, None), ("x", 0, 2.5, 1, None), ("y", 0, True, 1, None), ("y", 1, "t", 1, 0)]
    )
    shmlog.export_run(run, tmp_path / "a.csv", "wide-csv")
    _, *rows = csv.reader(io.StringIO((tmp_path / "a.csv").read_text()))
    assert [row[5:] for row in rows] == [["1.5", "1"], ["2.5", ""], ["", "t"]]


@pytest.mark.parametrize("format", ["csv", "wide-csv", "json", "parquet", "arrow", "summary", "pickle"])
def test_a_run_without_metrics(format: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, [])
    assert shmlog.export_run(run, tmp_path / "out", format) == [tmp_path / "out"]
    assert (tmp_path / "out").stat().st_size


def test_others_read_parquet_and_arrow(run: shmlog.StoredRun, tmp_path: Path) -> None:
    shmlog.export_run(run, tmp_path / "a.parquet")
    shmlog.export_run(run, tmp_path / "a.arrow")
    assert pq.read_table(tmp_path / "a.parquet").num_rows == len(ALL_KINDS)
    assert pyarrow.feather.read_table(tmp_path / "a.arrow").num_rows == len(ALL_KINDS)
    assert pd.read_parquet(tmp_path / "a.parquet")["value"].iloc[0] == -1.5


def test_summary_and_json_are_strict(run: shmlog.StoredRun, tmp_path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    for format in ("summary", "json"):
        shmlog.export_run(run, tmp_path / "a.json", format)
        found = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    shmlog.export_run(run, tmp_path / "s.json", "summary")
    found = json.loads((tmp_path / "s.json").read_text())["statistics"]["loss"]
    assert (found["count"], found["non_finite"], found["min"], found["mean"]) == (2, 1, -1.5, -0.75)


def test_pickle_is_written_only_when_it_is_named(run: shmlog.StoredRun, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not say which format"):
        shmlog.export_run(run, tmp_path / "a.pkl")
    shmlog.export_run(run, tmp_path / "a.pkl", "pickle")
    assert pickle.loads((tmp_path / "a.pkl").read_bytes())["metrics"]["step"] == [0, 0, 0, 0, 1, 2]


def test_what_was_there_stays_when_writing_fails(run: shmlog.StoredRun, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("before")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shmlog.export_run(run, tmp_path / "a.csv", progress=stop)
    assert (tmp_path / "a.csv").read_text() == "before"
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "runs"]
    with pytest.raises(shmlog.errors.StorageError):
        shmlog.export_run(run, tmp_path / "a.csv" / "b.csv")


def test_a_live_run_is_exported(tmp_path: Path) -> None:
    with shmlog.init("live", root=tmp_path) as live:
        live.log("loss", 0.5, step=1)
        live.flush()
        out = io.BytesIO()
        assert shmlog.export_run(live.dir, out, "json") == []
    assert json.loads(out.getvalue())["run"]["status"] == "running"


def test_a_run_is_exported_whatever_it_is_given_as(tmp_path: Path) -> None:
    with shmlog.init("live", root=tmp_path) as live:
        live.log("loss", 0.5, step=1)
        assert live.flush()
        store = shmlog.Store(tmp_path)
        record = store.get(live.id)
        for given in (live, live.dir, str(live.dir), record, store.load(record)):
            out = io.BytesIO()
            shmlog.export_run(given, out, "csv")
            assert '1,"loss",0.5,' in out.getvalue().decode(), given


@pytest.mark.parametrize("given", [None, 3, b"runs", {"dir": "runs"}])
def test_what_is_no_run_is_refused_with_what_is_one(given: Any) -> None:
    with pytest.raises(TypeError, match=f"folder of a run, or .* such as a Run; not {type(given).__name__}$"):
        shmlog.export_run(given, io.BytesIO(), "csv")


# ---- formulas ----


@pytest.mark.parametrize(
    "text", ["=1", "+1", "-1", "@A1", "\tx", "\rx", "\nx", "\x00x", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]
)
def test_formulas_become_texts(text: str) -> None:
    """FAULTS 68: no text of ours begins as a formula does."""
    assert guard(text) == f"'{text}"


@given(TEXTS)
def test_guarding_is_undone_exactly(text: str) -> None:
    assert unguard(guard(text)) == text
    column = pyarrow.chunked_array([pyarrow.array([text, None])])
    assert guard_column(column).to_pylist() == [guard(text), None]
    assert unguard_column(guard_column(column)).to_pylist() == [text, None]
    codes = pyarrow.array([text]).dictionary_encode()
    assert guard_column(codes).to_pylist() == [guard(text)]


# ---- results ----

FIELDS = st.dictionaries(TEXTS, st.floats() | INT64 | st.booleans() | TEXTS, max_size=5)
RESULTS = st.lists(FIELDS, max_size=5)


def exact(results: Any) -> Any:
    return [{name: bits(value) for name, value in one.items()} for one in results]


@MANY
@given(results=RESULTS)
def test_results_come_back_as_they_were(results: Any, tmp_path: Path) -> None:
    export_results_json(results, tmp_path / "r.json", {"by": "me"})
    document = load_results_json(tmp_path / "r.json")
    assert exact(document["results"]) == exact(results)
    assert (document["num_experiments"], document["metadata"]) == (len(results), {"by": "me"})
    export_results_csv(results, tmp_path / "r.csv")
    assert exact(load_results_csv(tmp_path / "r.csv")) == exact(results)
    export_results_pickle(results, tmp_path / "r.pkl")
    assert exact(load_results_pickle(tmp_path / "r.pkl", allow_pickle=True)["results"]) == exact(results)


def test_a_pickle_is_not_loaded_unless_it_is_allowed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "r.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(shmlog.errors.UnsafeDataError, match="allow_pickle=True"):
        load_results_pickle(tmp_path / "r.pkl")
    assert not (tmp_path / "sprung").exists()


def test_numpy_values_and_nested_dicts(tmp_path: Path) -> None:
    results = [{"a": np.float32(0.5), "b": {"c": np.arange(2), "d": np.bool_(True)}, "n": np.int64(3)}, {"z": None}]
    export_results_json(results, tmp_path / "r.json", pretty=False)
    plain = [{"a": 0.5, "b": {"c": [0, 1], "d": True}, "n": 3}, {"z": None}]
    assert load_results_json(tmp_path / "r.json")["results"] == plain
    export_results_csv(results, tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text() == '"a","b.c","b.d","n","z"\n0.5,"[0, 1]",True,3,\n,,,,\n'
    export_results_csv(results, tmp_path / "r.csv", flatten_nested=False)
    assert json.loads(load_results_csv(tmp_path / "r.csv")[0]["b"]) == plain[0]["b"]


def test_results_that_cannot_be_written_write_nothing(tmp_path: Path) -> None:
    for results, error in (
        ([{"a": object()}], TypeError), ([{1: "x", "1": "y"}], ValueError), ({"a": 1}, TypeError), ("ab", TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            export_results_json(results, tmp_path / "r.json")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="two fields"):
        export_results_csv([{"a.b": 1, "a": {"b": 2}}], tmp_path / "r.csv")
    assert os.listdir(tmp_path) == []


def test_statistics_of_every_numeric_field(tmp_path: Path) -> None:
    results = [
        {"acc": 0.9, "loss": 0.25, "m": {"f1": 1}},
        {"acc": 0.95, "loss": float("nan")},
        {"acc": 0.92, "ok": True},
    ]
    export_summary_statistics(results, tmp_path / "s.json")
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["num_experiments"] == 3
    assert set(found["statistics"]) == {"acc", "loss", "m.f1"}
    assert found["statistics"]["acc"]["std"] == pytest.approx(0.02055, abs=1e-5)
    assert found["statistics"]["acc"]["median"] == 0.92
    assert found["statistics"]["loss"]["non_finite"] == 1


def test_all_formats_at_once(tmp_path: Path) -> None:
    paths = export_all_formats([{"a": 1}], tmp_path / "out", "base")
    assert sorted(os.listdir(tmp_path / "out")) == ["base.csv", "base.json", "base_summary.json"]
    assert set(paths) == {"json", "csv", "summary"}
    export_all_formats([{"a": 1}], tmp_path / "out", "base", pickle=True)
    assert (tmp_path / "out" / "base.pkl").exists()
    with pytest.raises(ValueError, match="not the name of a file"):
        export_all_formats([], tmp_path, "../x")


def test_a_data_frame_of_results() -> None:
    frame = create_results_dataframe([{"b": 1, "a": {"x": 2.5}}, {"c": "t"}])
    assert list(frame.columns) == ["a.x", "b", "c"]
    assert frame["a.x"].iloc[0] == 2.5


@pytest.mark.parametrize("text", ["{}", "[", '{"results": 3}', '{"results": [], "non_finite": [[0]]}', "\xff"])
def test_files_that_are_no_results(text: str, tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(text.encode("latin-1"))
    with pytest.raises(shmlog.errors.CorruptDataError):
        load_results_json(tmp_path / "r")
    with pytest.raises(shmlog.errors.CorruptDataError):
        load_results_pickle(tmp_path / "r", allow_pickle=True)


@pytest.mark.parametrize("text", ['"a\n', '"a","a"\n', '"a"\n1,2\n', '"a"x\n'])
def test_files_that_are_no_csv(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(shmlog.errors.UnreadableError):
        load_results_csv(tmp_path / "r.csv")


# ---- command line ----


def test_export_to_stdout_and_to_a_file(run: shmlog.StoredRun, capfdbinary: Any, monkeypatch: Any) -> None:
    assert main(["export", str(run.dir)]) == 0
    out, err = capfdbinary.readouterr()
    assert out.startswith(b'"step","name"')
    assert err == b""
    assert main(["export", str(run.dir), "-f", "json", "-o", "-"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["run"]["run_id"] == "a"
    assert main(["export", str(run.dir), "-o", "out/a.parquet"]) == 0
    assert b"wrote out/a.parquet" in capfdbinary.readouterr().err
    assert main(["export", str(run.dir), "-o", "a.csv", "--json"]) == 0
    assert json.loads(capfdbinary.readouterr().out)["files"][0]["path"] == "a.csv"


@pytest.mark.parametrize("words", [["-f", "all"], ["-f", "tensorboard"], ["-f", "csv", "--json"]])
def test_wrong_usage_of_export(words: list[str], run: shmlog.StoredRun) -> None:
    assert main(["export", str(run.dir), *words]) == 2


def test_a_bar_only_on_a_terminal_and_only_if_it_takes_long(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shmlog.cli.progress._WAIT_S", 0.0)
    with ProgressBar("export a") as bar:
        bar.update(1, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with ProgressBar("export a") as bar:
        bar.update(1, 2)
    err = capsys.readouterr().err
    assert "export a [###############               ]  50% 1" in err
    assert err.endswith("\r\x1b[K")


def test_hostile_names_are_names(tmp_path: Path) -> None:
    names = sorted(filter(None, HOSTILE))
    run = make_run(tmp_path, [(name, 0, 1.5, 1, None) for name in names])
    (path,) = shmlog.export_run(run, tmp_path / "a.csv")
    assert shmlog.load(shmlog.import_run(path, tmp_path / "back").dir).names() == names


# ---- attempts ----


@pytest.fixture
def resumed(tmp_path: Path) -> shmlog.StoredRun:
    """Return a run whose second attempt has gone back from step 3 to step 1, and has logged nothing else again."""
    run = make_run(tmp_path / "runs", [("loss", step, float(step), step + 1, 0) for step in range(4)])
    table = run.metrics().select(METRICS.names)
    layout = RunLayout(run.dir)
    again = pa.table(
        {
            **{name: table[name] for name in METRICS.names},
            "value": pc.add(table["value"], 10.0),
            "ts": pc.add(table["ts"], pa.scalar(60_000_000, pa.duration("us"))),
            "lane": pa.array([1] * 4, pa.int32()),
        },
        METRICS,
    ).slice(1)
    both = pa.concat_tables([table, again])
    parts.write_part(layout.part(0), both, run_id=run.id, first=0, last=0, progress=lambda: None)
    first, second = run.described.first_attempt(), {"attempt": 2, "first_lane": 1}
    producers = [*run.producers, {**run.producers[0], "lane": 1, "metrics": again.num_rows, "events": 0}]
    run.described.changed(attempt=2, attempts=[first, {**first, **second}], producers=producers).write(layout)
    return shmlog.load(run.dir)


CURVE = [(0, 0.0), (1, 11.0), (2, 12.0), (3, 13.0)]


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet", "arrow"])
def test_an_export_holds_the_curve_or_all_attempts(resumed: shmlog.StoredRun, suffix: str, tmp_path: Path) -> None:
    """With the option that `metrics` has, of the same name; an import of either is the curve."""
    (plain,) = shmlog.export_run(resumed, tmp_path / f"curve.{suffix}")
    (marked,) = shmlog.export_run(resumed, tmp_path / f"all.{suffix}", superseded=True)
    for path, problems in ((plain, ()), (marked, ("3 records that a later attempt has superseded; left out",))):
        report = shmlog.import_run(path, tmp_path / "back")
        assert report.problems == problems
        table = shmlog.load(report.dir).metrics()
        assert list(zip(table["step"].to_pylist(), table["value"].to_pylist(), strict=True)) == CURVE


def test_each_format_tells_the_attempts_apart(resumed: shmlog.StoredRun, tmp_path: Path) -> None:
    due = [(0, 0.0, 1, False)]
    due += [row for step in (1, 2, 3) for row in ((step, float(step), 1, True), (step, 10.0 + step, 2, False))]
    names = ["step", "value", "attempt", "superseded"]
    for format, read in (("parquet", pq.read_table), ("arrow", pyarrow.feather.read_table)):
        (path,) = shmlog.export_run(resumed, tmp_path / f"a.{format}", superseded=True)
        assert [tuple(row.values()) for row in read(path).select(names).to_pylist()] == due
    (path,) = shmlog.export_run(resumed, tmp_path / "a.json", superseded=True)
    assert [tuple(row[name] for name in names) for row in json.loads(path.read_text())["metrics"]] == due
    assert main(["export", str(resumed.dir), "--superseded", "-o", "a.csv"]) == 0
    assert list(pd.read_csv("a.csv")[names].itertuples(index=False, name=None)) == due
    (path,) = shmlog.export_run(resumed, tmp_path / "w.csv", "wide-csv", superseded=True)
    wide = pd.read_csv(path)[["step", "loss", "attempt"]]
    assert list(wide.itertuples(index=False, name=None)) == [row[:3] for row in due]


def test_formats_without_attempts_are_of_the_curve(resumed: shmlog.StoredRun, tmp_path: Path) -> None:
    for format in ("summary", "tensorboard"):
        with pytest.raises(ValueError, match="can't mark superseded records"):
            shmlog.export_run(resumed, tmp_path / "out", format, superseded=True)
    shmlog.export_run(resumed, tmp_path / "all", "all", superseded=True)
    found = json.loads((tmp_path / "all" / "a_summary.json").read_text())["statistics"]["loss"]
    assert (found["count"], found["last"]) == (4, 13.0)
    assert pq.read_table(tmp_path / "all" / "a.parquet").num_rows == 7


@pytest.mark.parametrize(
    ("results", "target", "message"),
    [
        (None, "r", r"results must be a list of dicts, not NoneType"),
        ("text", "r", r"not str"),
        ([{"a": 1}, 2], "r", r"but results\[1\] is int"),
        ([{"a": 1}], None, r"goes to a path or to a binary stream, not to NoneType"),
    ],
)
@pytest.mark.parametrize("export", [export_results_json, export_results_csv, export_results_pickle])
def test_wrong_arguments_are_named(tmp_path: Path, export: Any, results: Any, target: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        export(results, tmp_path / target if target else target)
    assert list(tmp_path.iterdir()) == []
