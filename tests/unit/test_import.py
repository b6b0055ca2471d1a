"""Imports: each source exactly, the same source once, and whatever is damaged is told."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.transfer.importers.formats import reader_of
from shmlog.transfer.imports import ImportReport
from tests.support.records import make_run, sound
from tests.support.sources import METRICS, expman_folder, fetch_ml_folder, meta_bin, metric_record


def rows_of(report: ImportReport) -> list[tuple[Any, ...]]:
    """Return name, step, value and seconds since 1970 of all metrics, in the order they were read."""
    found = shmlog.Store(report.dir.parents[1]).metrics(report.run_id)
    return [(r.name, r.step, r.value, r.timestamp.timestamp()) for r in sorted(found, key=lambda r: r.seq or 0)]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names_of(stored: shmlog.StoredRun) -> list[str]:
    return [artifact.name for artifact in stored.artifacts]


# ---- fetch_ml ----


@pytest.fixture
def fetch_ml(tmp_path: Path) -> Path:
    return fetch_ml_folder(tmp_path / "ml" / "c0ffee")


def test_fetch_ml(fetch_ml: Path, tmp_path: Path) -> None:
    before = tree(fetch_ml)
    report = shmlog.import_run(fetch_ml, tmp_path / "runs")
    assert rows_of(report) == [(n.decode(), s, v, float(t)) for n, s, v, t in METRICS]
    assert report.problems == ()
    record = shmlog.Store(tmp_path / "runs").get(report.run_id)
    assert (record.commit_id, record.name, record.user, record.experiment) == ("c0ffee", "train", "ann", "train")
    assert record.began_at is not None
    assert record.began_at.timestamp() == 1_700_000_000
    assert record.problems == ()
    assert names_of(sound(report.dir)) == ["files/src/train.py"]
    assert tree(fetch_ml) == before


def test_the_same_source_twice_is_one_run(fetch_ml: Path, tmp_path: Path) -> None:
    first = shmlog.import_run(fetch_ml, tmp_path / "runs")
    files = tree(tmp_path / "runs")
    moved = fetch_ml.rename(tmp_path / "elsewhere")
    again = shmlog.import_run(moved, tmp_path / "runs", experiment="other")
    assert (first.is_new, again.is_new) == (True, False)
    assert again.dir == first.dir
    assert tree(tmp_path / "runs") == files
    with open(moved / "metrics.bin", "ab") as file:
        file.write(metric_record(b"loss", 3, 0.25, 1_700_000_009))
    assert shmlog.import_run(moved, tmp_path / "runs").run_id != first.run_id
    assert list((tmp_path / "runs" / ".shmlog" / "imports").iterdir()) == []


def test_numbers_that_fetch_ml_cannot_mean(fetch_ml: Path, tmp_path: Path) -> None:
    (fetch_ml / "meta.bin").write_bytes(meta_bin(job=b"../../etc", seconds=2**62))
    (fetch_ml / "metrics.bin").write_bytes(metric_record(b"\xff", 1, float("nan"), -(2**63)))
    report = shmlog.import_run(fetch_ml, tmp_path / "runs")
    assert len(report.problems) == 3
    assert report.experiment == "etc"
    assert report.dir.parents[1] == tmp_path / "runs"
    assert shmlog.load(report.dir).names() == ["\\xff"]


def test_links_and_pipes_are_refused(fetch_ml: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (fetch_ml / "files" / "link").symlink_to(secret)
    (fetch_ml / "files" / "folder").symlink_to(tmp_path)
    os.mkfifo(fetch_ml / "files" / "pipe")
    (fetch_ml / "metrics.bin").unlink()
    (fetch_ml / "metrics.bin").symlink_to(secret)
    report = shmlog.import_run(fetch_ml, tmp_path / "runs")
    assert names_of(sound(report.dir)) == ["files/src/train.py"]
    assert len(report.problems) == 4


# ---- expman ----


@pytest.mark.parametrize("table", ["vectors.parquet", "metrics.parquet"])
def test_expman(table: str, tmp_path: Path) -> None:
    folder = expman_folder(tmp_path / "experiments" / "digits" / "20261121_122713", table)
    report = shmlog.import_run(folder, tmp_path / "runs")
    assert rows_of(report) == [
        ("loss", 0, 0.5, 1.0), ("note", 0, "=a", 1.0), ("loss", 2, float("inf"), 3.0), ("note", 2, "b", 3.0),
    ]  # fmt: skip
    assert (report.notes, report.problems) == ((f"{table}: a row without a step; it is numbered 2",), ())
    record = shmlog.Store(tmp_path / "runs").get(report.run_id)
    assert (record.status, record.tags, record.params) == ("success", ("a",), {"lr": 0.1})
    assert (record.name, record.description, record.experiment) == ("20261121_122713", "d", "digits")
    assert record.started_at is not None
    assert record.started_at.isoformat() == "2026-11-21T12:27:13.758545+00:00"
    run = sound(report.dir)
    assert names_of(run) == ["a.txt", "expman/console.log"]
    assert [event["data"] for event in run.events()] == [
        {"acc": 0.9}, {"level": "info", "message": "hello\nmore"}, {"level": "warning", "message": "careful"},
    ]  # fmt: skip


def test_a_damaged_expman_run_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = expman_folder(tmp_path / "digits" / "a")
    (folder / "run.yaml").write_text("a: &a [*a]\n")
    (folder / "config.yaml").write_bytes(b"\xff\x00{{")
    (folder / "vectors.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    report = shmlog.import_run(folder, tmp_path / "runs")
    assert report.status == "crashed"
    assert [problem.split()[0] for problem in report.problems] == ["config.yaml", "run.yaml", "vectors.parquet:"]
    assert names_of(sound(report.dir)) == ["a.txt", "expman/console.log"]


# ---- structured logs ----


def line_of(second: str, event_type: str, data: Any) -> dict[str, Any]:
    return {"timestamp": f"2026-01-01T00:00:{second}+00:00", "event_type": event_type, "data": data}


def test_jsonl(tmp_path: Path) -> None:
    lines = [
        line_of("00", "experiment_start", {"experiment_name": "mnist"}),
        line_of("01", "config", {"lr": 0.1}),
        line_of("02.5", "metrics", {"step": 3, "metrics": {"loss": 1.0, "n": 2}}),
        line_of("03", "metrics", {"metrics": {"ok": True, "bad": [1]}}),
        line_of("04", "experiment_end", {"status": "interrupted"}),
    ]
    path = tmp_path / "x_structured.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '[1]\n{"timestamp": "2026')
    report = shmlog.import_run(path, tmp_path / "runs")
    assert rows_of(report) == [
        ("loss", 3, 1.0, 1767225602.5), ("n", 3, 2, 1767225602.5), ("ok", 4, True, 1767225603.0),
    ]  # fmt: skip
    assert [type(row[2]) for row in rows_of(report)] == [float, int, bool]
    assert report.notes == ("line 4: no step; it is numbered 4",)
    assert report.problems == (
        "line 4: 'bad' is [1], which is no value of a metric", "line 6: not a JSON object; left out",
        "line 7: a torn last line; left out",
    )  # fmt: skip
    record = shmlog.Store(tmp_path / "runs").get(report.run_id)
    assert (record.experiment, record.status, record.params) == ("mnist", "cancelled", {"lr": 0.1})
    types = [event["event_type"] for event in sound(report.dir).events()]
    assert types == ["experiment_start", "config", "experiment_end"]


def test_numbers_that_only_python_writes_into_json(tmp_path: Path) -> None:
    data = {"step": 0, "metrics": {"a": float("nan"), "b": float("-inf")}}
    line = json.dumps({"timestamp": "2026-01-01T00:00:00", "event_type": "metrics", "data": data})
    (tmp_path / "a.jsonl").write_text(line)
    report = shmlog.import_run(tmp_path / "a.jsonl", tmp_path / "runs")
    assert [repr(row[2]) for row in rows_of(report)] == ["nan", "-inf"]
    assert "no zone" in report.notes[0]
    sound(report.dir)


# ---- CSV ----


def test_csv(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "Step,Wall time,loss,n,ok,note,'=x\n0,1e9,0.5,1,true,'=1,7\n2,2e9,nan,,false,t,8\n3,1\n4.0,bad,1e3,-3,TRUE,,9\n"
    )
    report = shmlog.import_run(tmp_path / "log.csv", tmp_path / "runs")
    found = [(*row[:2], repr(row[2]), row[3]) for row in rows_of(report)]
    assert found == [
        ("loss", 0, "0.5", 1e9), ("n", 0, "1", 1e9), ("ok", 0, "True", 1e9), ("note", 0, "'=1'", 1e9),
        ("=x", 0, "7", 1e9),
        ("ok", 2, "False", 2e9), ("note", 2, "'t'", 2e9), ("=x", 2, "8", 2e9),
        ("loss", 4, "1000.0", 0.0), ("n", 4, "-3", 0.0), ("ok", 4, "True", 0.0), ("=x", 4, "9", 0.0),
    ]  # fmt: skip
    assert report.problems == ("line 4: 2 cells in 7 columns; left out", "line 5: 'bad' is not a time; 1970 instead")
    sound(report.dir)


# ---- our own exports ----


def test_events_that_are_nested_too_deeply_are_told(tmp_path: Path) -> None:
    deep: dict[str, Any] = {}
    for _ in range(101):
        deep = {"a": deep}
    (path,) = shmlog.export_run(make_run(tmp_path / "r", [("a", 0, 1.5, 1, None)]), tmp_path / "a.json")
    told = json.loads(path.read_bytes())
    event = {"timestamp": "2026-01-01T00:00:00Z", "event_type": "x"}
    told["events"] = [{**event, "data": deep}, {**event, "data": {"a": 1}}]
    path.write_text(json.dumps(told))
    report = shmlog.import_run(path, tmp_path / "runs")
    assert [one["data"] for one in sound(report.dir).events()] == [{"a": 1}]
    assert report.problems == ("event 0: value is nested more than 100 levels deep, or in itself; left out",)


@pytest.mark.parametrize("format", ["csv", "json", "jsonl", "parquet", "arrow"])
def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path, format: str) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(shmlog.errors.RefusedError, match=f"^{tmp_path / 'a'}: not a regular file; refused$"):
        shmlog.import_run(tmp_path / "a", tmp_path / "runs", format)


def test_a_hostile_export(tmp_path: Path) -> None:
    told = {
        "shmlog": 1, "run": {"run_id": "../x", "experiment": "../../y", "status": "running", "tags": 3, "name": ["a"]},
        "params": {}, "annotations": {"pinned": True}, "events": [{"timestamp": "x"}, 3],
        "metrics": [3, {"name": "a", "step": 2**70, "value": 1, "ts": "2026-01-01T00:00:00Z"},
                    {"name": "a", "step": 1, "value": 1, "ts": "2026-01-01T00:00:00Z", "lane": -5, "seq": 2**63}],
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(told))
    report = shmlog.import_run(tmp_path / "a.json", tmp_path / "runs")
    assert (report.counts["metrics"], report.status, report.experiment) == (1, "crashed", "y")
    sound(report.dir)


def test_a_small_parquet_file_that_would_fill_the_memory(tmp_path: Path) -> None:
    """FAULTS 74: refused as soon as it takes more than it may."""
    folder = expman_folder(tmp_path / "digits" / "a")
    count = 60_000_000
    zeros = pa.repeat(pa.scalar(0.0), count)
    pq.write_table(pa.table({"a": zeros, "b": zeros}), folder / "vectors.parquet")
    with pytest.raises(shmlog.errors.RefusedError, match="more than the 100,000,000 bytes"):
        shmlog.import_run(folder, tmp_path / "runs", max_bytes=100_000_000)
    codes = pa.repeat(pa.scalar(0, pa.int32()), 100_000)
    texts = pa.DictionaryArray.from_arrays(codes, ["x" * 1_000_000])
    pq.write_table(pa.table({"a": texts}), folder / "vectors.parquet")
    with pytest.raises(shmlog.errors.RefusedError, match="more than the 100,000,000 bytes"):
        shmlog.import_run(folder, tmp_path / "runs", max_bytes=100_000_000)
    assert not list((tmp_path / "runs").glob("*/*"))


def test_the_limit_is_of_all_that_is_read(tmp_path: Path) -> None:
    """Text files, and records one by one, count as well; the option raises it."""
    path = tmp_path / "a.csv"
    path.write_text("step,loss\n" + "".join(f"{step},0.5\n" for step in range(50_000)))
    with pytest.raises(shmlog.errors.RefusedError, match=r"raise the limit: import_run\(…, max_bytes=…\)"):
        shmlog.import_run(path, tmp_path / "runs", max_bytes=4 << 20)
    assert main(["import", str(path), "--max-gib", "1", "--experiment", "cli"]) == 0


def test_no_bit_of_a_parquet_export_is_read_wrongly(tmp_path: Path) -> None:
    """Headers of pages and the footer have no checksum of Parquet's: one that is damaged may tell of fewer rows."""
    (path,) = shmlog.export_run(make_run(tmp_path / "r", [("loss", 0, 0.5, 1_000_000, None)]), tmp_path / "a.parquet")
    whole = path.read_bytes()
    read = reader_of("parquet")
    assert not list(read(path).notes)
    true = read(path).metrics
    told = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            run = read(path)
        except shmlog.errors.UnreadableError:
            told += 1
        else:
            assert list(run.notes), f"a flipped bit of byte {at} is not told"
            assert run.metrics.equals(true), f"a flipped bit of byte {at} makes other rows"
    assert told > len(whole) - 30, "all but the name of the checksum"


