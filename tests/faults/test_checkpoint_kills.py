"""A save is killed, or fails, at each system call: the older checkpoints stay as they are."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from shmlog import CheckpointManager
from shmlog.checkpoint.container import verify
from tests.support.processes import run_script, start_script
from tests.support.tools import need

CHANGING = ("openat", "mkdir", "write", "fsync", "rename", "unlink", "close")
_FEWER = {"first": ("mkdir", "rename"), "next": CHANGING[:-1], "replaced": ("write", "fsync", "rename")}

# The name of the temporary file is made known, so that strace can tell its calls from all others.
SAVE = """
import os, sys
from shmlog import CheckpointManager
from shmlog.base import durable
folder, step = sys.argv[1], int(sys.argv[2])
durable.os.getpid = lambda: 1
durable._random = lambda: "0" * 8
state = {"a": b"x" * 100, "b": bytes(1000), "step": step, "by": sys.argv[3]}
CheckpointManager(folder, keep_last=2).save(state, step)
"""


class Case(NamedTuple):
    """What is there before the save, and the step that is saved."""

    before: list[int]
    step: int


CASES = {
    "first": Case([], 1),
    "next": Case([1, 2], 3),  # 1 is pruned
    "replaced": Case([1, 2], 2),
}


def prepare(folder: Path, case: Case) -> None:
    for step in case.before:
        CheckpointManager(folder).save({"step": step, "by": "earlier"}, step)


def traced(script: Path, folder: Path, case: Case, *options: str) -> subprocess.CompletedProcess[str]:
    """Save under strace, which sees only the calls that concern the files of the save."""
    final = f"checkpoint-{case.step:08d}.safetensors"
    names = [final, f"{final}.{os.uname().nodename}.1.{'0' * 8}.tmp", "checkpoint-00000001.safetensors"]
    paths = [f"--trace-path={path}" for path in (folder, *(folder / name for name in names))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        ["strace", "-f", "-qq", *paths, *options, sys.executable, str(script), str(folder), str(case.step), "killed"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def calls_of_a_save(script: Path, folder: Path, case: Case) -> Counter[str]:
    prepare(folder, case)
    done = traced(script, folder, case)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder)
    found = Counter(re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", done.stderr, re.MULTILINE))
    return Counter({name: count for name, count in found.items() if name in CHANGING})


def assert_intact(folder: Path, case: Case) -> tuple[str, ...]:
    """Check every checkpoint, and that training can go on; return what is there."""
    manager = CheckpointManager(folder, keep_last=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing may be damaged
        infos = manager.list()
        for info in infos:
            verify(info.path)
            assert manager.load(info).state["step"] == info.step
        found = manager.resume_from_checkpoint()
    assert {info.step for info in infos} >= set(case.before[-1:])
    assert found is None or found.info.step == max(info.step for info in infos)
    assert (found is None) <= (not case.before)
    present = tuple(sorted(os.listdir(folder))) if folder.exists() else ()
    manager.save({"step": 9}, 9)
    assert manager.load().state == {"step": 9}
    return present


@pytest.mark.parametrize("name", CASES)
def test_a_save_killed_at_any_call_leaves_the_older_ones(name: str, tmp_path: Path, full: bool) -> None:
    need("strace")
    case, script, folder = CASES[name], tmp_path / "save.py", tmp_path / "c"
    script.write_text(SAVE)
    calls = calls_of_a_save(script, folder, case)
    assert calls["write"] >= 5
    assert calls["fsync"] >= 2
    assert calls["rename"] == 1
    states: set[Any] = set()
    for call in CHANGING if full else _FEWER[name]:
        for when in range(1, calls[call] + 1):
            prepare(folder, case)
            done = traced(script, folder, case, f"--inject={call}:signal=KILL:when={when}")
            assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), (call, when, done.stderr)
            states.add(assert_intact(folder, case))
            shutil.rmtree(folder)
    final = f"checkpoint-{case.step:08d}.safetensors"
    assert any(left.endswith(".tmp") for state in states for left in state), "no kill came in the middle"
    if full or "fsync" in _FEWER[name]:
        assert any(final in state for state in states), "no kill came after the rename"


def test_a_save_that_fails_at_any_call_says_so_and_leaves_the_older_ones(tmp_path: Path) -> None:
    need("strace")
    case, script, folder = CASES["replaced"], tmp_path / "save.py", tmp_path / "c"
    script.write_text(SAVE)
    calls = calls_of_a_save(script, folder, case)
    for call, error in (("write", "ENOSPC"), ("fsync", "EIO"), ("rename", "EDQUOT")):
        for when in range(1, calls[call] + 1):
            prepare(folder, case)
            done = traced(script, folder, case, f"--inject={call}:error={error}:when={when}")
            assert done.returncode == 1, (call, when)
            assert f"shmlog.errors.StorageError: cannot write {folder}" in done.stderr
            present = assert_intact(folder, case)
            assert not [left for left in present if left.endswith(".tmp")], (call, when)
            shutil.rmtree(folder)


BACKGROUND = """
import os, sys
import numpy as np
from shmlog import CheckpointManager
manager = CheckpointManager(sys.argv[1], keep_last=2)
for step in range(1, 1000):
    manager.save_async({"step": step, "w": np.full(int(sys.argv[2]), step)}, step)
    print(step, flush=True)
"""


def test_saves_in_the_background_survive_the_death_of_all(tmp_path: Path, seed: int, full: bool) -> None:
    """Trainer and writing process are killed together, at random times."""
    chance = random.Random(seed)
    folder = tmp_path / "c"
    for _ in range(60 if full else 4):
        process = start_script(BACKGROUND, folder, str(2_000_000 if full else 200_000), cwd=tmp_path)
        assert process.stdout is not None
        for _ in range(chance.randint(1, 4)):
            process.stdout.readline()
        time.sleep(chance.random() * 0.1)
        process.kill()
        kill_writers(folder)
        process.communicate()
        manager = CheckpointManager(folder, keep_last=2)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for info in manager.list():
                verify(info.path)
                loaded = manager.load(info).state
                assert loaded["step"] == info.step
                assert (loaded["w"] == info.step).all()
        manager.delete(*manager.list()[:-2])


def kill_writers(folder: Path) -> None:
    """Kill the processes that write into ``folder``, and wait until they are gone."""
    wanted = [b"shmlog.checkpoint.writer", os.fsencode(folder)]
    while pids := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _runs(pid, wanted)]:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)


def _runs(pid: int, wanted: list[bytes]) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return all(part in command for part in wanted)


def test_a_full_disk_leaves_the_older_ones(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    script = f"""
import subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", {str(small)!r}], check=True)
import os
import shmlog
manager = shmlog.CheckpointManager({str(small / "c")!r})
manager.save({{"w": bytes(100_000)}}, 1)
for save in (manager.save, manager.save_async):
    try:
        pending = save({{"w": bytes(2_000_000)}}, 2)
        pending.result()
    except shmlog.errors.StorageError as error:
        print(error)
print(manager.load().info.step, os.listdir({str(small / "c")!r}))
"""
    need("unshare")
    path = tmp_path / "inner.py"
    path.write_text(script)
    outer = f'import subprocess, sys; sys.exit(subprocess.call(["unshare", "-rm", sys.executable, {str(path)!r}]))'
    done = run_script(outer, cwd=tmp_path)
    assert done.stdout.count("No space left on device; the older ones are untouched") == 2, done.stderr
    assert done.stdout.endswith("1 ['checkpoint-00000001.safetensors']\n")
