"""Checkpoints of whole processes: in the background, at signals and exceptions, in a run."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shmlog
from shmlog import AutoCheckpoint, CheckpointManager
from tests.support.processes import run_script, start_script, wait_for_end, wait_until

SIZE = 200_000


def steps(folder: Path, name: str = "checkpoint") -> list[int | None]:
    return [info.step for info in CheckpointManager(folder, name).list()]


# ---- in the background ----


def test_training_may_change_the_state_at_once(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    w = np.zeros(SIZE)
    pending = manager.save_async({"w": w}, 1, metrics={"loss": 1})
    w[:] = 7
    assert pending is not None
    info = pending.result()
    assert pending.done
    assert info == manager.latest()
    assert not manager.load().state["w"].any()


def test_one_save_at_most_is_in_flight(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "c")
    first = manager.save_async({"n": 1}, 1)
    assert first is not None
    writer = first._writer._process.pid
    os.kill(writer, signal.SIGSTOP)  # while it starts
    assert not first.done
    assert manager.save_async({"n": 2}, 2, if_busy="skip") is None
    assert not manager.wait(0.05)
    with pytest.raises(TimeoutError):
        first.result(0.05)
    assert steps(tmp_path / "c") == []
    threading.Timer(0.2, os.kill, (writer, signal.SIGCONT)).start()
    manager.save({"n": 3}, 3)
    assert first.done
    assert steps(tmp_path / "c") == [1, 3]
    assert manager.save_async({"n": 4}, 4, if_busy="skip") is not None
    assert manager.wait()


def test_saves_in_the_background_are_numbered_and_pruned(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=2)
    for step in range(5):
        manager.save_async({"step": step}, step)
    manager.wait()
    assert steps(tmp_path) == [3, 4]
    assert [info.number for info in manager.list()] == [4, 5]


def test_a_failed_save_in_the_background_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    manager = CheckpointManager(tmp_path / "file" / "x")
    pending = manager.save_async({}, 1)
    assert pending is not None
    with pytest.raises(shmlog.errors.StorageError, match=r"cannot write .*file/x"):
        pending.result()
    assert manager.wait()
    manager.save_async({}, 2)
    with pytest.warns(shmlog.ShmlogWarning, match=r"cannot write .*file/x"):
        manager.wait()


def test_a_killed_writer_is_told(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save({}, 1)
    pending = manager.save_async({"w": np.zeros(SIZE)}, 2)
    assert pending is not None
    os.kill(pending._writer._process.pid, signal.SIGKILL)
    with pytest.raises(shmlog.errors.StorageError, match="has died"):
        pending.result()
    assert steps(tmp_path) == [1]


def ignores_sigterm(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True  # it has ended
    found = re.search(r"SigIgn:\s*([0-9a-f]+)", status)
    return found is None or bool(int(found[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_writer_finishes_though_the_scheduler_signals_all_processes(tmp_path: Path) -> None:
    pending = CheckpointManager(tmp_path).save_async({"w": np.zeros(SIZE)}, 1)
    assert pending is not None
    process = pending._writer._process
    wait_until(lambda: ignores_sigterm(process.pid), "the writer to ignore SIGTERM")
    process.terminate()
    assert pending.result().step == 1


def test_no_memory_for_the_copy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "memfd_create", refuse)
    before = len(os.listdir("/proc/self/fd"))
    manager = CheckpointManager(tmp_path)
    with pytest.raises(shmlog.errors.StorageError, match=r"in the background \(Cannot allocate memory\); use save"):
        manager.save_async({}, 1)
    assert len(os.listdir("/proc/self/fd")) == before
    assert manager.save({}, 1).step == 1


def test_saves_in_the_background_leave_no_descriptor_open(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for step in range(3):
        manager.save_async({}, step)
    manager.wait()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_run_that_has_ended_before_the_save_is_no_error(tmp_path: Path) -> None:
    with shmlog.init("ended", root=tmp_path) as run:
        manager = CheckpointManager.for_run(run)
        manager.save_async({}, 1)
    assert manager.wait()
    assert steps(run.dir / "checkpoints") == [1]


ASYNC = """
import os, signal, sys
import numpy as np
import shmlog
manager = shmlog.CheckpointManager(sys.argv[1])
manager.save_async({"w": np.ones(500_000)}, 1)
"""


def test_the_save_goes_on_when_the_trainer_is_killed(tmp_path: Path) -> None:
    done = run_script(ASYNC + "os.kill(os.getpid(), signal.SIGKILL)", tmp_path / "c", cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: steps(tmp_path / "c") == [1], "the save to end")


def test_the_trainer_waits_for_the_save_when_it_exits(tmp_path: Path) -> None:
    done = run_script("import warnings; warnings.simplefilter('error')" + ASYNC, tmp_path / "c", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert steps(tmp_path / "c") == [1]


def test_a_forked_child_leaves_the_save_to_its_parent(tmp_path: Path) -> None:
    script = """
