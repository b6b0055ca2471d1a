"""Values and names that nobody expects, where tests/integration/test_values.py has none: FAULTS 60-67."""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmlog
from shmlog.folder.names import folder_name, is_experiment
from tests.support.books import assert_books_balance
from tests.support.processes import wait_for_end

EXTREMES = [
    math.nan, math.inf, -math.inf, -0.0, 5e-324, 2.2250738585072014e-308, sys.float_info.max, 1e308 * 10, 1e-5, 1e16,
    2.0**53, 0.1, float(np.float32(0.1)), float(np.float16(65504)), -(2**63), 2**63 - 1, 2**53 + 1, 0, True, False,
    "", "NaN", "Infinity", "-Infinity", "null", "1", "\u2028", '"', "\\", "\x7f", "\ufeff", "\U0010ffff",
]  # fmt: skip
"""Texts that read like numbers are among them: where metrics are lines, they come back as numbers (docs/format.md)."""

NAMES = [
    "CON", ".", "..", "-rf", "--help", "a\\b", "%2e%2e", "x" * 255, "é" * 127 + "x", "é" * 128, "\r\n",
    "\x1b]0;pwned\x07", "\u202egnp.exe", "<script>", "=1+1", "\u00e5", "a\u030a", "a\0", "a", "A", " a", "a ", "{}",
    "*", "[a]", "?",
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Iterator[shmlog.Run]:
    with shmlog.init("hostile", root=tmp_path, sinks=("parquet", "jsonl")) as run:
        yield run


def refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not RFC 8259")


def end(run: shmlog.Run) -> shmlog.StoredRun:
    run.finish()
    wait_for_end(run.dir)
    return assert_books_balance(run.dir)


def test_every_line_is_strict_json_whatever_the_value(run: shmlog.Run) -> None:
    """FAULTS 60: NaN is no JSON; Parquet keeps it, events.jsonl has a string for it."""
    for step, value in enumerate(EXTREMES):
        run.log("value", value, step=step)
        run.event("value", {"value": value})
    stored = end(run)
    lines = (run.dir / "events.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    parsed = [json.loads(line, parse_constant=refuse) for line in lines]
    assert all(line.decode("utf-8").isprintable() for line in lines), "one record is one line, in any reader's eyes"
    rows = stored.metrics("value").to_pylist()
    for value, row in zip(EXTREMES, rows, strict=True):
        column = {float: "value", int: "int_value", bool: "int_value", str: "text"}[type(value)]
        assert repr(row[column]) == repr(int(value) if isinstance(value, bool) else value), "I1"
    told = [line["data"]["value"] for line in parsed if line["event_type"] == "value"]
    unusual = {math.inf: "Infinity", -math.inf: "-Infinity"}
    due = ["NaN" if value != value else unusual.get(value, value) for value in EXTREMES]
    assert [repr(value) for value in told] == [repr(value) for value in due]


class Strange:
    """A number whose conversion does something else first."""

    def __init__(self, act: Any) -> None:
        self._act = act

    def __float__(self) -> float:
        self._act()
        return 2.0


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        shmlog.log("forked", 1.0, step=0)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_conversion_that_forks_or_ends_the_run_costs_only_its_call(run: shmlog.Run) -> None:
    """FAULTS 61: whatever __float__ does, the lane is not touched before it has returned."""
    run.log("outer", Strange(_fork), step=1)
    run.log({"a": 1.0, "outer": Strange(_fork), "b": 2.0}, step=2)
    with pytest.raises(KeyboardInterrupt):
        run.log({"a": 1.0, "outer": Strange(lambda: (_ for _ in ()).throw(KeyboardInterrupt))}, step=3)
    with pytest.raises(RecursionError):
        run.log("outer", Strange(_recurse), step=4)
    run.log("outer", Strange(run.finish), step=5)
    stored = end(run)
    assert stored.metrics("forked").num_rows == 2
    assert stored.metrics("outer")["step"].to_pylist()[:2] == [1, 2]
    assert stored.metrics("a")["step"].to_pylist() == stored.metrics("b")["step"].to_pylist() == [2]


def _recurse() -> float:
    return float(Strange(_recurse))


def test_steps_that_repeat_or_go_back_are_all_kept(run: shmlog.Run) -> None:
    """FAULTS 62: nothing is dropped or merged because of its step."""
    steps = [5, 5, 4, -1, 2**63 - 1, -(2**63), 0, 5]
    for i, step in enumerate(steps):
        run.log("x", i, step=step)
    stored = end(run)
    rows = sorted(stored.metrics("x").to_pylist(), key=lambda row: row["seq"])
    assert [row["step"] for row in rows] == steps
    assert [row["int_value"] for row in rows] == list(range(len(steps)))


def test_names_come_back_apart_and_print_as_text(run: shmlog.Run, capsys: pytest.CaptureFixture[str]) -> None:
    """FAULTS 63: twins stay two, one record is one line, and no terminal sees a control character."""
    from shmlog.cli.main import main

    for i, name in enumerate(NAMES):
        run.log(name, i, step=0)
        run.event(name, {name: name})
    stored = end(run)
    assert stored.names() == sorted(NAMES)
    for i, name in enumerate(NAMES):
        assert stored.metrics([name])["int_value"].to_pylist() == [i]
    text = (run.dir / "run.log").read_text("utf-8")
    assert text.count("\n") == len((run.dir / "events.jsonl").read_bytes().split(b"\n")) - 1 - len(NAMES)
    for arguments in (["show", str(run.dir)], ["tail", str(run.dir), "--no-follow"]):
        assert main(arguments) == 0
        printed = capsys.readouterr().out
        assert printed
        assert not {c for c in printed if not c.isprintable() and c != "\n"}, arguments
    assert all(c.isprintable() or c == "\n" for c in text)


@pytest.mark.parametrize("name", ["../../etc/x", "/abs", "%2e%2e", "..;", "a#", ".", "..", "", "a/b", "a\\b", "é",
                                  "x" * 65, "a\0", "a\n", "a "])  # fmt: skip
def test_an_experiment_can_lie_nowhere_else(tmp_path: Path, name: str) -> None:
    """FAULTS 64: it names a folder below root, and nothing is made elsewhere."""
    root = tmp_path / "root"
    if is_experiment(name):
        with shmlog.init(name, root=root) as run:
            pass
        assert run.dir.parent.parent == root
        assert sorted(path.name for path in root.iterdir() if path.is_dir()) == [folder_name(name)]
    else:
        with pytest.raises(ValueError, match="experiment"):
            shmlog.init(name, root=root)
    assert {path.name for path in tmp_path.iterdir()} <= {"root"}


def test_a_flood_of_names_costs_bounded_memory_and_one_warning(
    run: shmlog.Run, caplog: pytest.LogCaptureFixture, full: bool
) -> None:
    """FAULTS 65: a cap, drops that are counted, one warning, flat memory."""
    count = 1_000_000 if full else 100_000
    with caplog.at_level(logging.WARNING, "shmlog"):
        for i in range(20_000):
            run.log(f"name{i}", i)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for i in range(20_000, count):
            run.log(f"name{i}", i)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 16 << 10, f"{grown} KiB for names that are not kept"
    assert sum("reason: names" in record.getMessage() for record in caplog.records) == 1
    stored = end(run)
    assert len(stored.names()) + stored.dropped["names"] == count


def test_data_that_are_deep_or_no_data_are_refused(run: shmlog.Run) -> None:
    """FAULTS 67: nothing is logged by a call that raises."""
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"a": deep}
    before = run.stats["logged"]
    with pytest.raises(ValueError, match="nested"):
        run.event("deep", deep)
    with pytest.raises(ValueError, match="its dict is nested more than 100 levels deep"):
        run.log("deep", deep)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="its dict is nested more than 100 levels deep"):
        run.log({"a": 1.0, "deep": deep})
    assert run.stats["logged"] == before
