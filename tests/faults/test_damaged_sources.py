"""Sources that are cut, flipped or made up: imported as far as they go and told, or refused (FAULTS 70 to 74)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmlog
from tests.support.records import make_run, sound
from tests.support.sources import METRICS, expman_folder, expman_table, fetch_ml_folder, meta_bin

FUNCTION_FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@pytest.fixture
def fetch_ml(tmp_path: Path) -> Path:
    return fetch_ml_folder(tmp_path / "ml" / "c0ffee")


def test_metrics_bin_cut_at_every_length(fetch_ml: Path, tmp_path: Path) -> None:
    whole = (fetch_ml / "metrics.bin").read_bytes()
    ends = [0]
    for record in METRICS:
        ends.append(ends[-1] + 21 + len(record[0]))
    for size in range(len(whole) + 1):
        (fetch_ml / "metrics.bin").write_bytes(whole[:size])
        report = shmlog.import_run(fetch_ml, tmp_path / "runs")
        complete = sum(end <= size for end in ends[1:])
        assert report.counts["metrics"] == complete
        assert bool(report.problems) == (size not in ends), size
        sound(report.dir)


def test_meta_bin_cut_at_every_length(fetch_ml: Path, tmp_path: Path) -> None:
    whole = meta_bin()
    for size in range(len(whole) + 1):
        (fetch_ml / "meta.bin").write_bytes(whole[:size])
        report = shmlog.import_run(fetch_ml, tmp_path / "runs")
        assert report.counts["metrics"] == len(METRICS)
        assert bool(report.problems) == (size < len(whole)), size
        sound(report.dir)


@settings(max_examples=60, suppress_health_check=FUNCTION_FIXTURES)
@given(meta=st.binary(max_size=60) | st.binary(max_size=40).map(lambda b: b"\x01" + b), metrics=st.binary(max_size=120))
def test_hostile_bytes_are_told(meta: bytes, metrics: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "meta.bin").write_bytes(meta)
    (folder / "metrics.bin").write_bytes(metrics)
    try:
        report = shmlog.import_run(folder, folder / "runs")
    except shmlog.errors.RefusedError as error:
        if "holds nothing that can be imported" not in str(error):
            raise
        assert not (folder / "runs").exists()
        return
    sound(report.dir)
    assert not shmlog.import_run(folder, folder / "runs").is_new


def test_the_journal_of_a_killed_expman_run_cut_at_every_length(tmp_path: Path) -> None:
    folder = expman_folder(tmp_path / "digits" / "a")
    (folder / "vectors.parquet").unlink()
    sink = pa.BufferOutputStream()
    table = expman_table()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
        later = pa.array([4, 5, 6], pa.timestamp("s", tz="UTC")).cast(table["timestamp"].type)
        writer.write_table(table.set_column(1, table.schema.field(1), later))
    whole = sink.getvalue().to_pybytes()
    seen = set()
    for size in range(0, len(whole) + 1, 29):
        (folder / "vectors-0000.arrow").write_bytes(whole[:size])
        report = shmlog.import_run(folder, tmp_path / "runs", "expman")
        seen.add(report.counts["metrics"])
        sound(report.dir)
    assert seen == {0, 4, 8}
    pq.write_table(table, folder / "vectors.parquet")  # as a run that was killed while it closed leaves it
    (folder / "vectors-0000.arrow").write_bytes(whole)
    assert shmlog.import_run(folder, tmp_path / "runs").counts["metrics"] == 8


KEYS = st.sampled_from(["step", "metrics", "status", "a"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(["metrics", "config", "gap", "experiment_end", "experiment_start", "x"])


@settings(max_examples=60, suppress_health_check=FUNCTION_FIXTURES)
@given(data=DATA, kind=TYPES)
def test_any_event_is_taken_or_told(data: Any, kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("events")
    (folder / "a.jsonl").write_text(json.dumps({"timestamp": "2026-01-01T00:00:00Z", "event_type": kind, "data": data}))
    try:
        sound(shmlog.import_run(folder / "a.jsonl", folder / "runs").dir)
    except shmlog.errors.RefusedError as error:
        if "holds nothing that can be imported" not in str(error) or kind != "metrics":
            raise


@settings(max_examples=60, suppress_health_check=FUNCTION_FIXTURES)
@given(text=st.text(st.sampled_from("a1,\"\n\r='.-\x00e"), max_size=30), ours=st.booleans())
def test_any_text_is_read_as_csv_or_refused(text: str, ours: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("csv")
    if ours:
        shmlog.export_run(make_run(folder / "r", [("a", 0, 1.5, 1, None)]), folder / "a.csv")
        text = (folder / "a.csv").read_bytes().decode() + text
    (folder / "a.csv").write_bytes(text.encode())
    try:
        report = shmlog.import_run(folder / "a.csv", folder / "runs")
    except shmlog.errors.UnreadableError:
        assert not (folder / "runs").exists()
        return
    sound(report.dir)


@pytest.mark.parametrize("suffix", ["json", "parquet", "arrow", "csv"])
def test_damaged_exports_are_refused_or_read(suffix: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", [("a", i, float(i), i + 1, None) for i in range(20)])
    (path,) = shmlog.export_run(run, tmp_path / f"a.{suffix}")
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :]):
            path.write_bytes(data)
            try:
                report = shmlog.import_run(path, tmp_path / "runs")
            except shmlog.errors.UnreadableError:
                continue
            sound(report.dir)
