"""Event files of TensorBoard, as torch and tensorboardX have written them: tests/support/tensorboard/write.py."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.cli.main import main
from tests.support.records import sound

pytest.importorskip("tensorboard")

WRITTEN = Path(__file__).parents[1] / "support" / "tensorboard"
WRITERS = pytest.mark.parametrize("writer", ["torch", "tensorboardX"])


def single(number: float) -> float:
    """Return a number as 32 bits hold it."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


def curve(stored: shmlog.StoredRun, name: str) -> list[tuple[int, float]]:
    table = stored.metrics(name)
    return list(zip(table["step"].to_pylist(), table["value"].to_pylist(), strict=True))


def content_of(stored: shmlog.StoredRun, name: str) -> bytes:
    return (stored.dir / "artifacts" / name).read_bytes()


def write_events(path: Path, *events: dict[str, Any]) -> Path:
    """Write an event file by TensorBoard's own package; events are given as JSON."""
    from google.protobuf.json_format import ParseDict
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(ParseDict(event, Event()).SerializeToString())
    return path


def scalar(tag: str, step: int, value: float | str, time_s: float) -> dict[str, Any]:
    return {"wallTime": time_s, "step": step, "summary": {"value": [{"tag": tag, "simpleValue": value}]}}


def tensor(tag: str, plugin: str, shape: list[int], **values: Any) -> dict[str, Any]:
    """Return an event as TensorFlow 2 writes it: tensorboard/plugins/*/summary_v2.py."""
    value = {
        "tag": tag, "metadata": {"pluginData": {"pluginName": plugin}},
        "tensor": {"tensorShape": {"dim": [{"size": size} for size in shape]}, **values},
    }  # fmt: skip
    return {"wallTime": 5.0, "step": 3, "summary": {"value": [value]}}


# ---- torch and tensorboardX ----


@WRITERS
def test_a_run_comes_over_whole(writer: str, tmp_path: Path) -> None:
    report = shmlog.import_run(WRITTEN / writer / "run", tmp_path / "runs")
    (session,) = (path.name for path in (WRITTEN / writer / "run").iterdir() if path.is_dir() and path.name[0] == "1")
    assert report.problems == ()
    assert report.notes == (f"'loss' of add_hparams is named {session}/loss: the run has a 'loss'",)
    assert (report.further, report.experiment, report.status) == ((), writer, "success")
    stored = sound(report.dir)
    assert shmlog.Store(tmp_path / "runs").get(report.run_id).name == "run"
    assert stored.config == {"lr": 0.1, "size": 32.0, "opt": "adam"}
    assert curve(stored, "acc/both/train") == [(step, step) for step in range(10)]
    assert curve(stored, "acc/both/val") == [(step, step / 2) for step in range(10)]
    assert curve(stored, f"{session}/loss") == [(0, 0.5)]
    assert curve(stored, "hparam/accuracy") == [(0, single(0.9))]
    assert stored.metrics("note")["text"].to_pylist() == ["hello"]
    assert set(stored.names()) == {
        "loss", "acc/both/train", "acc/both/val", f"{session}/loss", "hparam/accuracy", "note"
    }  # fmt: skip


@WRITERS
def test_restarts_are_attempts(writer: str, tmp_path: Path) -> None:
    stored = sound(shmlog.import_run(WRITTEN / writer / "run", tmp_path / "runs").dir)
    due = [(step, single(1 / (1 + step))) for step in range(6)] + [(step, 10.0 + step) for step in range(6, 11)]
    assert curve(stored, "loss") == due + [(step, 20.0 + step) for step in range(11, 14)]
    rows = stored.metrics("loss", superseded=True)
    assert rows.num_rows == 10 + 6 + 3
    assert rows["superseded"].to_pylist().count(True) == 5
    assert [attempt["first_lane"] for attempt in stored.attempts] == [0, 1, 2]
    assert [attempt["ended_at"] > attempt["started_at"] for attempt in stored.attempts] == [True] * 3
    query = "select attempt, count(*) as n from metrics where name = 'loss' group by attempt order by attempt"
    assert stored.sql(query)["n"].to_pylist() == [10, 6, 3]


