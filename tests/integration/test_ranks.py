"""Which processes of a launch share a run, and which do not: small programs with the variables that launchers set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.errors import RefusedError
from shmlog.folder.files import LOCAL
from shmlog.folder.segmentref import MEETING_PREFIX, SHARED_MEMORY, names_in
from shmlog.run import rendezvous
from shmlog.segment import gc, meeting
from shmlog.segment.meeting import MeetingEntry, meeting_place, open_meeting, remove_meeting, stale_meetings
from shmlog.segment.process import Process, process_of
from tests.support.books import assert_books_balance
from tests.support.processes import run_script, wait_for_end, wait_until

NOBODY = 65534

# What all programs begin with. The marks are how their processes wait for each other.
BEGIN = """
import json, os, subprocess, sys, time
from pathlib import Path
import shmlog

def mark(name):
    Path(name).touch()

def wait_for(*names):
    while not all(Path(name).exists() for name in names):
        time.sleep(0.005)

def log(run, name, count=10):
    for i in range(count):
        run.log(name, float(i), step=i)

def start(argv, env):
    return subprocess.Popen([sys.executable, *argv], env={**os.environ, **env})

def start_ranks(argv, count, **env):
    return [start(argv, {**env, "RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": str(count)}) for r in range(count)]
"""


def runs_of(root: Path) -> list[shmlog.StoredRun]:
    """Return the runs below ``root``, when they are over, in the order in which they were made."""
    found = sorted((path.parent for path in root.glob("*/*/run.yaml")), key=lambda run_dir: run_dir.stat().st_ino)
    for run_dir in found:
        wait_for_end(run_dir)
    return sorted((shmlog.load(run_dir) for run_dir in found), key=lambda run: str(run.metadata["created_at"]))


def ranks_of(run: shmlog.StoredRun) -> list[int | None]:
    return sorted((producer["rank"] for producer in run.producers), key=lambda rank: -1 if rank is None else rank)


def run_program(program: str, *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None) -> None:
    done = run_script(BEGIN + program, *arguments, cwd=cwd, env=env)
    assert done.returncode == 0, done.stderr


def assert_nobody_meets(root: Path) -> None:
    """Wait until no list of the runs below ``root`` is left, though nobody comes by to remove it."""

    def lists() -> list[str]:
        names = names_in(SHARED_MEMORY, MEETING_PREFIX)
        return [name for name in names if os.fsencode(root) in _content(SHARED_MEMORY / name)]

    wait_until(lambda: not lists(), f"no list of the runs in {root}")


def _content(place: Path) -> bytes:
    """Return what is in a list; nothing of one that has gone, and of what other tests plant there."""
    try:
        return LOCAL.read(place)
    except (FileNotFoundError, RefusedError):
        return b""


# ---- two programs of one rank ----

SBATCH = """
if len(sys.argv) == 3:
    when = sys.argv[2]
    started = []
    for name in ("a", "b"):
        started.append(start([sys.argv[0], sys.argv[1], when, name], {}))
        if when == "in turn":
            started[-1].wait()
    sys.exit(max(process.wait() for process in started))
root, when, name = sys.argv[1:]
with shmlog.init("sweep", root=root, config={"program": name}) as run:
    log(run, name)
    mark(name)
    if when == "at once":
        wait_for("a", "b")
"""


@pytest.mark.parametrize("when", ["at once", "in turn"])
def test_two_programs_of_one_rank_are_two_runs(tmp_path: Path, when: str) -> None:
    root = tmp_path / "runs"
    run_program(SBATCH, root, when, cwd=tmp_path, env={"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"})
    runs = runs_of(root)
    assert sorted(run.config["program"] for run in runs) == ["a", "b"]
    for run in runs:
        assert_books_balance(run.dir, offered=10)
        assert set(run.metrics()["name"].to_pylist()) == {run.config["program"]}
    assert_nobody_meets(root)


LAUNCHED_AGAIN = """
if len(sys.argv) == 2:
    for launch in range(2):
        ranks = start_ranks([sys.argv[0], sys.argv[1], str(launch)], 3 - launch)  # one has not been in the first run
        assert not any(rank.wait() for rank in ranks)
    sys.exit()