pid = os.fork()
if pid == 0:
    assert manager.wait()
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
manager.wait()
print(manager.latest().step)
"""
    done = run_script(ASYNC + script, tmp_path / "c", cwd=tmp_path)
    assert done.stdout == "1\n", done.stderr


# ---- AutoCheckpoint ----


def test_an_exception_is_saved_and_goes_on(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    cause = ValueError("loss is NaN")
    with pytest.raises(ValueError, match="loss is NaN") as caught, AutoCheckpoint(manager, lambda: {"n": 3}, lambda: 5):
        raise cause
    assert caught.value is cause
    assert not hasattr(cause, "__notes__")
    found = manager.load()
    assert (found.state, found.info.step) == ({"n": 3}, 5)
    assert found.info.metadata == {"error": "loss is NaN", "error_type": "ValueError", "interrupted": True}


@pytest.mark.parametrize(("state", "step", "which"), [({"n": 3}, None, "get_state"), (dict, 3, "get_step")])
def test_what_is_no_function_is_refused_at_once(tmp_path: Path, state: Any, step: Any, which: str) -> None:
    with pytest.raises(TypeError, match=f"{which} must be a function"):
        AutoCheckpoint(CheckpointManager(tmp_path), state, step)


def test_a_block_that_ends_well_saves_nothing(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with AutoCheckpoint(CheckpointManager(tmp_path), dict):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before
    assert steps(tmp_path) == []


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_every_way_out_is_saved(tmp_path: Path, fault: type[BaseException]) -> None:
    with pytest.raises(fault), AutoCheckpoint(CheckpointManager(tmp_path), dict):
        raise fault
    assert steps(tmp_path) == [None]


def test_no_other_checkpoint_is_removed_for_it(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=1)
    manager.save({}, 1)
    with pytest.raises(KeyboardInterrupt), AutoCheckpoint(manager, dict):
        raise KeyboardInterrupt
    assert steps(tmp_path) == [1, None]
    assert manager.save({}, 2).path.exists()
    assert steps(tmp_path) == [2]


def test_a_step_that_nobody_names_is_not_invented(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save({"n": 30}, 30)
    with pytest.raises(KeyboardInterrupt), AutoCheckpoint(manager, lambda: {"n": 37}):
        raise KeyboardInterrupt
    found = manager.resume_from_checkpoint()
    assert found is not None
    assert (found.state, found.info.step, found["iteration"]) == ({"n": 37}, None, None)
    assert manager.load(found.info.path).state == {"n": 37}
    assert manager.save({}).step == 31


SAVE_MANY = """
import sys
from pathlib import Path
import shmlog
manager = shmlog.CheckpointManager(sys.argv[1], keep_last=2)
first = 1000 * int(sys.argv[2])
for step in range(first, first + 40):
    info = manager.save({"step": step}, step)
