"""Names and ids that somebody else has chosen: data for people, and never a way to somewhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog import _core
from shmlog.cli.main import main
from shmlog.folder import runfile
from shmlog.folder.layout import RunLayout
from shmlog.folder.names import folder_name, is_experiment
from shmlog.reader.artifacts import find_artifacts
from shmlog.reader.verify.verify import verify
from shmlog.run.start import _span
from tests.support.folders import Folder
from tests.support.frames import Log
from tests.support.stores import add_metrics, add_run

CONTROLS = "a\x1b[31mb\nc\r\td\x9be\u2028f\u202eg\u2066h\ufeffi\x07"
NAMES = [
    CONTROLS,
    "\x1b]0;title\x07",
    "caf\u00e9",
    "cafe\u0301",
    "..",
    ".",
    "/etc/passwd",
    "a\\b",
    "-rf",
    "CON",
    "\U0001f4c9",
    "ü" * 512,
]
IDS = [
    "../../etc/x", "/etc/x", "%2e%2e", "..;", "a#", ".", "..", "", "a/../b", "a\\b", "é", "x" * 65, "a\0", "a\n", "a ",
    "a/b/c", "~", "$HOME", "*",
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a store of a run in which every name and text is hostile, and of a sound one."""
    root = tmp_path / "runs"
    folder = Folder(root / "digits" / "hostile", ("parquet", "jsonl"))
    log = Log(0)
    lane = log.lane(0)
    lane.owner({"pid": 41, "rank": 3, "host": CONTROLS, "started_ns": 1, "process": CONTROLS})
    for number, name in enumerate(NAMES):
        lane.metric(name, float(number), number, number)
        lane.event(name, {name: name}, number)
    log.frame(now=1)
    folder.add(log)
    folder.complete()
    told = dict.fromkeys(("name", "notes", "description", "group", "parent", "job_name", "user", "host"), CONTROLS)
    folder.describe(**told, tags=[CONTROLS], argv=[CONTROLS], git={"commit": CONTROLS, "branch": CONTROLS})
    runfile.write(folder.layout.config_yaml, {CONTROLS: CONTROLS, "list": [CONTROLS]})
    (folder.layout.artifacts / "plots").mkdir(parents=True)
    for name in ("a\x1b[31m.png", "line\nend", "\udcff"):
        (folder.layout.artifacts / "plots" / name).touch()
    add_run(root, "sound", name=CONTROLS, tags=["plain"], params={CONTROLS: 1})
    store = shmlog.Store(root)
    store.annotate_experiment("digits", display_name=CONTROLS, description=CONTROLS)
    (root / "digits" / "\x1b[31mno run").mkdir()
    return root


COMMANDS: dict[str, list[str]] = {
    "show": ["show", "RUN"],
    "tail": ["tail", "RUN", "--no-follow", "-n", "100"],
    "verify": ["verify", "RUN"],
    "artifacts": ["artifacts", "RUN"],
    "artifacts verify": ["artifacts", "verify", "RUN"],
    "artifacts --get": ["artifacts", "RUN", "--get", CONTROLS],
    "checkpoints": ["checkpoints", "RUN"],
    "runs": ["runs", "--root", "ROOT"],
    "runs of no such experiment": ["runs", CONTROLS, "--root", "ROOT"],
    "runs where": ["runs", "--root", "ROOT", "--where", CONTROLS],
    "runs tag": ["runs", "--root", "ROOT", "--tag", f"({CONTROLS}"],
    "sql metrics": ["sql", "select * from metrics", "--root", "ROOT"],
    "sql runs": ["sql", "select * from runs", "--root", "ROOT"],
    "sql params": ["sql", "select * from params", "--root", "ROOT"],
    "sql events": ["sql", "select * from events", "--root", "ROOT"],
    "sql artifacts": ["sql", "select * from artifacts", "--root", "ROOT"],
    "sql no such column": ["sql", f'select "{CONTROLS}" from runs', "--root", "ROOT"],
    "compare": ["compare", "hostile", "sound", "--root", "ROOT"],
    "compare --metric": ["compare", "hostile", "sound", "--metric", CONTROLS, "--root", "ROOT"],
    "prune": ["prune", "--keep", "0", "--root", "ROOT"],
    "tag": ["tag", "hostile", CONTROLS, "--root", "ROOT"],
    "annotate": ["annotate", "hostile", "--name", CONTROLS, "--root", "ROOT"],
    "pin": ["pin", CONTROLS, "--root", "ROOT"],
    "rm": ["rm", CONTROLS, "--root", "ROOT"],
    "restore": ["restore", CONTROLS, "--root", "ROOT"],
    "recover": ["recover", "RUN"],
    "export": ["export", "RUN", "-o", CONTROLS],
    "export into a folder that is none": ["export", "RUN", "-o", f"/dev/null/{CONTROLS}.csv"],
    "import": ["import", CONTROLS, "--root", "ROOT"],
    "a folder that is not there": ["show", CONTROLS],
}


