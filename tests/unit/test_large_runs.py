"""What reads a run as a whole takes it in pieces; names cost what their records cost; ``tail`` shows what is wanted."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.reader import read
from shmlog.reader.follow import Follower
from shmlog.reader.summary import summarise
from shmlog.reader.verify import numbers
from shmlog.reader.verify.numbers import Numbers
from shmlog.reader.verify.verify import verify
from shmlog.reader.wanted import Wanted


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run of two metrics of many records, which is read in pieces of a hundred."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(read, "_ROWS_AT_ONCE", 100)
    with shmlog.init("digits") as run:
        for step in range(700):
            run.log({"loss": 1 / (step + 1), "n": step}, step=step)
        run.log("loss", float("nan"), step=3)
        run.log({"loss": "a text", "ok": True}, step=900)
    return run.dir


def test_pieces_are_small_and_hold_all_records(run_dir: Path) -> None:
    stored = shmlog.load(run_dir)
    pieces = stored.reduce(list)
    assert max(piece.num_rows for piece in pieces) <= 100
    together = pa.concat_tables(pieces).select(["lane", "seq"]).sort_by("seq")
    assert together == stored.metrics().select(["lane", "seq"]).sort_by("seq")


def test_a_summary_of_pieces_is_that_of_the_whole(run_dir: Path) -> None:
    stored = shmlog.load(run_dir)
    assert stored.summary() == summarise(stored.portions(superseded=True))
    rows = {(row["name"], row["kind"]): row for row in stored.summary().rows}
    assert rows["loss", "float"]["count"] == 701
    assert rows["loss", "float"]["last_step"] == 699


@pytest.mark.parametrize("count", [1, 3, 150, 5000])
def test_the_last_lines_of_pieces_are_those_of_the_whole(
    run_dir: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_pieces = Follower(run_dir).history(count)
    monkeypatch.setattr(read, "_ROWS_AT_ONCE", 1 << 20)
    assert repr(in_pieces) == repr(Follower(run_dir).history(count)), "NaN is not equal to itself"
    assert [set(line["data"].get("metrics", [])) for line in in_pieces[-2:]] == [{"loss", "ok"}, set()][-count:]


def test_tail_and_show_keep_little_of_what_they_read(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("all of the run is read at once")

    monkeypatch.setattr(shmlog.StoredRun, "metrics", refuse)
    assert main(["tail", "digits", "-n", "3", "--no-follow"]) == 0
    assert main(["show", "digits"]) == 0
    assert len(shmlog.Store("runs").summary("digits")) == 3


def test_a_damaged_row_group_is_told_and_the_rest_is_there(run_dir: Path) -> None:
    part = next(run_dir.glob("metrics/*/*.parquet"))
    content = bytearray(part.read_bytes())
    content[100] ^= 0xFF
    part.write_bytes(content)
    with pytest.warns(shmlog.ShmlogWarning, match="left out"):
        shmlog.load(run_dir).summary()
    assert not verify(run_dir).ok


# ---- numbers ----


@pytest.mark.parametrize("limit", [5, 100, 1_000_000])
def test_numbers_are_the_same_however_many_are_kept_as_marks(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "_PENDING_MAX", limit)
    generator = np.random.default_rng(limit)
    seqs = np.delete(np.arange(1000), [17, 400, 401])
    seqs = np.append(seqs, [5, 5, 700, 1 << 59])  # twice more, and one that makes no sense
    generator.shuffle(seqs)
    found = Numbers()
    for portion in np.array_split(seqs, 40):
        found.add(np.full(len(portion), 3), portion)
    problems = {(problem.first, problem.amount, problem.is_duplicate) for problem in found.problems()}
    assert problems == {(17, 3 + (1 << 59) - 1000, False), (5, 3, True)}
    assert sum(marks.nbytes for marks in found._marks.values()) < 5000
    assert found.runs()[:, 2].sum() == len(seqs)


# ---- names ----


def test_a_pivot_is_linear_in_names(tmp_path: Path) -> None:
    def cost(names: int) -> float:
        with shmlog.init("wide", root=tmp_path) as run:
            for step in range(5):
                run.log({f"m{i}": float(i) for i in range(names)}, step=step)
        stored = shmlog.load(run.dir)
        table = stored.pivot()
        assert (table.num_rows, table.num_columns) == (5, names + 1)
        assert table["m7"].to_pylist() == [7.0] * 5
        costs = []
        for _ in range(3):
            begin = time.process_time()
            stored.pivot()
            costs.append(time.process_time() - begin)
        return min(costs)

    assert cost(4000) < 12 * cost(1000), "sixteen times as much where each name looks at all rows"


# ---- what tail shows ----


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["tail", "logged", "-n", "100", "--no-follow", "--json", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_tail_shows_what_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with shmlog.init("logged") as run:
        run.log({"loss": 0.5, "val/acc": 0.9, "val/f1": 0.8}, step=1)
        run.log("loss", 0.4, step=2)
        run.info("begin")
        run.warning("careful")
        run.log_error("broken")
        run.event("mine", {"x": 1})
    metrics = [line["data"]["metrics"] for line in shown(capsys, "--metric", "val/*")]
    assert metrics == [{"val/acc": 0.9, "val/f1": 0.8}]
    warning, error = (line["data"] for line in shown(capsys, "--level", "warning"))
    assert (warning["message"], error["error_message"]) == ("careful", "broken")
    assert [line["event_type"] for line in shown(capsys, "--type", "mine", "--type", "error")] == ["error", "mine"]
    assert len(shown(capsys, "--type", "metrics")) == 2
    assert len(shown(capsys)) >= 7
    assert shown(capsys, "--rank", "0") == shown(capsys, "--worker", "3") == []


def test_what_is_wanted_of_lines_and_of_rows_is_the_same() -> None:
    line = {"event_type": "metrics", "data": {"step": 1, "metrics": {"a": 1, "b": 2}}, "rank": 1, "worker": None}
    rows = pa.table(
        {"name": pa.array(["a", "b"]).dictionary_encode(), "rank": [1, 1], "worker": pa.nulls(2, pa.int32())}
    )
    for wanted, names in {
        Wanted(): ["a", "b"], Wanted(rank=1): ["a", "b"], Wanted(rank=0): [], Wanted(worker=0): [],
        Wanted(metrics=("b*",)): ["b"], Wanted(level="info"): [], Wanted(types=("error",)): [],
        Wanted(types=("error", "metrics"), rank=1, metrics=("a",)): ["a"],
    }.items():  # fmt: skip
        chosen = wanted.line(line)
        assert list(chosen["data"]["metrics"] if chosen else []) == names
        assert wanted.rows(rows)["name"].to_pylist() == names


def test_a_follower_shows_only_what_is_wanted_of_what_comes(tmp_path: Path) -> None:
    with shmlog.init("logged", root=tmp_path) as run:
        follower = Follower(run.dir, Wanted(metrics=("val/*",)))
        assert follower.history(10) == []
        run.log({"loss": 0.5, "val/acc": 0.9}, step=1)
        run.event("mine")
        assert run.flush()
        assert [line["data"]["metrics"] for line in follower.poll()] == [{"val/acc": 0.9}]
        run.log({"val/acc": 0.95}, step=2)
    assert [line["data"]["metrics"] for line in follower.rest()] == [{"val/acc": 0.95}]
