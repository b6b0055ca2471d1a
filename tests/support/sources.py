"""Sources of other programs, to be imported."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

METRICS = [
    (b"loss", 0, 0.5, 1_700_000_001),
    (b"loss", 2**32 - 1, -0.0, 1_700_000_002),
    ("ü".encode(), 7, 1e300, 1_700_000_003),
]


def meta_bin(
    commit: bytes = b"c0ffee", job: bytes = b"train", user: bytes = b"ann", seconds: int = 1_700_000_000
) -> bytes:
    texts = b"".join(bytes([len(text)]) + text for text in (commit, job, user))
    return struct.pack(">Bq", 1, seconds) + texts


def metric_record(name: bytes, step: int, value: float, seconds: int) -> bytes:
    return struct.pack(">qIdB", seconds, step, value, len(name)) + name


def fetch_ml_folder(path: Path) -> Path:
    (path / "files" / "src").mkdir(parents=True)
    (path / "files" / "src" / "train.py").write_text("print()")
    (path / "meta.bin").write_bytes(meta_bin())
    (path / "metrics.bin").write_bytes(b"".join(metric_record(*record) for record in METRICS))
    return path


def expman_folder(path: Path, table: str = "vectors.parquet") -> Path:
    (path / "artifacts").mkdir(parents=True)
    (path / "artifacts" / "a.txt").write_text("x")
    (path / "run.yaml").write_text(
        "name: 20261121_122713\nexperiment: digits\nstatus: FINISHED\nstarted_at: 2026-11-21T12:27:13.758545422Z\n"
        "finished_at: 2026-11-21T12:27:14.769514313Z\ndescription: d\ntags:\n- a\nscalars:\n  acc: 0.9\n"
    )
    (path / "config.yaml").write_text("lr: 0.1\n")
    (path / "run.log").write_text(
        "[2026-11-21T12:27:13.768Z] [INFO] hello\nmore\n[2026-11-21T12:27:13.769Z] [WARN] careful\n"
    )
    (path / "console.log").write_text("out\n")
    pq.write_table(expman_table(), path / table)
    return path


def expman_table() -> pa.Table:
    times = pa.array([1_000_000, 2_000_000, 3_000_000], pa.timestamp("us", tz="UTC"))
    columns = {
        "step": pa.array([0, 1, None], pa.int64()), "timestamp": times, "loss": [0.5, None, float("inf")],
        "note": ["=a", None, "b"],
    }  # fmt: skip
    return pa.table(columns)


def experiment_logger_folder(path: Path, name: str = "digits") -> Path:
    """Make what ExperimentLogger and CheckpointManager of that system leave, by their source: lines, names, pickles."""
    path.mkdir(parents=True, exist_ok=True)
    events = [
        ("experiment_start", {"experiment_name": name, "start_time": "2026-01-01T12:00:00"}),
        ("config", {"lr": 0.1}),
        ("metrics", {"step": 1, "metrics": {"loss": 0.5}}),
        ("error", {"error_type": "ValueError", "error_message": "x", "context": {"step": 1}}),
        ("experiment_end", {"experiment_name": name, "end_time": "2026-01-01T12:00:04", "status": "failed"}),
    ]
    lines = [
        {"timestamp": f"2026-01-01T12:00:0{second}.250000", "event_type": kind, "data": data}
        for second, (kind, data) in enumerate(events)
    ]
    (path / f"{name}_structured.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / f"{name}.log").write_text(f"2026-01-01 12:00:00 - experiment.{name} - INFO - Experiment started\n")
    for number in (1, 2):
        content = {
            "timestamp": f"2026-01-01T12:00:0{number}.250000", "iteration": number * 10, "checkpoint_id": number,
            "metadata": {"loss": 0.5}, "state": {"weights": [1.0, float(number)]},
        }  # fmt: skip
        (path / f"{name}_iter_{number * 10:06d}.ckpt").write_bytes(pickle.dumps(content))
    (path / f"{name}_index.json").write_text(json.dumps({"experiment_name": name, "checkpoint_count": 2}))
    return path
