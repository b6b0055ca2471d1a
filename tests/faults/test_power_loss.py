"""The machine loses power at any moment: FAULTS P5, rows 51 and 54, invariants I5 and I6.

The file operations of a real run are recorded once: two kinds of producers, a
flusher that is killed and replaced, sealing, finishing, merging. Then the
states that a file system may have left are made from the record, as
`tests.faults.crash_states` describes them, and each is read and recovered.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

import shmlog
from shmlog.base import boot
from shmlog.flusher import recover as recovery
from shmlog.flusher.recover import recover
from shmlog.folder import liveness
from shmlog.reader.verify.verify import verify
from tests.faults.crash_states import MODES, Tree, digest, replay, write_tree
from tests.faults.oplog import Op, record
from tests.faults.power_workload import EVENT_EVERY, PHASES, STEPS, artifact, value
from tests.support.tools import need

WORKLOAD = Path(__file__).with_name("power_workload.py")
STATES = 1000
STATES_FULL = 100_000


class Recording(NamedTuple):
    base: Path
    ops: list[Op]


class Promise(NamedTuple):
    """What must be there: the steps that each process had flushed durably."""

    steps: dict[str, int]
    finished: bool


@pytest.fixture(scope="module", params=["parquet,jsonl", "parquet", "jsonl"])
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    need("strace")
    folder = tmp_path_factory.mktemp("record")
    base, marks = folder / "base", folder / "marks"
    base.mkdir()
    ops = record(
        WORKLOAD, str(base / "runs"), str(marks), request.param, base=base, marks=marks, trace=folder / "trace"
    )  # fmt: skip
    (folder / "trace").unlink()
    return Recording(base, ops)


def test_the_record_is_whole(recording: Recording) -> None:
    """What has not lost anything is what the run has left: the recorder and the model are right."""
    *_, (_, disk) = replay(recording.ops, recording.base)
    found = disk.after_loss("keep all", random.Random(0))
    left = {
        str(path.relative_to(recording.base)): None if path.is_dir() else path.read_bytes()
        for path in recording.base.rglob("*")
    }
    assert found == left


def test_what_was_flushed_durably_survives_a_loss_of_power(
    recording: Recording, tmp_path: Path, seed: int, full: bool
) -> None:
    """FAULTS 54, P5: every state is readable; nothing promised is missing; recovery is done once."""
    chance = random.Random(seed)
    wanted = (STATES_FULL if full else STATES) // 3
    seen: set[bytes] = set()
    with _another_boot():
        for name, tree, promise in _states(recording, chance, wanted):
            if _is_new(tree, seen):
                shutil.rmtree(tmp_path / "state", ignore_errors=True)
                write_tree(tree, tmp_path / "state")
                try:
                    _check(tmp_path / "state", promise)
                except BaseException as error:
                    error.add_note(f"state: {name}, left in {tmp_path / 'state'}; repeat with --seed={seed}")
                    raise
            if len(seen) == wanted:
                break
    print(f"{len(seen)} states of {len(recording.ops)} operations")


@contextlib.contextmanager
def _another_boot() -> Iterator[None]:
    """Nobody holds a lock; and what recovery syncs, or says, is not what is tested: it has to be quick."""
    with (
        mock.patch.object(boot, "boot_id", return_value="another boot"),
        mock.patch.object(liveness, "_has_restarted", return_value=True),
        mock.patch.object(boot, "booted_at", return_value=float("inf")),
        mock.patch.object(os, "fsync", return_value=None),
        mock.patch.object(recovery, "report", return_value=None),
    ):
        yield


def _is_new(tree: Tree, seen: set[bytes]) -> bool:
    known = len(seen)
    seen.add(digest(tree))
    return len(seen) > known


def _states(recording: Recording, chance: random.Random, wanted: int) -> Iterator[tuple[str, Tree, Promise]]:
    """Yield every moment in each of `MODES`, then chance losses at each moment over and over."""
    rounds = [MODES, *[("random",)] * (1 + 10 * wanted // len(recording.ops))]
    for number, modes in enumerate(rounds):
        promise = Promise({}, finished=False)
        for moment, disk in replay(recording.ops, recording.base):
            if moment and recording.ops[moment - 1].kind == "mark":
                promise = _promised(promise, recording.ops[moment - 1])
            for mode in modes:
                tree = disk.after_loss(mode, chance)
                yield f"after {moment} operations, {mode}, round {number}", tree, promise


def _promised(promise: Promise, mark: Op) -> Promise:
    told = json.loads(mark.data)
    return Promise({**promise.steps, told["who"]: told["steps"]}, promise.finished or told.get("finished", False))


# ---- what holds for every state ----


def _check(base: Path, promise: Promise) -> None:
    runs = [path.parent for path in base.glob("runs/power/*/run.yaml")]
    if not runs:
        assert not promise.steps, "I6: the run is gone"
        return
    run_dir = runs[0]
    found, told = _read(run_dir)
    _check_steps(found, promise)
    for path in [path for path in run_dir.glob("artifacts/*/*") if path.is_file()]:
        _check_artifact(path)
    for who, count in promise.steps.items():
        for phase in range(0, count // STEPS, 2):
            _check_artifact(run_dir / "artifacts" / who / str(phase))
    has_holes = any(steps != list(range(len(steps))) for steps in found.values())
    if has_holes:
        assert not verify(run_dir).ok, "I10: records between others are lost, and verify does not say so"
    _check_recovered(run_dir, found, promise, told)


def _read(run_dir: Path) -> tuple[dict[str, list[int]], list[str]]:
    """Return the steps by process, all values checked, and what was warned of."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        stored = shmlog.load(run_dir)
        rows = stored.metrics().to_pylist()
        events = stored.events()
        assert isinstance(stored.status, str)
        assert isinstance(stored.config, dict)
        counts = stored.counts
    assert counts["metrics"] == len(rows), "I4: the books are not those of the records"
    steps: dict[str, list[int]] = {}
    for row in sorted(rows, key=lambda row: (row["lane"], row["seq"])):
        who = row["name"].removeprefix("x-")
        steps.setdefault(who, []).append(row["step"])
        assert _value(row) == value(who, row["step"]), f"I11: a wrong value: {row}"
    places = [(e["data"]["who"], e["data"]["step"]) for e in events if e["event_type"] == "at"]
    assert len(set(places)) == len(places), "I6: an event stands twice"
    for who, step in places:
        steps.setdefault(f"events of {who}", []).append(step // EVENT_EVERY)
    for event in events:
        if event["event_type"] == "artifact":
            _check_artifact(run_dir / "artifacts" / event["data"]["name"])
    return steps, [str(warning.message) for warning in warned]


def _check_artifact(path: Path) -> None:
    assert path.is_file(), f"P5: {path} was logged, and is gone"
    assert path.read_bytes() == artifact(int(path.name)), f"I11: {path} is not what was logged"


def _value(row: dict[str, Any]) -> Any:
    kind = row["kind"]
    return {"float": row["value"], "int": row["int_value"], "bool": row["int_value"] == 1, "text": row["text"]}[kind]


def _check_steps(found: dict[str, list[int]], promise: Promise) -> None:
    for who, steps in found.items():
        assert steps == sorted(set(steps)), f"I6: a record of {who} stands twice, or out of order"
    for who, count in promise.steps.items():
        there = found.get(who, [])
        assert there[:count] == list(range(count)), f"P5: {who} had flushed {count}, {len(there)} are there"
        marks = found.get(f"events of {who}", [])
        due = -(-count // EVENT_EVERY)
        assert marks[:due] == list(range(due)), f"P5: {who} had flushed {due} events, {len(marks)} are there"


def _check_recovered(run_dir: Path, found: dict[str, list[int]], promise: Promise, told: list[str]) -> None:
    refusal = _recover(run_dir)
    if refusal is not None:
        assert not promise.steps, f"P5: can't be recovered: {refusal}"
        assert str(run_dir) in refusal, "I10: the damaged file is named"
        return
    if promise.finished:
        assert shmlog.load(run_dir).status == "success", "P5: it had finished"
    again, warned = _read(run_dir)
    assert again == found, "I6: recovery has changed what is read"
    assert not (warned and promise.steps), f"P5: a run that was recovered is damaged: {warned}"
    assert all(str(run_dir) in text for text in warned), "I10: the damaged file is named"
    before = _contents(run_dir)
    assert not recover(run_dir, force=True).changed, "I6: a second recovery has something to do"
    assert _contents(run_dir) == before, "I6: a second recovery changes something"


def _recover(run_dir: Path) -> str | None:
    """Recover; return why it was refused."""
    try:
        recover(run_dir, force=True)
    except shmlog.errors.UnreadableError as error:
        return str(error)
    return None


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_workload_ends_as_it_should(recording: Recording) -> None:
    """The states are those of a run in which nothing was lost."""
    run_dir = next(recording.base.glob("runs/power/*/"))
    found, _ = _read(run_dir)
    assert found["a"] == list(range(PHASES * STEPS))
    assert all(found[f"b{phase}"] == list(range(STEPS)) for phase in range(PHASES))
    assert verify(run_dir).ok
    if "parquet" in shmlog.load(run_dir).metadata["sinks"]:
        made = [Path(op.target).name for op in recording.ops if op.kind == "rename"]
        assert "part-000000-000001.parquet" in made, "parts are merged while the run lives"