@WRITERS
def test_media_histograms_and_curves(writer: str, tmp_path: Path) -> None:
    stored = sound(shmlog.import_run(WRITTEN / writer / "run", tmp_path / "runs").dir)
    data: dict[str, Any] = {event["data"]["tag"]: event["data"] for event in stored.events()}
    picture, sound_file = data["a/picture"]["file"], data["sound"]["file"]
    assert content_of(stored, picture).startswith(b"\x89PNG")
    assert content_of(stored, sound_file).startswith(b"RIFF")
    assert (picture, data["a/picture"]["step"]) == ("media/a_picture-00000001.png", 1)
    assert data["weights"]["edges"] == [0, 24.75, 49.5, 74.25, 99]
    assert data["weights"]["counts"] == [25, 25, 25, 25]
    assert data["weights"]["sum_squares"] == sum(number**2 for number in range(100))
    assert data["pr"]["true_positives"] == [2, 2, 2, 2, 0]
    assert len(data["pr"]["precision"]) == 5


def test_a_tensor_of_64_bits_is_exact(tmp_path: Path) -> None:
    stored = sound(shmlog.import_run(WRITTEN / "torch" / "exact", tmp_path / "runs").dir)
    assert (curve(stored, "double"), curve(stored, "single")) == ([(3, 0.1)], [(3, single(0.1))])


@WRITERS
def test_a_root_of_many_runs(writer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(WRITTEN / writer, tmp_path / "a" / "deep" / "root" / "of" / "logs")
    assert main(["import", "--json", "--root", str(tmp_path / "runs"), str(tmp_path / "a")]) == 0
    sources = [Path(one["source"]) for one in json.loads(capsys.readouterr().out)]
    assert len([source for source in sources if source.parent.name == "logs"]) == (2 if writer == "torch" else 1)
    sets = [record.params for record in shmlog.Store(tmp_path / "runs").runs("sets")]
    assert sorted(one["size"] for one in sets) == [0, 1, 2], "each set of hyperparameters is a run"


def test_sets_of_hyperparameters_are_told(tmp_path: Path) -> None:
    with pytest.raises(shmlog.errors.SeveralRunsError, match="holds 3 runs; import each by its name") as caught:
        shmlog.import_run(WRITTEN / "torch" / "sets", tmp_path / "runs")
    reports = [shmlog.import_run(source, tmp_path / "runs") for source in caught.value.sources]
    assert [report.counts["metrics"] for report in reports] == [1, 1, 1]


# ---- folders ----


def test_folders_that_are_runs_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "logs"
    write_events(root / "tfevents.1", scalar("loss", 0, 1.0, 10.0))
    write_events(root / "loss_a" / "tfevents.1", scalar("loss", 0, 2.0, 11.0))
    write_events(root / "train" / "tfevents.1", scalar("loss", 0, 3.0, 11.0))
    write_events(root / "train" / "loss_b" / "tfevents.1", scalar("loss", 0, 4.0, 11.0))
    write_events(root / "loss_c" / "tfevents.1", scalar("loss", 0, 3.0, 11.0), scalar("acc", 0, 3.0, 11.0))
    report = shmlog.import_run(root, tmp_path / "other")
    assert report.further == (str(root / "loss_c"), str(root / "train"))
    assert sound(report.dir).names() == ["loss", "loss/a"]
    assert main(["import", "--root", str(tmp_path / "runs"), str(root)]) == 0
    names = {record.name: shmlog.load(record.dir).names() for record in shmlog.Store(tmp_path / "runs").runs()}
    assert names == {"logs": ["loss", "loss/a"], "loss_c": ["acc", "loss"], "train": ["loss", "loss/b"]}
    assert "further" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "holds no event"), (b"garbage, and no event", "damaged after 0 events"), (None, "no value in any")],
)
def test_files_without_a_value_are_refused(content: bytes | None, why: str, tmp_path: Path) -> None:
    path = write_events(tmp_path / "logs" / "events.out.tfevents.1", {"wallTime": 1.0, "fileVersion": "brain.Event:2"})
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(shmlog.errors.RefusedError, match=f"holds nothing that can be imported.*{why}"):
        shmlog.import_run(tmp_path / "logs", tmp_path / "runs")
    assert main(["import", "--root", str(tmp_path / "runs"), str(tmp_path / "logs")]) == 3
    assert not list((tmp_path / "runs").glob("*/*"))


