"""What events say to people: in the same words on the console, in run.log and in ``shmlog tail``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shmlog
from shmlog.cli.main import main
from shmlog.folder.layout import RUN_LOG, RunLayout
from shmlog.reader.verify.verify import verify
from shmlog.records.words import level_of, lines_of
from tests.support.processes import run_script, wait_for_end

SAID: list[tuple[str, dict[str, Any], list[str]]] = [
    ("experiment_start", {"experiment": "digits", "name": None, "tags": []}, ["Experiment started: digits"]),
    (
        "experiment_start", {"experiment": "digits", "name": "best", "attempt": 2},
        ["Experiment started: digits as best, attempt 2"],
    ),
    (
        "config", {"lr": 1e-05, "model": {"depth": 3, "act": "relu"}, "empty": {}},
        ["Experiment configuration:", "  lr: 1e-05", "  model:", "    depth: 3", "    act: relu", "  empty: {}"],
    ),
    (
        "progress", {"iteration": 100, "total": 1000, "progress_pct": 10.0, "metrics": {"loss": 0.5}},
        ["Progress: 100/1000 (10.0%) | loss=0.5000"],
    ),
    ("progress", {"current": 1, "total": 2, "progress_pct": 50.0}, ["Progress: 1/2 (50.0%)"]),
    ("progress", {"mine": 1}, ["progress: mine=1"]),
    (
        "metrics", {"step": 3, "metrics": {"loss": 0.5, "n": 3, "ok": True}},
        ["Step 3 - Metrics: loss=0.5000, n=3, ok=true"],
    ),
    (
        "result", {"acc": 0.93, "lr": 1e-7, "big": 123456789.0},
        ["Experiment result:", "  acc: 0.930000", "  lr: 1e-07", "  big: 1.23457e+08"],
    ),
    (
        "error", {"error_type": "ValueError", "error_message": "a\nb", "context": {"step": 3}, "traceback": "T:\n  x"},
        ["Error occurred: ValueError: a", "  b", "  Context:", "    step: 3", "    T:", "      x"],
    ),
    ("error", {"type": "KeyError", "message": "'x'", "traceback": None}, ["Error occurred: KeyError: 'x'"]),
    ("error", {"error_type": None, "error_message": "no data"}, ["Error occurred: no data"]),
    (
        "checkpoint", {"path": "a.pt", "step": 5, "metrics": {"loss": 0.5}},
        ["Checkpoint saved: a.pt after step 5 | loss=0.5000"],
    ),
    ("log", {"level": "info", "message": "half\nway\x1b"}, ["half", "    way\\x1b"]),
    ("gap", {"dropped": {"full": 3, "disk": 1}}, ["Records were dropped: 3 (full), 1 (disk)"]),
    ("mine", {"a": 1, "b": [1, {"c": "ü"}]}, ['mine: a=1, b=[1, {"c": "ü"}]']),
    ("mine", {}, ["mine"]),
    (
        "experiment_end", {"status": "failed", "experiment": "digits", "duration_s": 3.21},
        ["Experiment failed: digits after 3.2 s"],
    ),
    (
        "experiment_end", {"status": "success", "experiment": "d", "duration_s": 7505.0, "reason": "enough"},
        ["Experiment completed: d after 2 h 05 min: enough"],
    ),
    ("experiment_end", {"duration_s": 1.0}, ["Experiment ended after 1.0 s"]),
]  # fmt: skip


@pytest.mark.parametrize(("event_type", "data", "said"), SAID)
def test_what_an_event_says(event_type: str, data: dict[str, Any], said: list[str]) -> None:
    assert lines_of(event_type, data) == said


@pytest.mark.parametrize(
    ("event_type", "data", "level"),
    [("error", {}, "error"), ("gap", {}, "warning"), ("log", {"level": "debug"}, "debug"), ("log", {}, "info")],
)
def test_levels(event_type: str, data: dict[str, Any], level: str) -> None:
    assert level_of(event_type, data) == level


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
OURS = sorted({event_type for event_type, _, _ in SAID})
KEYS = sorted({key for _, data, _ in SAID for key in data})


@given(event_type=st.sampled_from(OURS) | st.text(), data=st.dictionaries(st.sampled_from(KEYS) | st.text(), JSON))
def test_whatever_the_data_only_the_first_line_is_not_indented(event_type: str, data: dict[str, Any]) -> None:
    """So that no text looks like a line of its own."""
    _, *others = lines_of(event_type, data)
    assert all(line.startswith("  ") and "\n" not in line for line in others)


FAILS = """
import sys
import shmlog
run = shmlog.init("digits", root=sys.argv[1], config={"lr": 0.1}, console=True)
run.log_progress(100, 1000, {"loss": 0.5})
run.log_metrics({"loss": 0.25}, step=7)
run.log_error(ValueError("too small"), {"batch": 3})
run.finish("failed", "no data")
"""


def test_console_run_log_and_tail_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run_script(FAILS, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run_dir,) = [path.parent for path in (tmp_path / "runs").glob("*/*/run.yaml")]
    wait_for_end(run_dir)
    console = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    run_log = (run_dir / "run.log").read_text().splitlines()
    assert [line if line.startswith("  ") else line.split(" - ", 3)[3] for line in run_log] == console
    assert all(line[:4].isdigit() and line[19:28] == " - digits" for line in run_log if not line.startswith("  "))
    assert main(["tail", str(run_dir), "--no-follow", "-n", "99"]) == 0
    tail = capsys.readouterr().out.splitlines()
    assert [line for line in console if all(line.strip() not in shown for shown in tail)] == []
    assert sum("Step 7 - Metrics: loss=0.2500" in line for line in tail) == 1
    assert run_log[-1].split(" - ", 2)[2].startswith("INFO - Experiment failed: digits after ")
    assert run_log[-1].endswith(" s: no data")


def test_run_log_says_who_if_it_is_not_who_has_made_the_run(tmp_path: Path) -> None:
    script = """