own = [step for step in (info.step for info in manager.list()) if step // 1000 == int(sys.argv[2])]
assert own == [first + 38, first + 39], own
print("kept", flush=True)
sys.stdin.read()
"""


def test_processes_that_save_under_one_name_keep_their_own(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVE_MANY, str(tmp_path)]
    savers = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    for saver in savers:
        assert saver.stdout is not None
        assert saver.stdout.readline() == "kept\n"
    for saver in savers:
        saver.communicate()
        assert saver.returncode == 0
    assert {step // 1000 for step in steps(tmp_path)} == {0, 1, 2, 3}
    manager = CheckpointManager(tmp_path, keep_last=2)
    manager.save({}, 9000)
    assert len(steps(tmp_path)) == 2, "a later process removes what dead ones have left"


def test_a_failed_save_does_not_hide_the_cause(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    with (
        pytest.warns(shmlog.ShmlogWarning, match="nothing saved: TypeError"),
        pytest.raises(ValueError, match="the cause") as caught,
        AutoCheckpoint(manager, lambda: {"f": print}),
    ):
        raise ValueError("the cause")
    assert "no checkpoint could be saved" in caught.value.__notes__[0]
    assert "state['f']" in caught.value.__notes__[0]


TRAIN = """
import os, signal, sys, time
import shmlog
from shmlog import AutoCheckpoint, CheckpointManager
manager = CheckpointManager(sys.argv[1])
state = {"n": 0}
def wait():
    state["n"] += 1
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
"""


def interrupt(script: str, number: int, tmp_path: Path) -> tuple[int, str, str]:
    process = start_script(TRAIN + script, tmp_path / "c", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_then_ends_the_process(tmp_path: Path, number: signal.Signals) -> None:
    code, _, err = interrupt("with AutoCheckpoint(manager, lambda: state): wait()", number, tmp_path)
    assert code == -number, err
    found = CheckpointManager(tmp_path / "c").load()
    assert found.state["n"] > 0
    assert found.info.metadata["signal"] == number.name
    assert found.info.metadata["interrupted"] is True


def test_ctrl_c_saves_and_ends_as_ever(tmp_path: Path) -> None:
    code, _, err = interrupt("with AutoCheckpoint(manager, lambda: state): wait()", signal.SIGINT, tmp_path)
    assert code == -signal.SIGINT
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert steps(tmp_path / "c") == [None]


def test_the_users_handler_is_called_after_the_save(tmp_path: Path) -> None:
    script = """
def handler(number, frame):
    print([info.step for info in manager.list()], flush=True)
    sys.exit(3)
signal.signal(signal.SIGUSR1, handler)
with AutoCheckpoint(manager, lambda: state): wait()
"""
    code, out, _ = interrupt(script, signal.SIGUSR1, tmp_path)
    assert (code, out) == (3, "[None]\n")
    assert steps(tmp_path / "c") == [None], "the SystemExit of the handler is no second reason to save"


def divide_after(first: Callable[[], object]) -> float:
    first()
    return 1 / 0


def test_a_signal_that_is_ignored_saves_and_training_goes_on(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    calls: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: calls.append(number))
    try:
        with AutoCheckpoint(manager, dict):
            signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR1)
        assert steps(tmp_path) == [None, None]
        assert calls == [signal.SIGUSR1] * 2
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        with pytest.raises(ZeroDivisionError), AutoCheckpoint(manager, dict):
            divide_after(lambda: signal.raise_signal(signal.SIGUSR1))
        assert steps(tmp_path) == [None] * 4
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_waits_while_the_state_is_changed(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    state = {"a": 0, "b": 0}
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with AutoCheckpoint(manager, lambda: state) as auto:
            with auto.hold(), auto.hold():
                state["a"] = 1
                signal.raise_signal(signal.SIGUSR1)
                assert steps(tmp_path) == []
                state["b"] = 1
            assert steps(tmp_path) == [None]
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert manager.load().state == {"a": 1, "b": 1}


def test_a_signal_that_waited_when_an_exception_came_is_not_lost(tmp_path: Path) -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: calls.append(number))
    try:
        with pytest.raises(ZeroDivisionError), AutoCheckpoint(CheckpointManager(tmp_path), dict) as auto, auto.hold():
            divide_after(lambda: signal.raise_signal(signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert calls == [signal.SIGUSR1]
    assert steps(tmp_path) == [None]


def test_a_signal_in_the_middle_of_a_save_is_saved(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(signal.SIGUSR1)
        return real(*args)

    real = os.fsync
    try:
        with AutoCheckpoint(manager, lambda: "emergency"), pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda fd: (patch.undo(), interrupted(fd))[1])
            manager.save("regular", 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert {manager.load(info).state for info in manager.list()} == {"regular", "emergency"}


def test_the_users_own_handler_set_inside_stays(tmp_path: Path) -> None:
    def mine(number: int, frame: object) -> None: ...

    before = signal.getsignal(signal.SIGUSR1)
    try:
        with AutoCheckpoint(CheckpointManager(tmp_path), dict):
            signal.signal(signal.SIGUSR1, mine)
        assert signal.getsignal(signal.SIGUSR1) is mine
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, before)


def run_thread(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


def test_in_another_thread_signals_are_not_touched(tmp_path: Path) -> None:
    handlers: list[object] = []

    def work() -> None:
        with AutoCheckpoint(CheckpointManager(tmp_path), dict):
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    with pytest.warns(shmlog.ShmlogWarning, match="main thread"):
        run_thread(thread)
    assert handlers == [signal.getsignal(signal.SIGTERM)]


# ---- in a run ----


def test_saves_are_events_of_the_run(tmp_path: Path) -> None:
    with shmlog.init("saved", root=tmp_path) as run:
        manager = CheckpointManager.for_run(run, keep_last=1)
        first = manager.save({"w": np.ones(3)}, 10, metrics={"loss": 0.5})
        pending = manager.save_async({"w": np.ones(4)}, 20)
        assert pending is not None
        second = pending.result()
        sums = hashlib.sha256(second.path.read_bytes()).hexdigest()
        elsewhere = CheckpointManager(tmp_path / "other", run=run).save({}, 1)
    wait_for_end(run.dir)
    assert first.path == run.dir / "checkpoints" / "checkpoint-00000010.safetensors"
    events = [event["data"] for event in shmlog.load(run.dir).events("checkpoint")]
    assert [(event["path"], event["step"]) for event in events] == [
        ("checkpoints/checkpoint-00000010.safetensors", 10),
        ("checkpoints/checkpoint-00000020.safetensors", 20),
        (str(elsewhere.path), 1),
    ]
    assert events[0]["metrics"] == {"loss": 0.5}
    assert events[1]["sha256"] == sums
    assert events[1]["bytes"] == second.bytes


def test_a_disabled_run_has_no_checkpoints(tmp_path: Path) -> None:
    with shmlog.init("off", mode="disabled") as run, pytest.raises(shmlog.errors.RunStateError, match="disabled"):
        CheckpointManager.for_run(run)
    assert os.listdir(tmp_path) == []
