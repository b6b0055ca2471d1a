"""``shmlog artifacts``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shmlog.cli.main import main
from shmlog.folder.layout import RunLayout
from tests.support.artifacts import finished_run


@pytest.fixture
def run_copy(tmp_path: Path) -> RunLayout:
    return finished_run(tmp_path)


def test_the_command_lists_checks_and_copies(
    run_copy: RunLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(run_copy.dir)
    assert main(["artifacts", run]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == [
        "name", "eval/plots/a.png", "eval/plots/b.csv", "model.bin",
    ]  # fmt: skip
    assert main(["artifacts", "verify", run, "--json"]) == 0
    assert [one["damage"] for one in json.loads(capsys.readouterr().out)] == [None] * 3
    assert main(["artifacts", run, "--get", "eval", "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "plots" / "b.csv").read_text() == "1,2\n"
    assert main(["artifacts", run, "--get", "eval", "-o", str(tmp_path / "out")]) == 3
    assert "is there already" in capsys.readouterr().err
    (run_copy.artifacts / "model.bin").chmod(0o600)
    (run_copy.artifacts / "model.bin").write_bytes(b"MODEL")
    assert main(["artifacts", "verify", run]) == 1
    assert "2 sound, 1 damaged" in capsys.readouterr().err
    assert main(["artifacts", run, "--get", "model.bin", "-o", str(tmp_path / "model")]) == 3
    assert not (tmp_path / "model").exists()
    assert main(["artifacts", run, "--get", "nope"]) == 3
    assert "no artifact 'nope'" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["a", "b"], ["-o", "x"], ["verify", "--get", "x"]])
def test_options_that_do_not_fit_together(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["artifacts", *words]) == 2
    assert "error" in capsys.readouterr().err