import os, sys
import shmlog
run = shmlog.init("digits", root=sys.argv[1])
run.info("of the maker")
if os.fork() == 0:
    shmlog.current().info("of a child")
    run.flush()
    os._exit(0)
os.wait()
again = shmlog.init("digits", resume=run, root=sys.argv[1]) if run.finish() else None
again.info("of the next attempt")
again.finish()
"""
    done = run_script(script, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run_dir,) = [path.parent for path in (tmp_path / "runs").glob("*/*/run.yaml")]
    wait_for_end(run_dir)
    lines = (run_dir / "run.log").read_text().splitlines()
    (child,) = {event["pid"] for event in shmlog.load(run_dir).events("log") if "child" in event["data"]["message"]}
    assert [line.split(" - ", 3)[3] for line in lines if " of " in line] == [
        "of the maker", f"of a child [pid {child}]", "of the next attempt",
    ]  # fmt: skip


def test_run_log_goes_on_in_other_files_as_events_do(tmp_path: Path) -> None:
    with shmlog.init("digits", root=tmp_path, rotate_events=2048) as run:
        for i in range(200):
            run.info(f"message {i}")
    wait_for_end(run.dir)
    files = list(RunLayout(run.dir).text_files(RUN_LOG).values())
    assert [file.name for file in files[:3]] == ["run.log", "run.1.log", "run.2.log"]
    assert all(0 < file.stat().st_size <= 2048 for file in files)
    lines = "".join(file.read_text() for file in files).splitlines()
    assert [line.split(" - ")[3] for line in lines[1:-1]] == [f"message {i}" for i in range(200)]
    assert verify(run.dir).ok
    last = files[-1]
    last.write_text(last.read_text().replace("Experiment", "experiment"))
    assert last in {finding.file for finding in verify(run.dir).findings}
