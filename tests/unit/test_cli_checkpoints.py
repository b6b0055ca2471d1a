"""``shmlog checkpoints``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from shmlog import CheckpointManager
from shmlog.checkpoint.container import verify
from shmlog.cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints of two names, one of them damaged in its data."""
    folder = tmp_path / "models"
    for step in (5, 10):
        CheckpointManager(folder, "exp").save({"w": np.ones(100)}, step, metrics={"loss": 1 / step, "n": step})
    damaged = CheckpointManager(folder, "other").save({"w": np.ones(100)}, 3).path
    data = bytearray(damaged.read_bytes())
    data[-100] ^= 1
    damaged.write_bytes(data)
    return folder


def test_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", str(folder)]) == 0
    out, err = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines] == [
        "file", "exp-00000005.safetensors", "exp-00000010.safetensors", "other-00000003.safetensors",
    ]  # fmt: skip
    assert lines[1][1:5] == ["exp", "5", "loss=0.2,", "n=5"]
    assert [line[-1] for line in lines[1:]] == ["ok"] * 3
    assert "checkpoints verify" in err


def test_verify_reads_every_byte(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", "verify", str(folder)]) == 1
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()[1:]] == ["sound", "sound", "damaged"]
    assert "other-00000003.safetensors: damaged" in err
    assert "2 checkpoints sound, 1 damaged" in err
    (folder / "other-00000003.safetensors").unlink()
    assert main(["checkpoints", "verify", str(folder)]) == 0


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "exp-00000007.safetensors").write_bytes(b"cut")
    assert main(["checkpoints", "verify", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["step"], one["damage"] is None) for one in found] == [
        ("exp", 7, False), ("exp", 5, True), ("exp", 10, True), ("other", 3, False),
    ]  # fmt: skip
    sound = found[1]
    assert sound["metrics"] == {"loss": 0.2, "n": 5}
    assert sound["sha256"] == verify(Path(sound["path"]))
    assert sound["bytes"] == Path(sound["path"]).stat().st_size
    assert sound["created_at"].endswith("+00:00")


def test_those_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "runs" / "digits" / "a"
    CheckpointManager(run_dir / "checkpoints").save({}, 1)
    (run_dir / "run.yaml").write_text('{"schema": 1, "run_id": "a"}')
    for words in ([], ["runs"], ["runs/digits/a"], ["a"], ["runs/digits/a/checkpoints"]):
        assert main(["checkpoints", *words]) == 0
        assert "checkpoint-00000001.safetensors" in capsys.readouterr().out


def test_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checkpoints", str(tmp_path)]) == 3
    assert "neither a checkpoint nor a run here" in capsys.readouterr().err
    assert main(["checkpoints", "nowhere"]) == 3
    assert main(["checkpoints", "verify", "a", "b"]) == 2
    (tmp_path / "run.yaml").write_text("{}")
    assert main(["checkpoints", str(tmp_path)]) == 0
    assert "no checkpoints in" in capsys.readouterr().err


def test_it_needs_no_safetensors(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert main(["checkpoints", str(folder)]) == 0
    assert main(["checkpoints", "verify", str(folder)]) == 1
    assert "exp-00000005" in capsys.readouterr().out
