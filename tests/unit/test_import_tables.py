"""Tables and lines of other programs: every dialect is read exactly, or refused, or what is left out is reported."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.logs import analyze_logs, load_structured_logs
from shmlog.transfer.imports import ImportReport
from tests.support.records import make_run, sound

RUN = [("loss", 0, 0.5, 10, None), ("loss", 1, math.nan, 20, None), ("n", 0, 3, 10, 1), ("ok", 0, True, 10, None)]


def imported(tmp_path: Path, text: str, name: str = "log.csv") -> ImportReport:
    (tmp_path / name).write_bytes(text.encode())
    return shmlog.import_run(tmp_path / name, tmp_path / "runs")


def values_of(report: ImportReport) -> list[tuple[str, int, Any]]:
    """Return name, step and value of all metrics, in the order they were read; NaN as text."""
    records = shmlog.Store(report.dir.parents[1]).metrics(report.run_id)
    values = [(r.name, r.step, r.value) for r in sorted(records, key=lambda r: r.seq or 0)]
    return [(name, step, "nan" if value != value else value) for name, step, value in values]


# ---- dialects of CSV ----


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", ", ", "; ", " | "])
def test_the_separator_is_seen(tmp_path: Path, separator: str, end: str) -> None:
    rows = [["step", "loss", '"a, b; c | d"'], ["1", "0.5", '"x, y; z | w"'], ["2", "0.25", "t"]]
    report = imported(tmp_path, end.join(separator.join(row) for row in rows) + end)
    name = "a, b; c | d"
    assert values_of(report) == [("loss", 1, 0.5), (name, 1, "x, y; z | w"), ("loss", 2, 0.25), (name, 2, "t")]
    assert report.problems == ()
    sound(report.dir)


def test_two_possible_separators_are_refused(tmp_path: Path) -> None:
    with pytest.raises(shmlog.errors.RefusedError, match="separated by a comma or by a semicolon; write"):
        imported(tmp_path, "step,loss;acc\n1,2;3\n")


def test_a_decimal_comma(tmp_path: Path) -> None:
    report = imported(tmp_path, "step;loss;acc\n1;0,5;1,234\n2;-1,5e-3;7\n")
    assert values_of(report) == [("loss", 1, 0.5), ("acc", 1, 1.234), ("loss", 2, -0.0015), ("acc", 2, 7.0)]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (
            "step;n\n1;1,234\n2;5,678\n",
            r"'1,234' \(line 2, column 'n'\) can be read as 1\.234 or 1234; write numbers with a point",
        ),
        ('step,n\n1,"1,234"\n', r"'1,234' \(line 2, column 'n'\) can be read as 1\.234 or 1234"),
        (
            "step;a;b\n1;0,5;0.5\n",
            r"'0,5' \(line 2, column 'a'\) has a decimal comma, '0\.5' \(line 2, .*\) a decimal",
        ),
    ],
)
def test_a_number_with_two_readings_is_refused(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(shmlog.errors.RefusedError, match=match):
        imported(tmp_path, text)


@pytest.mark.parametrize("missing", ["", "NA", "n/a", "nan", "NaN", "null", "None", '"NA"'])
def test_a_missing_cell_among_numbers_is_no_value(tmp_path: Path, missing: str) -> None:
    report = imported(tmp_path, f"step,loss,n,note\n1,0.5,1,a\n2,{missing},{missing},NA\n3,1e-3,3,b\n")
    assert values_of(report) == [
        ("loss", 1, 0.5), ("n", 1, 1), ("note", 1, "a"), ("note", 2, "NA"), ("loss", 3, 0.001), ("n", 3, 3),
        ("note", 3, "b"),
    ]  # fmt: skip
    assert [type(value) for name, _, value in values_of(report) if name == "n"] == [int, int]


def test_ints_stay_exact_beside_what_is_none(tmp_path: Path) -> None:
    report = imported(tmp_path, f"step,n,x\n1,{2**53 + 1},{2**53 + 1}\n2,{2**63},0.5\n3,-{2**63},4\n")
    assert values_of(report) == [
        ("n", 1, 2**53 + 1), ("x", 1, 2**53 + 1), ("x", 2, 0.5), ("n", 3, -(2**63)), ("x", 3, 4.0),
    ]  # fmt: skip
    assert report.problems == ("line 3: 'n' is an int of 64 bits and a sign, which is no value of a metric",)


def test_a_word_among_numbers_is_a_text_and_the_numbers_are_numbers(tmp_path: Path) -> None:
    assert values_of(imported(tmp_path, "step,loss\n1,0.5\n2,diverged\n3,0.25\n")) == [
        ("loss", 1, 0.5), ("loss", 2, "diverged"), ("loss", 3, 0.25),
    ]  # fmt: skip


def test_a_bad_step_costs_its_row(tmp_path: Path) -> None:
    report = imported(tmp_path, "step,loss,acc\n1,0.5,1\n2.5,0.4,2\nx,0.3,3\n4,0.2,4\n,0.1,5\n")
    assert [(name, step) for name, step, _ in values_of(report)] == [
        ("loss", 1), ("acc", 1), ("loss", 4), ("acc", 4), ("loss", 5), ("acc", 5),
    ]  # fmt: skip
    assert report.problems == (
        "line 3: step 2.5 is not an integer; left out", "line 4: step 'x' is not an integer; left out",
    )  # fmt: skip
    assert "line 6: no step; it is numbered 5" in report.notes


def test_no_time_is_said(tmp_path: Path) -> None:
    report = imported(tmp_path, "step,loss\n1,0.5\n")
    assert report.notes == ("no column of times: all records have 1970-01-01T00:00:00Z",)
    report = imported(tmp_path, "step,time,loss\n1,,0.5\n2,2026-01-01 00:00:01,0.5\n", "b.csv")
    assert report.problems == ("line 2: no time; 1970 instead",)
    assert report.notes == ("line 3: 2026-01-01 00:00:01 has no zone; read as UTC",)


@pytest.mark.parametrize("text", ["", "step,loss\n", "step,loss\n1,\n", "step\n1\n2\n"])
def test_nothing_is_no_success(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(shmlog.errors.UnreadableError):
        shmlog.import_run(tmp_path / "log.csv", tmp_path / "runs")
    assert main(["import", str(tmp_path / "log.csv"), "--root", str(tmp_path / "runs")]) == 3
    assert list((tmp_path / "runs").glob("*/*")) == []
    capsys.readouterr()


def test_what_is_left_out_is_in_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.csv").write_text("step,loss\n1,0.5\n")
    (tmp_path / "bad.csv").write_text("step,loss\n1,0.5\n2\n")
    root = ["--root", str(tmp_path / "runs")]
    assert main(["import", str(tmp_path / "good.csv"), *root]) == 0
    assert "note: no column of times" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "bad.csv"), *root]) == 1
    assert "warning: line 3: 1 cells in 2 columns; left out" in capsys.readouterr().err
    assert main(["import", "--json", str(tmp_path / "bad.csv"), *root]) == 1
    (outcome,) = json.loads(capsys.readouterr().out)
    assert outcome["problems"]
    assert outcome["notes"]


# ---- exports of ours that other programs have saved again ----


def save_again_with_pandas(path: Path) -> None:
    pd.read_csv(path).to_csv(path)  # with an index


def save_again_with_polars(path: Path) -> None:
    pl.read_csv(path).write_csv(path, separator=";")


def save_again_with_crlf(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def save_again_in_another_order(path: Path) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table[sorted(table.columns)].to_csv(path, index=False, sep="\t")


@pytest.mark.parametrize(
    "save", [save_again_with_pandas, save_again_with_polars, save_again_with_crlf, save_again_in_another_order]
)
def test_an_export_that_was_saved_again_is_known_by_its_columns(tmp_path: Path, save: Any) -> None:
    rows = [*RUN, ("note", 0, "01", 10, None), ("note", 1, "=1", 20, None)]
    run = make_run(tmp_path / "r", rows)
    shmlog.export_run(run, tmp_path / "log.csv")
    save(tmp_path / "log.csv")
    report = shmlog.import_run(tmp_path / "log.csv", tmp_path / "runs")
    table = run.metrics()
    columns = ["name", "step", "kind", "int_value", "text", "ts", "rank", "worker", "pid"]
    assert sorted(map(str, sound(report.dir).metrics().select(columns).to_pylist())) == sorted(
        map(str, table.select(columns).to_pylist())
    )
    assert sorted(map(str, values_of(report))) == sorted(
        str((name, step, "nan" if value != value else value)) for name, step, value, *_ in rows
    )
    assert report.problems == ()


def test_an_int_that_was_rounded_by_the_other_program_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", [("n", 0, 2**53 + 1, 10, None), ("x", 0, 0.5, 10, None)])
    shmlog.export_run(run, tmp_path / "log.csv")
    save_again_with_pandas(tmp_path / "log.csv")
    with pytest.raises(shmlog.errors.RefusedError, match=r"line 2: the program .* may have rounded int_value 9007"):
        shmlog.import_run(tmp_path / "log.csv", tmp_path / "runs")


def test_nan_in_a_wide_export_is_a_value(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", [("loss", 0, 0.5, 10, None), ("loss", 1, math.nan, 20, None)])
    shmlog.export_run(run, tmp_path / "log.csv", "wide-csv")
    report = shmlog.import_run(tmp_path / "log.csv", tmp_path / "runs")
    assert values_of(report) == [("loss", 0, 0.5), ("loss", 1, "nan")]


# ---- JSON lines ----

WANDB = [
    {"loss": 0.5, "_step": 0, "_runtime": 1.25, "_timestamp": 1767225600.5, "eval": {"acc": 0.25}},
    {"loss": math.nan, "_step": 1, "_runtime": 2.5, "_timestamp": 1767225601.5, "weights": {"_type": "histogram"}},
]
PLAIN = [{"step": 1, "loss": 0.5}, {"step": 2.0, "loss": math.inf, "lr": None, "note": "x"}, {"loss": 0.25}]


def lines_of(entries: list[dict[str, Any]], bom: str = "") -> str:
    return bom + "".join(json.dumps(entry) + "\r\n" for entry in entries)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_plain_lines(tmp_path: Path, bom: str) -> None:
    report = imported(tmp_path, lines_of(PLAIN, bom), "log.jsonl")
    assert values_of(report) == [("loss", 1, 0.5), ("loss", 2, math.inf), ("note", 2, "x"), ("loss", 3, 0.25)]
    assert (report.status, report.problems) == ("success", ())
    assert "line 3: no step; it is numbered 3" in report.notes
    assert load_structured_logs(tmp_path / "log.jsonl") == PLAIN
    assert analyze_logs(tmp_path / "log.jsonl")["event_counts"] == {"metrics": 3}


def test_the_history_of_wandb(tmp_path: Path) -> None:
    report = imported(tmp_path, lines_of(WANDB), "log.jsonl")
    assert values_of(report) == [
        ("loss", 0, 0.5), ("_runtime", 0, 1.25), ("eval/acc", 0, 0.25), ("loss", 1, "nan"), ("_runtime", 1, 2.5),
    ]  # fmt: skip
    assert report.problems == ("line 2: 'weights' is {'_type': 'histogram'}, which is no value of a metric",)
    record = shmlog.Store(tmp_path / "runs").get(report.run_id)
    assert record.began_at is not None
    assert record.began_at.timestamp() == 1767225600.5
    assert analyze_logs(tmp_path / "log.jsonl")["start_time"] == "2026-01-01T00:00:00.500000Z"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"step": "x", "loss": 1}', "line 2: step 'x' is not an integer; left out"),
        ('{"level": "info"}', "line 2: neither an event_type nor a number; left out"),
        ("[1]", "line 2: not a JSON object; left out"),
        ('{"step": 1, "loss": [1]}', "line 2: 'loss' is [1], which is no value of a metric"),
    ],
)
def test_a_line_that_is_not_one_is_left_out_and_reported(tmp_path: Path, line: str, problem: str) -> None:
    report = imported(tmp_path, f'{{"step": 0, "loss": 1}}\n{line}\n', "log.jsonl")
    assert values_of(report) == [("loss", 0, 1)]
    assert report.problems == (problem,)


def test_a_log_with_numbers_that_json_lacks_is_read_whole(tmp_path: Path) -> None:
    lines = [{"event_type": "metrics", "data": {"loss": math.nan}}, {"event_type": "metrics", "data": {"loss": 1.0}}]
    (tmp_path / "log.jsonl").write_text(lines_of(lines))
    assert len(load_structured_logs(tmp_path / "log.jsonl")) == 2
    assert math.isnan(load_structured_logs(tmp_path / "log.jsonl")[0]["data"]["loss"])


# ---- what a reviewer met ----


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("epoch;lr\n1;0,5\n2;1e-05\n3;inf\n4;diverged\n5;1.234,5\n", [0.5, 1e-05, math.inf, "diverged", 1234.5]),
        ("step,loss\n1,nan\n2,nan\n", ["nan", "nan"]),
        (f"step,n,x\n1,1,0.5\n2,1,{'9' * 4100}\n", [1, 0.5, 1, "9" * 4100]),
        ("sep=;\nstep;loss\n1;0,5\n", [0.5]),
    ],
)
def test_every_number_is_read_as_what_it_is(tmp_path: Path, text: str, values: list[Any]) -> None:
    report = imported(tmp_path, text)
    assert [value for _, _, value in values_of(report)] == values
    assert report.problems == ()


def test_cells_that_can_be_read_otherwise_are_noted(tmp_path: Path) -> None:
    report = imported(tmp_path, f"step,loss,v,big\n1,0.5,a,0.5\n2,nan,b,{'9' * 400}\n3,NA,1,1\n")
    assert "column 'loss': 2 of 3 cells, such as 'nan', are no values" in report.notes
    assert "column 'v': 1 of 3 cells, such as '1', are read as texts, as most of the column are" in report.notes
    assert report.problems == ("line 3: 'big' is an int of 1329 bits and a sign, which is no value of a metric",)


def test_who_logged_is_whole_numbers_or_a_metric(tmp_path: Path) -> None:
    report = imported(tmp_path, "step,loss,rank,worker,pid\n1,0.5,1.0,a,3.5\n2,0.5,0.0,b,4.5\n")
    assert sound(report.dir).metrics("loss")["rank"].to_pylist() == [1, 0]
    assert {name for name, _, _ in values_of(report)} == {"loss", "worker", "pid"}
    report = imported(tmp_path, '{"step": 1, "loss": 0.5, "rank": 2.5, "worker": 3.0}\n', "log.jsonl")
    assert values_of(report) == [("loss", 1, 0.5), ("rank", 1, 2.5)]
    assert sound(report.dir).metrics("loss")["worker"].to_pylist() == [3]


def test_texts_of_our_own_exports_stay_texts(tmp_path: Path) -> None:
    rows = [("x", 0, 0.5, 10, None), ("de", 0, "0,5", 10, None), ("t", 0, "true", 10, None), ("v", 0, "1.5", 10, None)]
    run = make_run(tmp_path / "r", [*rows, ("rank", 0, 2, 10, None)])
    shmlog.export_run(run, tmp_path / "wide.csv", "wide-csv")
    report = shmlog.import_run(tmp_path / "wide.csv", tmp_path / "runs")
    assert sorted(map(str, values_of(report))) == sorted(
        map(str, [*((name, step, value) for name, step, value, *_ in rows), ("rank", 0, 2)])
    )
    shmlog.export_run(run, tmp_path / "log.csv")
    pd.read_csv(tmp_path / "log.csv").to_csv(tmp_path / "log.csv", sep=";", decimal=",", index=False)
    assert sorted(values_of(shmlog.import_run(tmp_path / "log.csv", tmp_path / "runs"))) == sorted(values_of(report))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty, or its first line names no column"),
        ("step,loss,loss\n1,2,3\n", "two columns have the name 'loss'"),
        ("# lr=0.1, seed=3\nstep,loss\n1,2\n", "begins with a comment; remove that line, or its '#'"),
    ],
)
def test_a_head_that_is_none_is_refused(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(shmlog.errors.RefusedError, match=match):
        imported(tmp_path, text)


def test_an_index_is_no_metric_and_another_column_without_a_name_is_reported(tmp_path: Path) -> None:
    report = imported(tmp_path, ",step,loss\n0,1,0.5\n1,2,0.25\n")
    assert (values_of(report), report.problems) == ([("loss", 1, 0.5), ("loss", 2, 0.25)], ())
    assert imported(tmp_path, ",step,loss\n7,1,0.5\n", "b.csv").problems == ("a column without a name; left out",)


def test_names_that_no_metric_can_have_are_reported(tmp_path: Path) -> None:
    long = "n" * 1025
    report = imported(tmp_path, json.dumps({"step": 1, "a": 1, "": 2, long: 3, "b": {"c": 4}, "b/c": 5}), "log.jsonl")
    assert values_of(report) == [("a", 1, 1), ("b/c", 1, 4)]
    assert report.problems == (
        "line 1: a second value of 'b/c'; left out", "line 1: name '' has 0 bytes, not 1 to 1024",
        f"line 1: name {long[:40]!r} has 1025 bytes, not 1 to 1024",
    )  # fmt: skip


def test_elapsed_seconds_are_a_metric_and_milliseconds_are_times(tmp_path: Path) -> None:
    report = imported(tmp_path, "epoch,time,loss\n1,12.5,0.5\n2,25,0.25\n")
    assert values_of(report) == [("time", 1, 12.5), ("loss", 1, 0.5), ("time", 2, 25.0), ("loss", 2, 0.25)]
    report = imported(tmp_path, "step,timestamp,loss\n1,1767225600500,0.5\n", "b.csv")
    record = shmlog.Store(tmp_path / "runs").get(report.run_id)
    assert record.began_at is not None
    assert record.began_at.timestamp() == 1767225600.5


def test_a_number_beyond_floats_is_told(tmp_path: Path) -> None:
    source = tmp_path / "big.csv"
    source.write_text("step,loss\n1,0.5\n2,-1e400\n3,inf\n4,7\n")
    report = shmlog.import_run(source, tmp_path / "runs")
    assert report.problems == ()
    assert "column 'loss': 1 of 4 cells, such as '-1e400', are too large for a float: infinite" in report.notes
    values = shmlog.load(report.dir).metrics("loss")["value"].to_pylist()
    assert values == [0.5, -math.inf, math.inf, 7.0]