@pytest.mark.parametrize("machine", [False, True], ids=["for people", "--json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_control_character_reaches_a_terminal(
    root: Path, command: str, machine: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """FAULTS 63: whatever prints a name escapes it, in tables, errors, warnings and JSON."""
    places = {"RUN": str(root / "digits" / "hostile"), "ROOT": str(root)}
    words = [places.get(word, word) for word in COMMANDS[command]]
    try:
        code = main([*words, "--json"] if machine else words)
    except SystemExit as ended:
        code = int(ended.code or 0)
    printed = "".join(capfd.readouterr())
    assert code in (0, 1, 2, 3)
    assert printed
    assert not {c for c in printed if not c.isprintable() and c != "\n"}


def test_names_come_back_apart_from_every_reader(root: Path) -> None:
    """FAULTS 63: twins of Unicode stay two, and nothing is escaped where programs read."""
    stored = shmlog.load(root / "digits" / "hostile")
    assert stored.names() == sorted(NAMES)
    assert set(stored.sql("select distinct name from metrics")["name"].to_pylist()) == set(NAMES)
    assert set(stored.pivot().column_names) == {"step", *NAMES}
    assert set(shmlog.Store(root).summary("hostile")) == set(NAMES)
    assert {finding.name for finding in stored.findings()} <= set(NAMES)
    assert [event["event_type"] for event in stored.events()] == NAMES
    lines = stored.dir.joinpath("events.jsonl").read_bytes().split(b"\n")
    assert all(json.loads(line) for line in lines[:-1]), "one record is one line"


@pytest.mark.parametrize("format", ["json", "csv", "wide-csv", "parquet", "arrow"])
def test_names_come_back_from_exports(root: Path, format: str, tmp_path: Path) -> None:
    """FAULTS 63: control characters are data there, too."""
    path = tmp_path / f"out.{format}"
    shmlog.export_run(root / "digits" / "hostile", path, format)
    kind = format.removeprefix("wide-")
    report = shmlog.import_run(path, tmp_path / "back", kind)
    assert shmlog.load(report.dir).names() == sorted(NAMES)


# ---- ids ----

READERS: dict[str, Callable[[shmlog.Store, str], Any]] = {
    "get": lambda store, name: store.get(name),
    "load": lambda store, name: store.load(name),
    "metrics": lambda store, name: list(store.metrics(name)),
    "artifacts": lambda store, name: store.artifacts(name),
    "delete": lambda store, name: store.delete(name, force=True),
    "tag": lambda store, name: store.tag(name, add=["a"]),
    "pin": lambda store, name: store.pin(name),
    "rebuild": lambda store, name: store.rebuild(name),
    "restore": lambda store, name: store.restore(name),
    "set_status": lambda store, name: store.set_status(name, "running"),
    "experiment": lambda store, name: store.experiment(name),
    "runs": lambda store, name: store.runs(name),
    "delete_experiment": lambda store, name: store.delete_experiment(name),
    "create_experiment": lambda store, name: store.create_experiment(name),
    "create_run": lambda store, name: store.create_run(name),
    "import": lambda store, name: shmlog.import_run(_jsonl(store.root), store.root, experiment=name),
    "init": lambda store, name: shmlog.init(name, root=store.root).finish(),
}


def _jsonl(root: Path) -> Path:
    path = root.parent / "source.jsonl"
    path.write_text('{"timestamp": "2026-01-01T00:00:00Z", "event_type": "config", "data": {}}\n')
    return path


@pytest.fixture
def victim(tmp_path: Path) -> RunLayout:
    """Return a run beside a store, which no name below that store may lead to."""
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    return add_run(tmp_path / "outside", "victim")


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("call", READERS)
def test_no_id_leads_out_of_the_root(victim: RunLayout, tmp_path: Path, call: str) -> None:
    """FAULTS 64: whatever a run or an experiment is called, it is looked for below the root."""
    store = shmlog.Store(tmp_path / "runs")
    before = everything(tmp_path / "outside")
    for name in [*IDS, "../outside/digits/victim", str(victim.dir), "digits/../../outside/digits/victim"]:
        if call in ("create_experiment", "create_run", "import", "init") and is_experiment(name):
            READERS[call](store, name)
            continue
        with pytest.raises((ValueError, LookupError)):
            READERS[call](store, name)
    assert everything(tmp_path / "outside") == before
    assert {path.name for path in tmp_path.iterdir()} <= {"runs", "outside", "source.jsonl"}
    made = {path.name for path in (tmp_path / "runs").iterdir()} - {"digits", ".shmlog"}
    assert made <= {folder_name(name) for name in IDS if is_experiment(name)}


@pytest.mark.parametrize(
    "call", [call for call in READERS if call not in ("create_experiment", "init", "import", "restore")]
)
def test_no_link_is_followed_by_a_store(victim: RunLayout, tmp_path: Path, call: str) -> None:
    """FAULTS 64: a link in the store names nothing; what it leads to stays."""
    store = shmlog.Store(tmp_path / "runs")
    (tmp_path / "runs" / "digits" / "link").symlink_to(victim.dir)
    (tmp_path / "runs" / "linked").symlink_to(victim.dir.parent)
    before = everything(tmp_path / "outside")
    of_experiments = call in ("experiment", "runs", "delete_experiment", "create_run")
    for name in ["linked"] if of_experiments else ["link", "digits/link", "linked/victim"]:
        with pytest.raises((shmlog.errors.StorageError, LookupError)):
            READERS[call](store, name)
    assert store.runs() == []
    assert everything(tmp_path / "outside") == before


def test_commands_that_change_a_run_follow_no_link(victim: RunLayout, tmp_path: Path) -> None:
    """FAULTS 64: neither one below the root, nor one that is named by its folder."""
    link = tmp_path / "runs" / "digits" / "link"
    link.symlink_to(victim.dir)
    before = everything(tmp_path / "outside")
    for words in (["rm", "--force"], ["tag"], ["pin"], ["unpin"], ["annotate", "--notes", "x"]):
        command, *options = words
        extra = ["a"] if command == "tag" else []
        for name in ("digits/link", str(link)):
            assert main([command, name, *extra, *options, "--root", str(tmp_path / "runs")]) == 3, (command, name)
    assert main(["prune", "--keep", "0", "--force", "--root", str(tmp_path / "runs")]) == 0
    assert everything(tmp_path / "outside") == before


def test_twins_in_case_are_two_runs(tmp_path: Path) -> None:
    """FAULTS 64: as the file system has them."""
    for run_id in ("run", "RUN"):
        add_run(tmp_path, run_id, name=run_id)
    store = shmlog.Store(tmp_path)
    assert [store.get(run_id).name for run_id in ("run", "RUN")] == ["run", "RUN"]


def test_what_a_run_calls_itself_is_no_path(tmp_path: Path) -> None:
    """FAULTS 64: the folder is the id; run.yaml that says another one is not believed."""
    layout = add_run(tmp_path / "runs", "honest", name="../../x")
    runfile.write(layout.run_yaml, {**runfile.read(layout.run_yaml), "run_id": "../../x", "experiment": "/etc"})
    (record,) = shmlog.Store(tmp_path / "runs").runs()
    assert (record.run_id, record.experiment, record.dir) == ("honest", "digits", layout.dir)
    result = shmlog.Store(tmp_path / "runs").prune(keep=0, archive=True, dry_run=False)
    assert [run.archive for run in result.runs] == [tmp_path / "runs" / ".archive" / "digits" / "honest.tar.zst"]
    assert shmlog.Store(tmp_path / "runs").restore("honest").run_id == "honest"


def test_artifact_of_a_linked_folder_is_not_read(tmp_path: Path) -> None:
    """FAULTS 64: whatever else of the run can be read."""
    layout = add_run(tmp_path / "runs", "one")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("precious")
    layout.artifacts.mkdir()
    os.symlink(tmp_path / "secret" / "key", layout.artifacts / "key")
    event = {"name": "key", "size_bytes": 8, "digest": f"sha256:{hashlib.sha256(b'precious').hexdigest()}"}
    for linked in (layout.artifacts / "key", layout.artifacts):
        (found,) = find_artifacts(layout, [{"event_type": "artifact", "timestamp": "", "data": event}])
        with pytest.raises(shmlog.errors.RefusedError, match="link"):
            found.open()
        if linked != layout.artifacts:
            shutil.rmtree(layout.artifacts)
            os.symlink(tmp_path / "secret", layout.artifacts)


FOLDERS = ["wal", "metrics", "metrics/node=0", "large", "artifacts"]


def _link(run_dir: Path, folder: str) -> None:
    """Have a folder of a run lead to that of another, where it was moved."""
    place, elsewhere = run_dir / folder, run_dir.parents[2] / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.rename(elsewhere / "folder") if place.is_dir() else (elsewhere / "folder").mkdir()
    place.symlink_to(elsewhere / "folder")


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "live"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_in_a_run_that_is_a_link_is_refused(tmp_path: Path, folder: str, complete: bool) -> None:
    """FAULTS 64: who made it may want another's files read, exported and passed on."""
    layout = add_metrics(tmp_path / "runs", "one")
    if not complete:
        runfile.write_sealed(layout.run_yaml, {**runfile.read(layout.run_yaml), "complete": False})
    stored = shmlog.load(layout.dir)
    _link(layout.dir, folder)
    readers: list[Callable[[], Any]] = [
        lambda: shmlog.load(layout.dir), stored.metrics, stored.events, stored.scan, lambda: stored.artifacts,
        lambda: stored.counts, lambda: stored.sql("select * from metrics"),
        lambda: shmlog.export_run(layout.dir, tmp_path / "a.csv"),
        lambda: shmlog.export_run(stored, tmp_path / "a.csv"),
        lambda: shmlog.Store(tmp_path / "runs").load("one"),
    ]  # fmt: skip
    for read in readers:
        with pytest.raises(shmlog.errors.RefusedError, match=f"{folder}: is a link: refused"):
            read()
    assert not (tmp_path / "a.csv").exists()
    report = verify(layout.dir)
    assert [(finding.severity, f"{folder}: is a link" in finding.message) for finding in report.findings] == [
        ("error", True)
    ]
    for words in (["show"], ["tail", "--no-follow"], ["export"], ["verify"], ["artifacts"], ["sql", "select 1"]):
        command, *rest = words
        where = [*rest, str(layout.dir)] if command == "sql" else [str(layout.dir), *rest]
        assert main([command, *where]) == (1 if command == "verify" else 3), words


def test_a_run_that_is_reached_by_a_link_is_read(tmp_path: Path) -> None:
    """So the test above refuses no more than it says: a folder that the user names is theirs to choose."""
    layout = add_metrics(tmp_path / "runs", "one")
    (tmp_path / "link").symlink_to(layout.dir)
    (tmp_path / "root").symlink_to(tmp_path / "runs")
    rows = shmlog.load(layout.dir).metrics().num_rows
    assert rows
    assert shmlog.load(tmp_path / "link").metrics().num_rows == rows
    assert shmlog.Store(tmp_path / "root").load("one").metrics().num_rows == rows
    assert verify(tmp_path / "link").ok


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_link_in_one_run_does_not_hide_the_others(tmp_path: Path, folder: str) -> None:
    """FAULTS 64: a store warns of it, and answers for all other runs."""
    for run_id in ("one", "two"):
        add_metrics(tmp_path / "runs", run_id)
    _link(tmp_path / "runs" / "digits" / "one", folder)
    store = shmlog.Store(tmp_path / "runs")
    assert {run.run_id for run in store.runs()} == {"one", "two"}
    with pytest.warns(shmlog.ShmlogWarning, match="is a link: refused"):
        assert [run.run_id for run in store.runs(where="metrics.loss.count > 0")] == ["two"]
    with pytest.warns(shmlog.ShmlogWarning, match="is a link: refused"):
        assert store.sql("select distinct run_id from metrics")["run_id"].to_pylist() == ["two"]


def test_commands_that_look_for_runs_follow_no_link(
    victim: RunLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """FAULTS 64: a run that has crashed elsewhere is not recovered because a link in the store leads to it."""
    (tmp_path / "runs" / "digits" / "link").symlink_to(victim.dir)
    (tmp_path / "runs" / "linked").symlink_to(victim.dir.parent)
    runfile.write(victim.run_yaml, {**runfile.read(victim.run_yaml), "complete": False, "status": "running"})
    before = everything(tmp_path / "outside")
    monkeypatch.chdir(tmp_path)
    assert main(["recover", "runs", "--force"]) == 0
    assert "nothing to recover" in capsys.readouterr().err
    for words in (["show"], ["show", "link"], ["show", "victim"], ["tail", "victim"], ["verify"]):
        assert main(words) == 3, words
    assert everything(tmp_path / "outside") == before


@pytest.mark.parametrize(
    "name", ["link", "digits/link", "linked/victim", "../outside/digits/victim", "digits/../digits/link"]
)
def test_no_run_elsewhere_is_resumed_by_an_id(victim: RunLayout, tmp_path: Path, name: str) -> None:
    """FAULTS 64: ids are looked for below the root; another run is named by its folder."""
    (tmp_path / "runs" / "digits" / "link").symlink_to(victim.dir)
    (tmp_path / "runs" / "linked").symlink_to(victim.dir.parent)
    before = everything(tmp_path / "outside")
    with pytest.raises(shmlog.errors.RunNotFoundError):
        shmlog.init(resume=name, root=tmp_path / "runs")
    assert everything(tmp_path / "outside") == before


# ---- hashes and the environment ----

PLACES = 32_768  # of the table of names


def place_of(seed: int, name: str) -> int:
    value = 0xCBF29CE484222325 ^ seed
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return (value ^ value >> 32) % PLACES


def test_names_of_one_hash_are_told_apart(tmp_path: Path) -> None:
    """FAULTS 66: the text is compared, not the hash; the seed is another in each run."""
    with shmlog.init(root=tmp_path) as run:
        seed = int.from_bytes(Path(run.stats["segment"]).read_bytes()[80:88], "little")
        names = (f"n{number}" for number in range(1_000_000))
        colliding = list(islice((name for name in names if place_of(seed, name) == place_of(seed, "n0")), 12))
        for number, name in enumerate(colliding):
            run.log(name, number, step=0)
    stored = shmlog.load(run.dir)
    assert len(colliding) == 12
    assert [stored.metrics([name])["int_value"].to_pylist() for name in colliding] == [[n] for n in range(12)]


NONSENSE = ["", "-1", "9" * 5000, "\udcff", "1.5", "0x1", " 1", "NaN", "1\n", "../..", "00-" + "g" * 32 + "-1-1"]


@pytest.mark.parametrize("value", [*NONSENSE, f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01"])
def test_nonsense_in_the_environment_is_as_if_there_were_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 76: of ranks and of the span."""
    for name in ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SHMLOG_RANK", "LOCAL_RANK", "TRACEPARENT"):
        monkeypatch.setenv(name, value)
    owner = json.loads(_core.owner_record(None, None, None, "x"))
    assert (owner["rank"], owner["local_rank"]) == (None, None)
    assert _span() == (None, None)
