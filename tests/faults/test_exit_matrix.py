"""Every way in which a process ends, of the main process and of every kind of child (FAULTS 23, 24, 26, 27, 39, 40)."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import shmlog
from tests.faults import exit_job
from tests.faults.exit_job import (
    CHILDREN,
    CONTEXTS,
    ENDS,
    IS_DONE,
    MAINS,
    READY,
    REST,
    TO_ALL,
    count_entry,
    state_entry,
)
from tests.support.board import Board
from tests.support.books import assert_books_balance, assert_in_order, assert_units_on_disk
from tests.support.cells import Cell
from tests.support.processes import wait_until

JOB = Path(exit_job.__file__)
STATUSES = {
    "return": "success", "exception": "failed", "sys.exit": "failed", "sys.exit(143)": "cancelled",
    "SIGINT": "cancelled", "SIGTERM": "cancelled", "SIGTERM to all": "cancelled",
}  # fmt: skip
CODES = {"return": 0, "exception": 1, "sys.exit": 3, "sys.exit(143)": 143, "os._exit": 4}
BY_ITSELF = ("return", "exception", "sys.exit", "sys.exit(143)", "SIGINT")  # Python gets to run, and finishes the run
# What ends each context's children when the main process ends by itself; else they log to their end.
KILLS_ITS_CHILDREN = ("daemon", "pool")
ROUNDS_FULL = 11  # 94 cells a round: more than the 1,000 cycles of P8


@pytest.fixture
def rounds(tmp_path_factory: pytest.TempPathFactory, full: bool) -> list[Cell]:
    """Return the cells of a test, each to be used once; their names are short, as addresses of sockets have to be."""
    return [Cell(tmp_path_factory.mktemp("cell")) for _ in range(ROUNDS_FULL if full else 1)]


def start_cell(cell: Cell, context: str, end: str) -> tuple[int, Board]:
    """Run a cell's main process to its end. Returns its exit code and the board."""
    path = cell.folder / "board"
    board = Board(path)
    process = cell.start(JOB, cell.root, path, context, end)
    try:
        code = process.wait(timeout=60)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return code, board


def do_cell(cell: Cell, context: str, end: str) -> None:
    code, board = start_cell(cell, context, end)
    expected = CODES[end] if end in CODES else -signal.Signals[end.split()[0]]
    assert code == expected, f"exit code {code}, expected {expected}:\n{cell.output()}"
    children = 0 if context == "none" else CHILDREN
    status = STATUSES.get(end, "crashed")
    if end in BY_ITSELF:
        assert shmlog.load(cell.run_dir).status == status, "the status must be there when the process has ended"
    else:
        let_children_end(cell, board, children)
        cell.assert_reads_soon(status)
    cell.assert_nothing_is_left()

    stored = assert_books_balance(cell.run_dir)
    assert stored.status == status
    assert stored.config == {"lr": 0.1}
    assert_units_on_disk(stored, "main", MAINS, in_flight=0)
    may_be_cut = context in KILLS_ITS_CHILDREN or end in TO_ALL
    missing, in_flight = 0, 0
    for child in range(children):
        done = board[count_entry(child)]
        is_done = board[state_entry(child)] == IS_DONE
        assert is_done or may_be_cut, f"child {child} did not come to its end:\n{cell.output()}"
        assert done >= READY + REST or not is_done
        assert_in_order(stored, [f"child{child}"])
        rows = stored.metrics(f"child{child}").num_rows
        assert rows >= READY, f"I3: {rows} records of child {child} are on disk, {READY} were logged before the end"
        missing += done - rows
        in_flight += not is_done
    # A run ends with its owner: what its children log after that is dropped, and counted.
    late = stored.dropped.get("closed", 0)
    assert abs(missing - late) <= in_flight, f"I4: {missing} records of children are missing, {late} are counted"


def do_children(cell: Cell, context: str) -> None:
    code, board = start_cell(cell, context, "children")
    assert code == 0, cell.output()
    cell.assert_nothing_is_left()
    stored = assert_books_balance(cell.run_dir, offered=READY * len(ENDS))
    assert stored.status == "success", "how a child ends is not how the run ends"
    for child in range(len(ENDS)):
        assert board[state_entry(child)] == IS_DONE, f"{ENDS[child]}:\n{cell.output()}"
        assert_units_on_disk(stored, f"child{child}", READY, in_flight=0)


def let_children_end(cell: Cell, board: Board, children: int) -> None:
    """Let orphans log to their end; then end those that multiprocessing leaves waiting for their dead parent."""

    def all_are_done() -> bool:
        return all(board[state_entry(child)] == IS_DONE for child in range(children))

    wait_until(lambda: all_are_done() or not list(cell.processes(helpers=False)), "the orphans to log to their end")
    cell.kill_rest()


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_whatever_ends_the_main_process(rounds: list[Cell], context: str, end: str) -> None:
    """All that was logged is on disk, the status is right, nothing is left (I3, I4, P8; FAULTS 23, 24, 26, 27, 40)."""
    for cell in rounds:
        do_cell(cell, context, end)


@pytest.mark.parametrize("context", [context for context in CONTEXTS if context not in ("none", "pool closed")])
def test_however_children_end(rounds: list[Cell], context: str) -> None:
    """One child for each end: all that it logged is on disk, and the run is not touched by it (I3, I4; FAULTS 26)."""
    for cell in rounds:
        do_children(cell, context)