def test_files_of_writers_that_work_at_once_are_one_attempt(tmp_path: Path) -> None:
    write_events(tmp_path / "a" / "tfevents.1", scalar("loss", 0, 1.0, 10.0), scalar("loss", 1, 2.0, 20.0))
    write_events(tmp_path / "a" / "tfevents.2", scalar("loss", 0, 3.0, 11.0), scalar("loss", 1, 4.0, 21.0))
    stored = sound(shmlog.import_run(tmp_path / "a", tmp_path / "runs").dir)
    assert len(stored.attempts) == 1
    assert sorted(curve(stored, "loss")) == [(0, 1.0), (0, 3.0), (1, 2.0), (1, 4.0)]


def test_a_restart_in_the_midst_of_a_file(tmp_path: Path) -> None:
    first, start = ({"wallTime": time_s, "step": 1, "sessionLog": {"status": "START"}} for time_s in (9.0, 12.0))
    saved = {"wallTime": 14.0, "step": 2, "sessionLog": {"status": "CHECKPOINT", "checkpointPath": "/c/1"}}
    before = [scalar("loss", step, 1.0, 10.0 + step) for step in range(2)]
    write_events(tmp_path / "a" / "tfevents.1", first, *before, start, scalar("loss", 1, 3.0, 13.0), saved)
    stored = sound(shmlog.import_run(tmp_path / "a", tmp_path / "runs").dir)
    assert curve(stored, "loss") == [(0, 1.0), (1, 3.0)]
    assert len(stored.attempts) == 2
    assert [event["data"] for event in stored.events("checkpoint")] == [{"step": 2, "path": "/c/1"}]


# ---- summaries of TensorFlow 2 ----


def test_summaries_that_are_tensors(tmp_path: Path) -> None:
    import base64

    png, wav = (base64.b64encode(data).decode() for data in (b"\x89PNG 1", b"RIFF 1"))
    number = base64.b64encode(b"8").decode()
    first = tensor("h", "histograms", [2, 3], dtype="DT_DOUBLE", doubleVal=[0, 1, 5, 1, 3, 7])
    again = tensor("h", "", [1, 3], dtype="DT_DOUBLE", doubleVal=[0, 1, 9])
    write_events(
        tmp_path / "a" / "tfevents.1",
        first,
        again,
        tensor("p", "images", [4], dtype="DT_STRING", stringVal=[number, number, png, png]),
        tensor("s", "audio", [1, 2], dtype="DT_STRING", stringVal=[wav, number]),
        tensor("t", "text", [2], dtype="DT_STRING", stringVal=[number, number]),
        tensor("mesh", "mesh", [2, 3], dtype="DT_FLOAT", floatVal=[1.0]),
        tensor("x", "scalars", [], dtype="DT_FLOAT", floatVal=[0.5]),
        {"wallTime": 6.0, "graphDef": number},
    )
    report = shmlog.import_run(tmp_path / "a", tmp_path / "runs")
    assert report.problems == ("tfevents.1: 'mesh' holds mesh; left out",)
    stored = sound(report.dir)
    events = [(event["event_type"], event["data"]) for event in stored.events()]
    assert events[0] == ("histogram", {"step": 3, "tag": "h", "edges": [0, 1, 3], "counts": [5, 7]})
    assert events[1][1]["counts"] == [9], "a writer names the plugin once"
    assert ("text", {"step": 3, "tag": "t", "text": ["8", "8"]}) in events
    contents = {artifact.name: content_of(stored, artifact.name) for artifact in stored.artifacts}
    assert contents == {
        "media/p-00000003.png": b"\x89PNG 1", "media/p-00000003.2.png": b"\x89PNG 1", "media/s-00000003.wav": b"RIFF 1",
        "tensorboard/graph_def-00000000.pb": b"8",
    }  # fmt: skip
    assert curve(stored, "x") == [(3, 0.5)]


def test_values_that_no_number_is(tmp_path: Path) -> None:
    write_events(tmp_path / "a" / "tfevents.1", scalar("x", 0, "NaN", 1.0), scalar("x", 1, "-Infinity", 1.0))
    assert [repr(value) for _, value in curve(sound(shmlog.import_run(tmp_path / "a", tmp_path / "r").dir), "x")] == [
        "nan", "-inf",
    ]  # fmt: skip
