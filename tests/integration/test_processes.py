"""Every kind of process logs into the same run, and all of it arrives."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

import shmlog
from tests.support.books import assert_books_balance, assert_in_order
from tests.support.processes import run_script, wait_for_end

N = 3_000
METHODS = ["fork", "spawn", "forkserver"]


def log_through(handle: shmlog.Run | shmlog.Metric | None, name: str, count: int) -> None:
    """Log 0 … count - 1 through what a child was given."""
    if isinstance(handle, shmlog.Metric):
        metric = handle
    elif handle is not None:
        metric = handle.metric(name)
    else:
        metric = shmlog.metric(name)
    for i in range(count):
        metric(float(i), i)


def log_in_pool(name: str) -> int:
    log_through(None, name, N)
    return os.getpid()


@pytest.mark.parametrize("given", ["run", "metric", "nothing"])
@pytest.mark.parametrize("method", METHODS)
def test_a_child_process_logs_into_its_parents_run(tmp_path: Path, method: str, given: str) -> None:
    with shmlog.init("children", root=tmp_path) as run:
        context = multiprocessing.get_context(method)
        handle = {"run": run, "metric": run.metric("child"), "nothing": None}[given]
        child = context.Process(target=log_through, args=(handle, "child", N))
        child.start()
        log_through(run, "parent", N)
        child.join()
        assert child.exitcode == 0
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=2 * N)
    assert_in_order(stored, ["child", "parent"])
    assert stored.dropped == {}
    pids = {row["pid"] for row in stored.metrics("child").select(["pid"]).to_pylist()}
    assert pids == {child.pid}


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_logs_into_the_run(tmp_path: Path, method: str) -> None:
    with shmlog.init("pool", root=tmp_path) as run, multiprocessing.get_context(method).Pool(2) as pool:
        pool.map(log_in_pool, [f"task{i}" for i in range(4)])
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=4 * N)
    assert_in_order(stored, [f"task{i}" for i in range(4)])


@pytest.mark.parametrize("method", METHODS)
def test_a_process_pool_executor_logs_into_the_run(tmp_path: Path, method: str) -> None:
    context = multiprocessing.get_context(method)
    with shmlog.init("executor", root=tmp_path) as run, ProcessPoolExecutor(2, mp_context=context) as executor:
        list(executor.map(log_in_pool, [f"task{i}" for i in range(4)]))
    wait_for_end(run.dir)
    assert_in_order(assert_books_balance(run.dir, offered=4 * N), [f"task{i}" for i in range(4)])


def test_a_subprocess_attaches_by_the_environment(tmp_path: Path) -> None:
    with shmlog.init("subprocess", root=tmp_path) as run:
        script = "import shmlog\nfor i in range(3000): shmlog.log('sub', float(i), step=i)\n"
        done = run_script(script, cwd=tmp_path, env={"SHMLOG_RUN": os.environ["SHMLOG_RUN"]})
        assert done.returncode == 0, done.stderr
    wait_for_end(run.dir)
    assert_in_order(assert_books_balance(run.dir, offered=N), ["sub"])


def test_attach_finds_a_run_by_its_folder(tmp_path: Path) -> None:
    with shmlog.init("folder", root=tmp_path) as run:
        script = "import sys, shmlog\nrun = shmlog.attach(sys.argv[1], worker=7)\nrun.log('sub', 1.5, step=3)\n"
        done = run_script(script, run.dir, cwd=tmp_path, env={"SHMLOG_RUN": ""})
        assert done.returncode == 0, done.stderr
    wait_for_end(run.dir)
    row = shmlog.load(run.dir).metrics("sub").to_pylist()[0]
    assert (row["value"], row["step"], row["worker"]) == (1.5, 3, 7)


def test_children_of_children_log_too(tmp_path: Path) -> None:
    with shmlog.init("nested", root=tmp_path) as run:
        pid = os.fork()
        if pid == 0:
            grandchild = os.fork()
            if grandchild == 0:
                log_through(run, "grandchild", N)
                os._exit(0)
            os.waitpid(grandchild, 0)
            log_through(run, "child", N)
            os._exit(0)
        os.waitpid(pid, 0)
    wait_for_end(run.dir)
    assert_in_order(assert_books_balance(run.dir, offered=2 * N), ["child", "grandchild"])


SPAWN_AT_MODULE_LEVEL = """
import multiprocessing, sys
import shmlog
run = shmlog.init("main", root=sys.argv[1])
def work(name):
    metric = run.metric(name)
    for i in range(3000):
        metric(float(i), i)
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    children = [context.Process(target=work, args=(f"child{i}",)) for i in range(2)]
    [child.start() for child in children]
    [child.join() for child in children]
    sys.exit(any(child.exitcode for child in children))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_init_at_module_level_attaches_in_a_child_that_imports_main(tmp_path: Path, method: str) -> None:
    root = tmp_path / "runs"
    done = run_script(SPAWN_AT_MODULE_LEVEL, root, method, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = list(root.glob("main/*/"))
    assert len(runs) == 1, "FAULTS 31: a child made a second run"
    wait_for_end(runs[0])
    assert_in_order(assert_books_balance(runs[0], offered=2 * N), ["child0", "child1"])


RANK = """
import os, sys, time
import shmlog
with shmlog.init("ranks", root=sys.argv[1]) as run:
    for i in range(3000):
        run.log(f"rank{os.environ['RANK']}", float(i), step=i)
    time.sleep(0.5)
print(run.dir)
"""
LAUNCHER = """
import os, subprocess, sys
ranks = [
    subprocess.Popen([sys.executable, sys.argv[1], sys.argv[2]],
                     env={**os.environ, "RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": "3",
                          "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"})
    for r in range(3)
]
sys.exit(max(rank.wait() for rank in ranks))
"""


def test_ranks_of_one_launcher_share_a_run(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    for launch in (1, 2):
        rank = tmp_path / "rank.py"
        rank.write_text(RANK)
        done = run_script(LAUNCHER, rank, root, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        runs = list(root.glob("ranks/*/"))
        assert len(runs) == launch, "a second launch must make a second run"
    for run_dir in runs:
        wait_for_end(run_dir)
        stored = assert_books_balance(run_dir, offered=3 * N)
        assert_in_order(stored, ["rank0", "rank1", "rank2"])
        assert sorted(producer["rank"] for producer in stored.producers) == [0, 1, 2]


def test_several_runs_may_be_open_in_one_process(tmp_path: Path) -> None:
    first = shmlog.init("one", root=tmp_path)
    second = shmlog.init("two", root=tmp_path)
    assert shmlog.current() is second
    first.log("x", 1.0)
    shmlog.log("x", 2.0)
    assert second.finish()
    assert shmlog.current() is first
    assert first.finish()
    for run, value in ((first, 1.0), (second, 2.0)):
        wait_for_end(run.dir)
        assert shmlog.load(run.dir).metrics("x")["value"].to_pylist() == [value]


def test_a_run_pickles_by_reference_within_its_process(tmp_path: Path) -> None:
    with shmlog.init("pickle", root=tmp_path) as run:
        assert pickle.loads(pickle.dumps(run)) is run
        metric = run.metric("x")
        assert pickle.loads(pickle.dumps(metric)) is metric


def test_a_handle_of_a_finished_run_drops_where_it_is_unpickled(tmp_path: Path) -> None:
    with shmlog.init("late", root=tmp_path) as run:
        data = pickle.dumps(run.metric("x"))
    wait_for_end(run.dir)
    script = (
        "import pickle, sys\nmetric = pickle.loads(bytes.fromhex(sys.argv[1]))\nmetric(1.0, 1)\n"
        "assert metric.run.stats['dropped']['closed'] == 1\n"
    )
    done = run_script(script, data.hex(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_short_lived_producers_reuse_lanes(tmp_path: Path) -> None:
    with shmlog.init("short", root=tmp_path, lanes=4) as run:
        for i in range(50):
            pid = os.fork()
            if pid == 0:
                run.log("x", float(i), step=i)
                os._exit(0)
            os.waitpid(pid, 0)
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=50)
    assert stored.metrics("x")["value"].to_pylist() == [float(i) for i in range(50)]
    assert len(stored.producers) == 51
    assert {producer["lane"] for producer in stored.producers} <= {0, 1}


def test_more_processes_than_lanes_drop_and_count(tmp_path: Path) -> None:
    with shmlog.init("lanes", root=tmp_path, lanes=1) as run:
        pid = os.fork()
        if pid == 0:
            for i in range(10):
                run.log("x", float(i))
            os._exit(0 if run.stats["dropped"]["lane"] == 10 else 1)
        assert os.waitpid(pid, 0)[1] == 0
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=10)
    assert stored.dropped == {"lane": 10}


def log_a_million(run: shmlog.Run, number: int) -> None:
    metric = run.metric(f"shared{number % 2}")
    for i in range(1_000_000):
        metric(i * 0.5 + number, (i * 7 + number) % 1000)


def test_a_million_records_from_each_of_four_processes_are_all_there(tmp_path: Path) -> None:
    with shmlog.init("millions", root=tmp_path) as run:
        children = [
            multiprocessing.get_context(method).Process(target=log_a_million, args=(run, number))
            for number, method in enumerate(["fork", "spawn", "fork", "spawn"])
        ]
        for child in children:
            child.start()
        for child in children:
            child.join()
            assert child.exitcode == 0
    wait_for_end(run.dir)
    stored = shmlog.load(run.dir)
    assert stored.dropped == {}
    assert stored.counts["metrics"] == 4_000_000
    i = np.arange(1_000_000)
    everything = stored.metrics()
    for number, child in enumerate(children):
        table = everything.filter(pc.equal(everything["pid"], child.pid))
        assert table["name"].unique().to_pylist() == [f"shared{number % 2}"]
        assert set(table["kind"].unique().to_pylist()) == {"float"}
        order = np.argsort(table["seq"].to_numpy())
        assert np.array_equal(table["value"].to_numpy()[order], i * 0.5 + number), "I3: in order"
        assert np.array_equal(table["step"].to_numpy()[order], (i * 7 + number) % 1000)


DISABLED_CHILD = """
import shmlog
run = shmlog.attach(worker=1)
run.log("loss", 0.5, 1)
shmlog.log("loss", 0.5, 2)
print(run.stats["flusher"], sorted(shmlog.current().dir.parts)[-1])
"""


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_children_of_a_disabled_run_log_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Nor into the run that was there before."""
    with shmlog.init("before", root=tmp_path) as before:
        before.log("loss", 1.0, 0)
    if by == "environment":
        monkeypatch.setenv("SHMLOG_MODE", "disabled")
    with shmlog.init("off", root=tmp_path, mode="disabled" if by == "argument" else None):
        done = run_script(DISABLED_CHILD, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.split()[0] == "none"
    assert shmlog.load(before.dir).metrics().num_rows == 1
    assert not (tmp_path / "off").exists()
