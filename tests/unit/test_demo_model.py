"""The demo's corpus, model and books."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from shmlog.demo import corpus, workers
from shmlog.demo.books import Account, files
from shmlog.demo.corpus import Vocabulary, stdlib_files, windows
from shmlog.demo.crew import Crew
from shmlog.demo.main import DemoOptions
from shmlog.demo.model import Adam, LanguageModel
from shmlog.errors import ShmlogError

SAMPLE = b"def f(self):\n    return self.x\n\n\ndef g(self):\n    return self.f()\n"


def test_the_standard_library_has_files_to_read() -> None:
    found = stdlib_files()
    assert len(found) > 100
    assert found == sorted(found)
    assert all(0 < path.stat().st_size <= corpus.MAX_FILE_BYTES for path in found)


def test_tests_empty_and_huge_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    for name, size in (("test/a.py", 9), ("b.py", 9), ("empty.py", 0), ("c.txt", 9), ("huge.py", 10**6)):
        (tmp_path / name).write_bytes(b"x" * size)
    assert stdlib_files(tmp_path) == [tmp_path / "b.py"]


def test_a_library_without_sources_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ShmlogError, match="no Python source files"):
        stdlib_files(tmp_path)


@pytest.mark.parametrize("text", [SAMPLE, b"", bytes(range(256)), "naïve π".encode(), b"\n\n   \t"])
def test_every_text_decodes_to_itself(text: bytes) -> None:
    vocabulary = Vocabulary.of([SAMPLE])
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_frequent_pieces_are_one_token_and_the_size_is_kept() -> None:
    vocabulary = Vocabulary.of([SAMPLE], size=258)
    assert len(vocabulary) == 258
    assert b"return" in vocabulary.pieces
    assert len(vocabulary.encode(b"return")) == 1


def test_windows_are_pieces_of_the_text() -> None:
    tokens = Vocabulary.of([SAMPLE]).encode(SAMPLE)
    found = np.frombuffer(windows(tokens, 5, 20, random.Random(0)), np.uint16).reshape(-1, 5)
    pieces = {tuple(tokens[i : i + 5]) for i in range(len(tokens) - 4)}
    assert len(found) == 20
    assert {tuple(row) for row in found.tolist()} <= pieces
    assert windows(tokens[:4], 5, 20, random.Random(0)) == b""
    assert windows(tokens[:5], 5, 1, random.Random(0)) == tokens[:5].tobytes()


def test_gradients_agree_with_finite_differences() -> None:
    model = LanguageModel(vocabulary=7, context=3, width=4, hidden=5, dtype=np.float64)
    rng = np.random.default_rng(1)
    model.w2 *= 30  # away from the uniform first guess, where some gradients vanish
    batch = rng.integers(0, 7, (11, 4))
    _, gradients = model.gradients(batch)
    for parameter, gradient in zip(model.parameters, gradients, strict=True):
        for index in rng.choice(parameter.size, min(6, parameter.size), replace=False):
            numeric = _slope(model, batch, parameter, int(index))
            assert gradient.flat[index] == pytest.approx(numeric, rel=1e-5, abs=1e-9)


def _slope(model: LanguageModel, batch: np.ndarray, parameter: np.ndarray, index: int) -> float:
    kept, tiny, losses = parameter.flat[index], 1e-6, []
    for change in (tiny, -tiny):
        parameter.flat[index] = kept + change
        losses.append(model.gradients(batch)[0])
    parameter.flat[index] = kept
    return (losses[0] - losses[1]) / (2 * tiny)


def test_the_first_loss_is_that_of_a_guess_and_training_halves_it() -> None:
    vocabulary = Vocabulary.of([SAMPLE], size=270)
    tokens, rng = vocabulary.encode(SAMPLE), random.Random(0)
    model = LanguageModel(len(vocabulary), context=4, width=8, hidden=16)
    adam, losses = Adam(model.parameters, 1e-2), []
    for _ in range(60):
        batch = np.frombuffer(windows(tokens, 5, 64, rng), np.uint16).reshape(-1, 5)
        loss, gradients = model.gradients(batch)
        assert all(gradient.dtype == np.float32 for gradient in gradients)
        adam.step(gradients)
        losses.append(loss)
    assert losses[0] == pytest.approx(math.log(len(vocabulary)), rel=0.02)
    assert losses[-1] < losses[0] / 2


def test_the_same_seed_gives_the_same_model() -> None:
    one, same, other = (LanguageModel(9, 2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.w1, same.w1)
    assert not np.array_equal(one.w1, other.w1)
    assert one.size == sum(parameter.size for parameter in one.parameters)


@pytest.mark.parametrize(
    ("logged", "on_disk", "dropped", "killed", "balanced"),
    [
        (10, 10, 0, False, True),
        (10, 9, 0, False, False),
        (10, 9, 1, False, True),
        (10, 9, 0, True, True),
        (10, 10, 0, True, True),
        (10, 8, 0, True, False),
        (10, 11, 0, True, False),
        (10, 11, 0, False, False),
    ],
)
def test_books_balance_to_the_call_that_a_kill_cut_off(
    logged: int, on_disk: int, dropped: int, killed: bool, balanced: bool
) -> None:
    assert Account("worker 0", 1, logged, on_disk, dropped, killed).balanced is balanced


def test_files_lists_parts_and_events(tmp_path: Path) -> None:
    part = tmp_path / "metrics" / "node=0" / "part-000000.parquet"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"abc")
    (tmp_path / "events.jsonl").write_bytes(b"{}\n")
    assert files(tmp_path) == [("metrics/node=0/part-000000.parquet", 3), ("events.jsonl", 3)]


def test_killing_the_only_worker_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 workers"):
        DemoOptions(workers=1, kill_a_worker=True)


@pytest.fixture
def crew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Crew]:
    """Two forked workers whose records go nowhere."""
    (tmp_path / "a.py").write_bytes(SAMPLE * 40)
    nowhere = SimpleNamespace(metric=lambda name: lambda value, step: None)
    monkeypatch.setattr(workers.shmlog, "attach", lambda worker: nowhere)
    vocabulary = Vocabulary.of([SAMPLE])
    tasks = [workers.Task(index, [tmp_path / "a.py"], vocabulary, seed=0) for index in range(2)]
    crew = Crew(tasks, "fork")
    yield crew
    crew.stop()


def test_workers_deliver_and_end_when_told(crew: Crew) -> None:
    batches = crew.batches()
    lengths = {len(next(batches)) for _ in range(10)}
    assert lengths == {2 * workers.WINDOWS_PER_FILE * (workers.CONTEXT + 1)}
    crew.stop()
    assert [worker.process.exitcode for worker in crew.workers] == [0, 0]
    assert crew.failures() == []
    assert all(crew.shared.logged(index) % 5 == 0 for index in range(2))


def test_a_killed_worker_leaves_the_other_working(crew: Crew) -> None:
    batches = crew.batches()
    next(batches)
    killed = crew.kill(0)
    before = crew.shared.logged(1)
    for _ in range(100):
        next(batches)
    assert crew.shared.logged(1) > before
    crew.stop()
    assert killed.process.exitcode == -9
    assert crew.failures() == []


def test_a_worker_that_fails_is_named(crew: Crew) -> None:
    crew.workers[0].process.terminate()
    crew.stop()
    assert crew.failures() == [f"worker 0 (pid {crew.workers[0].pid}) ended with exit code -15"]


METHODS = ("fork", "spawn", "forkserver")


def start_demo(root: Path, *options: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "shmlog", "demo", "--json", "--root", str(root), *options]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_workers(demo: subprocess.Popen[str]) -> Path:
    """Wait until the demo has started its workers, and return its run folder."""
    assert demo.stderr is not None
    run_dir = Path(demo.stderr.readline().removeprefix("run ").strip())
    assert "workers" in demo.stderr.readline()
    return run_dir


def wait_until_gone(group: int) -> None:
    """Wait until no process of a group is left; the test's time limit ends it otherwise."""
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