rank, launch = os.environ["RANK"], sys.argv[2]
if (rank, launch) == ("0", "0"):
    sys.exit()
with shmlog.init("again", root=sys.argv[1], config={"launch": launch}) as run:
    log(run, launch)
    mark(f"{launch}.{rank}")
    wait_for(*[f"{launch}.{r}" for r in ((1, 2), (0, 1))[int(launch)]])
"""


def test_a_launcher_that_starts_its_ranks_twice_has_two_runs(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_program(LAUNCHED_AGAIN, root, cwd=tmp_path)
    runs = runs_of(root)
    assert [run.config["launch"] for run in runs] == ["0", "1"]
    assert [ranks_of(run) for run in runs] == [[1, 2], [0, 1]]
    for run in runs:
        assert_books_balance(run.dir, offered=20)


# ---- turns ----

TURNS = """
if "RANK" not in os.environ:
    sys.exit(max(rank.wait() for rank in start_ranks(sys.argv, 2)))
rank, kept = os.environ["RANK"], sys.argv[2] == "kept"
if rank == "1":
    wait_for("turn2.0")  # the other has begun its third run
runs = []
for turn in range(3):
    run = shmlog.init("turns", root=sys.argv[1], config={"turn": turn})
    log(run, f"turn{turn}")
    mark(f"turn{turn}.{rank}")
    runs.append(run)
    if not kept and turn < 2:
        run.finish()
        while rank == "0" and not shmlog.load(run.dir).metadata["complete"]:
            time.sleep(0.01)
wait_for("turn2.0", "turn2.1")
for run in runs:
    run.finish()
"""


@pytest.mark.parametrize("first", ["kept", "finished"])
def test_a_slower_rank_lands_in_no_run_of_another_turn(tmp_path: Path, first: str) -> None:
    root = tmp_path / "runs"
    run_program(TURNS, root, first, cwd=tmp_path)
    runs = runs_of(root)
    for run in runs:
        turn = run.config["turn"]
        assert set(run.metrics()["name"].to_pylist()) == {f"turn{turn}"}, "a rank landed in a run of another turn"
        if first == "kept" or turn == 2:
            assert ranks_of(run) == [0, 1]
            assert_books_balance(run.dir, offered=20)
    # What the slower rank came too late for is a run of its own.
    assert sorted(run.config["turn"] for run in runs) == ([0, 1, 2] if first == "kept" else [0, 0, 1, 1, 2])


# ---- a script that starts itself, as Lightning's ----

LIGHTNING = """
root, order = sys.argv[1:]
children = []

def launch():  # as _SubprocessScriptLauncher._call_children_scripts
    if "LOCAL_RANK" not in os.environ:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29500", NODE_RANK="0", LOCAL_RANK="0", WORLD_SIZE="3")
        children.extend(start(sys.argv, {"LOCAL_RANK": rank}) for rank in ("1", "2"))

for turn in range(2):
    if order == "before":
        run = shmlog.init("lightning", root=root, config={"turn": turn})
    launch()
    if order == "after":
        run = shmlog.init("lightning", root=root, config={"turn": turn})
    log(run, f"turn{turn}")
    mark(f"turn{turn}.{os.environ['LOCAL_RANK']}")
    wait_for(*[f"turn{turn}.{rank}" for rank in range(3)])
    run.finish()
    os.environ.pop("WORLD_SIZE", None)  # as LightningEnvironment.teardown
sys.exit(max((child.wait() for child in children), default=0))
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_ranks_that_have_only_a_local_one_share_a_run(tmp_path: Path, order: str) -> None:
    root = tmp_path / "runs"
    run_program(LIGHTNING, root, order, cwd=tmp_path)
    runs = runs_of(root)
    assert [run.config["turn"] for run in runs] == [0, 1]
    for run in runs:
        assert_books_balance(run.dir, offered=30)
        assert set(run.metrics()["name"].to_pylist()) == {f"turn{run.config['turn']}"}
    # In its first run the first process does not know yet that it is a rank.
    assert [ranks_of(run) for run in runs] == [[None if order == "before" else 0, 1, 2], [0, 1, 2]]
    assert_nobody_meets(root)