@pytest.mark.parametrize("time_us", [1 << 62, 253_402_300_800_000_000, -62_135_596_800_000_001])
def test_an_arrow_export_with_a_damaged_time_is_refused(tmp_path: Path, time_us: int) -> None:
    """A run of it could neither be listed nor exported."""
    (path,) = shmlog.export_run(make_run(tmp_path / "r", [("loss", 0, 0.5, 1_000_000, None)]), tmp_path / "a.arrow")
    with pa.ipc.open_file(path) as file:
        table = file.read_all()
    at, field = table.column_names.index("ts"), table.schema.field("ts")
    table = table.set_column(at, field, pa.array([time_us]).cast(field.type))
    with pa.ipc.new_file(path, table.schema) as file:
        file.write_table(table)
    with pytest.raises(shmlog.errors.CorruptDataError, match="times outside the years 1 to 9999"):
        shmlog.import_run(path, tmp_path / "runs")


def test_a_parquet_export_that_another_program_has_saved_again(tmp_path: Path) -> None:
    (path,) = shmlog.export_run(make_run(tmp_path / "r", [("loss", 0, 0.5, 1_000_000, None)]), tmp_path / "a.parquet")
    pq.write_table(pq.read_table(path), path)
    report = shmlog.import_run(path, tmp_path / "runs")
    assert rows_of(report) == [("loss", 0, 0.5, 1.0)]
    assert report.notes == ("the file has no checksum of shmlog: damage outside its pages can't be seen",)