@pytest.mark.parametrize("method", METHODS)
def test_the_books_balance_though_a_worker_is_killed(tmp_path: Path, method: str) -> None:
    demo = start_demo(tmp_path, "--steps", "12", "--start-method", method, "--kill-a-worker")
    printed, talk = demo.communicate()
    assert demo.returncode == 0, talk
    result = json.loads(printed)
    assert result["ok"] is True
    assert result["status"] == "success"
    assert [account["killed"] for account in result["accounts"]] == [False, True, False]
    assert all(account["balanced"] and account["on_disk"] for account in result["accounts"])
    assert result["accounts"][0]["on_disk"] == 3 * 12
    assert result["last_loss"] < result["first_loss"]


@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_ends_workers_and_run(tmp_path: Path, method: str) -> None:
    demo = start_demo(tmp_path, "--steps", "100000", "--start-method", method)
    run_dir = wait_for_workers(demo)
    os.killpg(demo.pid, signal.SIGINT)
    _, talk = demo.communicate()
    assert demo.returncode == 130
    assert "Traceback" not in talk
    wait_until_gone(demo.pid)
    assert json.loads((run_dir / "run.yaml").read_text())["status"] == "cancelled"


@pytest.mark.parametrize("method", METHODS)
def test_workers_end_when_the_trainer_is_killed(tmp_path: Path, method: str) -> None:
    demo = start_demo(tmp_path, "--steps", "100000", "--start-method", method)
    wait_for_workers(demo)
    demo.kill()
    demo.communicate()
    wait_until_gone(demo.pid)