OF_A_RANK = """
name = sys.argv[2]
with shmlog.init("programs", root=sys.argv[1], config={"name": name}) as run:
    log(run, name)
    if name == "rank":
        assert start([sys.argv[0], sys.argv[1], "its program"], {}).wait() == 0
"""


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"LOCAL_RANK": "0", "WORLD_SIZE": "2"},
        {"LOCAL_RANK": "1", "WORLD_SIZE": "2"},
        {"LOCAL_RANK": "1"},
        {},
    ],
    ids=["rank", "first local rank", "local rank", "after a training", "no rank"],
)
def test_a_program_that_a_rank_starts_has_a_run_of_its_own(tmp_path: Path, variables: dict[str, str]) -> None:
    root = tmp_path / "runs"
    run_program(OF_A_RANK, root, "rank", cwd=tmp_path, env=variables)
    runs = runs_of(root)
    assert [run.config["name"] for run in runs] == ["rank", "its program"]
    for run in runs:
        assert_books_balance(run.dir, offered=10)
        assert set(run.metrics()["name"].to_pylist()) == {run.config["name"]}
    assert_nobody_meets(root)


# ---- ranks that are started anew ----

AGENT = """
root, failures, restarts_max = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if "RANK" not in os.environ:  # as torchrun's agent
    for restart in range(restarts_max + 1):
        told = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": str(restart),
                "TORCHELASTIC_MAX_RESTARTS": str(restarts_max), "MASTER_PORT": str(29500 + restart)}
        ranks = start_ranks(sys.argv, 2, **told)
        while not any(rank.poll() for rank in ranks) and any(rank.poll() is None for rank in ranks):
            time.sleep(0.01)
        if not any(rank.poll() for rank in ranks):
            sys.exit(0)
        for rank in ranks:
            rank.kill()
            rank.wait()
        while not all(shmlog.load(path.parent).metadata["complete"] for path in Path(root).glob("*/*/run.yaml")):
            time.sleep(0.01)
        if len(sys.argv) == 5:
            sys.exit(0)  # it has restarts left
rank, restart = os.environ["RANK"], int(os.environ["TORCHELASTIC_RESTART_COUNT"])
for turn in range(2):
    run = shmlog.init("elastic", root=root, config={"turn": turn})
    log(run, f"turn{turn}")
    run.flush()
    mark(f"{restart}.{turn}.{rank}")
    wait_for(*[f"{restart}.{turn}.{r}" for r in range(2)])
    if turn == 1 and restart <= failures:
        if rank == "0":
            os._exit(3)
        time.sleep(600)
    run.finish()
"""