@pytest.mark.parametrize("kind", [pa.list_(pa.int64()), pa.binary(), pa.struct([("a", pa.int64())])])
def test_columns_that_no_metric_can_be_are_refused(tmp_path: Path, kind: pa.DataType) -> None:
    """What they would take is not bounded by what is told of them."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"step": pa.nulls(1, kind)}), path)
    with pytest.raises(shmlog.errors.RefusedError, match="which no value of a metric has"):
        shmlog.import_run(path, tmp_path / "runs")


# ---- TensorBoard ----


@pytest.fixture
def events(tmp_path: Path) -> Path:
    pytest.importorskip("tensorboard")
    run = make_run(tmp_path / "r", [("loss", i, i / 3, (i + 1) * 1_000_000, None) for i in range(3)])
    return shmlog.export_run(run, tmp_path / "tb", "tensorboard")[0]


def test_scalars_as_others_write_them(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    with open(tmp_path / "events.out.tfevents.1.h", "wb") as file:
        writer = RecordWriter(file)
        event = Event(wall_time=1.5, step=3)
        event.summary.value.add(tag="train/loss", simple_value=0.1)
        event.summary.value.add(tag="picture").image.height = 3
        writer.write(event.SerializeToString())
    report = shmlog.import_run(tmp_path / "events.out.tfevents.1.h", tmp_path / "runs")
    assert rows_of(report) == [("train/loss", 3, struct.unpack("f", struct.pack("f", 0.1))[0], 1.5)]
    assert report.problems == ("events.out.tfevents.1.h: 'picture' holds a picture or sound of no bytes; left out",)
    sound(report.dir)


def test_an_event_file_cut_at_many_lengths(events: Path) -> None:
    whole = events.read_bytes()
    seen = []
    for size in range(0, len(whole) + 1, 5):
        events.write_bytes(whole[:size])
        seen.append(reader_of("tensorboard")(events.parent).records)  # here: a new process imports tensorboard anew
    assert seen == sorted(seen)
    assert set(seen) >= {0, 1, 2}


def test_an_event_file_with_a_flipped_bit_is_told(events: Path, tmp_path: Path) -> None:
    data = bytearray(events.read_bytes())
    data[-10] ^= 1
    events.write_bytes(data)
    report = shmlog.import_run(events, tmp_path / "runs")
    assert report.counts["metrics"] == 2
    assert "crc32" in report.problems[0]


def test_without_tensorboard_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "tensorboard.py").write_text("raise ImportError('it is broken')")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    (tmp_path / "a.tfevents.1").write_bytes(b"")
    with pytest.raises(shmlog.errors.MissingExtraError, match=r"shmlog\[tensorboard\].*it is broken"):
        shmlog.import_run(tmp_path / "a.tfevents.1")


# ---- what is no source ----


def test_what_cannot_be_imported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", [])
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({}))
    (tmp_path / "run-1.wandb").write_bytes(b"")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    for source, error, words in (
        ("nowhere", shmlog.errors.RunNotFoundError, "does not exist"), ("a.pkl", ValueError, "looks like no format"),
        ("run-1.wandb", ValueError, "wandb sync"), (run.dir, ValueError, "copy the folder"),
        ("empty.jsonl", shmlog.errors.CorruptDataError, "is empty, and no"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            shmlog.import_run(tmp_path / source, tmp_path / "runs")
    with pytest.raises(ValueError, match="experiment"):
        shmlog.import_run(tmp_path / "a.pkl", tmp_path / "runs", "csv", experiment="../x")
    assert not (tmp_path / "runs").exists()


def test_a_root_that_cannot_be_written(fetch_ml: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(shmlog.errors.StorageError):
        shmlog.import_run(fetch_ml, tmp_path / "runs")


def test_large_files_are_refused(fetch_ml: Path, tmp_path: Path) -> None:
    os.truncate(fetch_ml / "meta.bin", 1 << 17)
    report = shmlog.import_run(fetch_ml, tmp_path / "runs")
    assert "131072 bytes, more than" in report.problems[0]


# ---- command line ----


def test_import_tells_what_was_read_and_what_was_not(fetch_ml: Path, tmp_path: Path, capsys: Any) -> None:
    with open(fetch_ml / "metrics.bin", "ab") as file:
        file.write(b"torn")
    assert main(["import", str(fetch_ml), "--experiment", "old"]) == 1
    out, err = capsys.readouterr()
    assert sound(Path(out.strip())).experiment == "old"
    assert "fetch_ml of ml/c0ffee: success, 3 metrics, 0 events, 1 artifact\n" in err
    assert "warning: metrics.bin: a torn record of 4 bytes" in err
    assert main(["import", str(fetch_ml), "nowhere", "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert [(one["error"] is None, one.get("is_new")) for one in found] == [(True, False), (False, None)]
