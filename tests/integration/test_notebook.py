"""Cells of a notebook that are run again: a real kernel, driven as a front end drives it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import shmlog
from tests.support.processes import wait_for_end

TIMEOUT_S = 60.0

CELL = (
    'run = shmlog.init("cells", root="runs", config={{"version": {version}}})\nrun.log("x", {version})\nprint(run.id)\n'
)


class Notebook:
    """A kernel, and what a front end says to it."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, code: str, cell: str | None = None) -> list[str]:
        """Run a cell, return the lines that it prints."""
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        metadata = {} if cell is None else {"cellId": cell}
        message = self._client.session.msg("execute_request", content, metadata=metadata)
        self._client.shell_channel.send(message)
        return self._printed(message["header"]["msg_id"]).splitlines()

    def _printed(self, request: str) -> str:
        printed = ""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            answer = self._client.get_iopub_msg(timeout=TIMEOUT_S)
            if answer["parent_header"].get("msg_id") != request:
                continue
            kind, content = answer["msg_type"], answer["content"]
            assert kind != "error", content
            if kind == "stream":
                printed += content["text"]
            elif kind == "status" and content["execution_state"] == "idle":
                return printed
        raise AssertionError(f"the cell did not end: {printed}")


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Notebook]:
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(startup_timeout=TIMEOUT_S, cwd=str(tmp_path))
    try:
        notebook = Notebook(client)
        notebook.run("import shmlog")
        yield notebook
        notebook.run("while shmlog.current(): shmlog.finish()")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def load(tmp_path: Path, run_id: str) -> shmlog.StoredRun:
    return shmlog.load(tmp_path / "runs" / "cells" / run_id)


def is_running(tmp_path: Path, run_id: str) -> bool:
    return load(tmp_path, run_id).status == "running"


def test_a_cell_that_is_run_again_finishes_the_run_that_it_had_left_open(notebook: Notebook, tmp_path: Path) -> None:
    (first,) = notebook.run(CELL.format(version=1), "a")
    other = notebook.run(CELL.format(version=2), "b")[-1]
    assert is_running(tmp_path, first), "the run of another cell was ended"
    said, second = notebook.run(CELL.format(version=3), "a")  # edited meanwhile
    assert said == f"shmlog: finished run cells/{first} (cancelled), which this cell had left open"
    wait_for_end(tmp_path / "runs" / "cells" / first)
    stored = load(tmp_path, first)
    assert stored.status == "cancelled"
    assert stored.metrics("x")["value"].to_pylist() == [1.0]
    assert is_running(tmp_path, other), "the run of another cell was ended"
    assert is_running(tmp_path, second)


def test_where_the_front_end_names_no_cell_its_code_does(notebook: Notebook, tmp_path: Path) -> None:
    (first,) = notebook.run(CELL.format(version=1))
    said, second = notebook.run(CELL.format(version=1))
    assert first in said
    (third,) = notebook.run(CELL.format(version=2))  # edited, or another cell: who knows
    assert load(tmp_path, first).status == "cancelled"
    assert is_running(tmp_path, second)
    assert is_running(tmp_path, third)


def test_a_cell_that_finished_its_run_has_nothing_to_say(notebook: Notebook, tmp_path: Path) -> None:
    code = CELL.format(version=1) + "run.finish()\n"
    (first,) = notebook.run(code, "a")
    (second,) = notebook.run(code, "a")
    assert [load(tmp_path, run_id).status for run_id in (first, second)] == ["success", "success"]


def test_runs_that_a_cell_makes_at_once_are_all_its_own(notebook: Notebook, tmp_path: Path) -> None:
    code = "for _ in range(2):\n    print(shmlog.init('cells', root='runs').id)\n"
    first = notebook.run(code, "a")
    assert all(is_running(tmp_path, run_id) for run_id in first)
    lines = notebook.run(code, "a")
    assert len(lines) == 4
    assert [load(tmp_path, run_id).status for run_id in first] == ["cancelled", "cancelled"]
    assert all(is_running(tmp_path, run_id) for run_id in lines[2:])


def test_a_cell_may_take_up_the_run_that_it_had_left_open(notebook: Notebook, tmp_path: Path) -> None:
    notebook.run("last = None")
    code = "run = shmlog.init('cells', root='runs', resume=last) if last else shmlog.init('cells', root='runs')\n"
    code += "last = run\nprint(run.id)\n"
    (first,) = notebook.run(code, "a")
    said, second = notebook.run(code, "a")
    assert first in said
    assert second == first
    assert [attempt["status"] for attempt in load(tmp_path, first).attempts] == ["cancelled", "running"]


def test_a_program_that_a_cell_starts_ends_no_run(notebook: Notebook, tmp_path: Path) -> None:
    (first,) = notebook.run(CELL.format(version=1), "a")
    (other,) = notebook.run(
        "import subprocess, sys\n"
        "print(subprocess.check_output([sys.executable, '-c', \"import shmlog; "
        "print(shmlog.init('cells', root='runs').id)\"], text=True))\n",
        "b",
    )[:1]
    wait_for_end(tmp_path / "runs" / "cells" / other)
    assert is_running(tmp_path, first)