def test_ranks_that_are_started_anew_make_the_next_attempt_of_the_run(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_program(AGENT, root, "0", "2", cwd=tmp_path)
    runs = runs_of(root)
    # The first was finished: the restarted ranks do it over again, and not the one that was interrupted.
    assert [run.config["turn"] for run in runs] == [0, 1, 0]
    assert [[attempt["status"] for attempt in run.attempts] for run in runs] == [
        ["success"],
        ["crashed", "success"],
        ["success"],
    ]
    for run in runs:
        assert_books_balance(run.dir, offered=20 * len(run.attempts))
        assert ranks_of(run) == sorted([0, 1] * len(run.attempts))
        assert set(run.metrics()["name"].to_pylist()) == {f"turn{run.config['turn']}"}
    assert_nobody_meets(root)


def test_a_launcher_that_gives_up_its_restarts_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run_program(AGENT, root, "0", "2", "gives up", cwd=tmp_path)
    assert [run.status for run in runs_of(root)] == ["success", "crashed"]
    assert_nobody_meets(root)


# ---- what is left in shared memory ----


def _list(run_dir: Path, launcher: Process) -> Path:
    path = meeting_place(str(run_dir))
    with open_meeting(path) as book:
        book.runs.append(MeetingEntry(str(run_dir), 1, 0, 0, {"0": launcher}))
        book.write(launcher)
    return path


def test_gc_removes_the_list_of_a_launch_when_its_launcher_is_gone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alive = process_of(os.getppid())
    assert alive.start is not None
    with shmlog.init("listed", root=tmp_path) as run:
        path = _list(run.dir, alive)
        with open_meeting(path):  # a rank is at it
            assert path not in stale_meetings()
        assert path not in stale_meetings()
        remove_meeting(path)
        assert path.exists()
        path.unlink()

        def is_listed() -> bool:
            _list(run.dir, Process(alive.pid, alive.start - 1))  # its pid has been given to another
            assert main(["gc"]) == 0
            return f"{path.name}  " in capfd.readouterr().out

        wait_until(is_listed, "gc to find the list before another process's init removes it")
        for stale in gc.find_stale():
            if stale.path == path:
                gc.remove(stale)
        assert not path.exists()


def test_the_next_init_removes_the_list_of_a_launch_that_is_gone(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with shmlog.init("listed", root=tmp_path) as run:
        path = _list(run.dir, process_of(process.pid))
        shmlog.init("next", root=tmp_path).finish()
        assert path.exists()
        process.communicate(b"\n")
        shmlog.init("next", root=tmp_path).finish()
        assert not path.exists()


def test_the_list_of_another_container_is_left_alone(tmp_path: Path) -> None:
    path = _list(tmp_path / "a run of that container", Process(1, 0))
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "pid_namespace": "pid:[1]"}))
    remove_meeting(path)
    assert path.exists()
    path.write_text(json.dumps(told))
    remove_meeting(path)
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"runs": 7}', "[" * 100_000, '{"launcher": ["1", null], "pid_namespace": null, "runs": []}',
     '{"launcher": [1, null], "pid_namespace": null, "runs": [{"dir": 7, "turn": 1, "restart": 0, "restarts_max": 0}]}',
     '{"launcher": [1, null], "pid_namespace": null, "runs": [{"dir": "", "turn": {}, "restart": 0}]}'],
)  # fmt: skip
def test_a_list_that_is_none_lists_nothing(tmp_path: Path, text: str) -> None:
    path = meeting_place(str(tmp_path))
    path.write_text(text)
    with open_meeting(path) as book:
        assert book.runs == []
    assert path in stale_meetings() or not path.exists(), "another process's init may remove it first"
    remove_meeting(path)
    assert not path.exists()


def test_a_process_is_told_from_another_one_of_its_pid() -> None:
    me = process_of(os.getpid())
    assert me.start is not None
    assert me.is_alive
    assert not Process(me.pid, me.start - 1).is_alive
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    process = process_of(child.pid)
    wait_until(lambda: not process.is_alive, "the end of a child that nobody has asked about")
    child.wait()
    assert not process.is_alive
    assert not Process(child.pid, None).is_alive


# ---- what others put there ----


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.symlink_to("/dev/shm/shmlog-of-somebody")


def _second_name(path: Path) -> None:
    victim = path.with_name("shmlog.meet-victim")
    victim.write_text("precious")
    os.link(victim, path)


def _of_another_user(path: Path) -> None:
    path.touch(0o666)
    os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize(
    "plant",
    [_fifo, Path.mkdir, _link, _second_name,
     pytest.param(_of_another_user, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"))],
    ids=["fifo", "folder", "link", "second name", "file of another user"],
)  # fmt: skip
def test_what_others_plant_at_the_meeting_place_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, plant: Any
) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    path = rendezvous._place(process_of(os.getppid()), tmp_path, "planted")
    victim = path.with_name("shmlog.meet-victim")
    plant(path)
    before = os.lstat(path)
    try:
        with shmlog.init("planted", root=tmp_path) as run:
            run.log("x", 1.0)
        assert os.path.samestat(os.lstat(path), before)
        assert not victim.exists() or victim.read_text() == "precious"
    finally:
        victim.unlink(missing_ok=True)
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (record,) = caplog.records
    assert record.name == "shmlog"
    assert str(path) in record.getMessage()
    wait_for_end(run.dir)
    assert_books_balance(run.dir, offered=1)


def test_a_rank_whose_run_can_not_be_made_leaves_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    root = tmp_path / "no folder"
    root.touch()
    with pytest.raises(shmlog.errors.StorageError):
        shmlog.init("none", root=root)
    assert not rendezvous._place(process_of(os.getppid()), root, "none").exists()
    assert meeting.stale_meetings() == []
