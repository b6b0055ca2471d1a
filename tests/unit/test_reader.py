"""Reading a run folder: everything that is there, once, in every state that it can be in."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.errors import CorruptDataError, RunNotFoundError, ShmlogWarning
from shmlog.folder.files import LOCAL
from shmlog.folder.layout import Part, RunLayout
from shmlog.folder.status import map_status
from shmlog.reader import read, snapshot
from shmlog.reader.stored import StoredRun
from shmlog.reader.verify.verify import verify
from shmlog.records import parts
from shmlog.records.schema import METRICS, RECORDS, write_options
from tests.support.folders import OWNER, Folder, fill, simple_log
from tests.support.frames import Log
from tests.support.readings import (
    SINKS,
    assert_whole,
    expected_rows,
    rows_in,
    rows_of,
)


@pytest.mark.parametrize("sinks", SINKS, ids="-".join)
@pytest.mark.parametrize("sealed", [False, True], ids=["in the log", "sealed"])
def test_events_of_the_user_that_look_like_lines_of_ours_are_his(
    tmp_path: Path, sinks: tuple[str, ...], sealed: bool
) -> None:
    folder = Folder(tmp_path / "digits" / "one", sinks)
    log = Log()
    lane = log.lane(0)
    lane.owner(OWNER)
    lane.event("metrics", {"step": 1, "metrics": {"loss": 0.5}}, 1)
    lane.metric("loss", 1.0, 1, 2)
    lane.event("gap", {"dropped": {"full": 3}}, 3)
    lane.gap([2, 0, 0, 0, 0, 0], 4)
    log.frame()
    folder.add(log)
    if sealed:
        folder.complete()
    stored = assert_whole(folder.dir, folder)
    assert verify(folder.dir).ok
    his = {"step": 1, "metrics": {"loss": 0.5}}
    assert [event["data"] for event in stored.events("metrics") if "user" in event] == [his]
    assert Counter(producer["events"] for producer in stored.producers) == {2: 1}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "digits" / "one")
    made.add(simple_log())
    return made


# ---- a copy that lacks parts, or has those of another run ----


def two_parts(path: Path, sinks: tuple[str, ...] = ("parquet",)) -> Folder:
    """Make a run that is complete and has two parts."""
    made = Folder(path, sinks)
    first = simple_log()
    second = first.next()
    fill(second)
    for log in (first, second):
        made.add(log)
    made.complete()
    return made


def warnings_of(read: Any) -> list[list[str]]:
    """Return what each of some calls warns of."""
    told = []
    for call in read:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        assert {warning.filename for warning in caught} <= {__file__}, "a warning names the line of who calls"
        told.append([str(warning.message) for warning in caught])
    return told


def assert_all_tell(run_dir: Path, *texts: str) -> None:
    """Assert that whoever opens the run, or reads metrics of it, is told of just that."""
    with pytest.warns(ShmlogWarning):
        stored = shmlog.load(run_dir)
    reads = (
        lambda: shmlog.load(run_dir), stored.metrics, lambda: stored.metrics("loss"), stored.names, stored.scan,
        lambda: stored.sql("select count(*) from metrics"),
    )  # fmt: skip
    for told in warnings_of(reads):
        assert len(told) == len(texts), told
        assert all(text in line for text, line in zip(texts, told, strict=True)), told


def test_a_part_that_is_missing_is_told(tmp_path: Path) -> None:
    made = two_parts(tmp_path / "digits" / "one")
    made.layout.part(1).unlink()
    assert_all_tell(made.dir, "hold 81 metrics, but 162 were written")
    with pytest.warns(ShmlogWarning, match="copied in part"):
        assert shmlog.load(made.dir).metrics().num_rows == 81
    assert not verify(made.dir).ok


def test_a_missing_part_of_a_live_run_is_told(folder: Folder) -> None:
    folder.seal(1)
    assert shmlog.load(folder.dir).metrics().num_rows == 81
    folder.layout.part(0).unlink()
    with pytest.warns(ShmlogWarning, match="hold 0 metrics, but 81 were written"):
        shmlog.load(folder.dir).metrics()


def test_every_warning_of_a_run_names_the_line_that_called(tmp_path: Path) -> None:
    made = two_parts(tmp_path / "digits" / "one", ("parquet", "jsonl"))
    stored = shmlog.load(made.dir)
    made.layout.part(0).write_bytes(b"damaged")
    for path in (made.layout.events, made.layout.config_yaml, made.layout.annotations_yaml, made.layout.provenance(1)):
        path.write_bytes(b"{damaged")
    damaged = made.layout.run_yaml.read_bytes().replace(b'"experiment"', b'"experimental"', 1)
    made.layout.run_yaml.write_bytes(damaged)
    reads = (
        stored.metrics, lambda: stored.events(), lambda: stored.config, lambda: stored.annotations, stored.packages,
        lambda: stored.metadata, lambda: stored.artifacts, stored.to_pandas,
        lambda: stored.sql("select count(*) from metrics"),
    )  # fmt: skip
    told = warnings_of(reads)
    assert all(told), f"each of them reads a file that is damaged: {list(map(len, told))}"


def test_what_a_missing_part_held_is_taken_from_the_lines(tmp_path: Path) -> None:
    made = two_parts(tmp_path / "digits" / "one", ("parquet", "jsonl"))
    whole = shmlog.load(made.dir).metrics().num_rows
    made.layout.part(0).unlink()
    with pytest.warns(ShmlogWarning, match="copied in part"):
        stored = shmlog.load(made.dir)
    with pytest.warns(ShmlogWarning, match="copied in part"):
        assert stored.metrics().num_rows == whole
    with pytest.warns(ShmlogWarning, match="copied in part"):
        assert stored.sql("select count(*) as n from metrics")["n"].to_pylist() == [whole]


def test_a_part_of_another_run_is_left_out(tmp_path: Path) -> None:
    made, other = (two_parts(tmp_path / "digits" / name) for name in ("one", "other"))
    shutil.copy(other.layout.part(1), made.layout.part(1))
    assert_all_tell(made.dir, "a part of run 'other'; left out")
    with pytest.warns(ShmlogWarning):
        stored = shmlog.load(made.dir)
    with pytest.warns(ShmlogWarning):
        assert stored.metrics().num_rows == stored.scan().count_rows() == 81
    assert any("'other'" in finding.message for finding in verify(made.dir).findings)


def test_a_part_under_another_name_is_left_out(tmp_path: Path) -> None:
    made = two_parts(tmp_path / "digits" / "one")
    shutil.copy(made.layout.part(1), made.layout.part(7))
    assert_all_tell(made.dir, "holds logs 1 to 1, not those that its name says; left out")
    with pytest.warns(ShmlogWarning):
        stored = shmlog.load(made.dir)
    with pytest.warns(ShmlogWarning):
        assert rows_of(stored) == expected_rows(made)


def test_a_log_of_another_run_is_left_out_and_told(folder: Folder) -> None:
    """One that was copied there, and one of the run that lay there before another was copied over it."""
    foreign = simple_log(1)
    folder.layout.log(1).write_bytes(foreign.of_run("other"))
    stored = shmlog.load(folder.dir)
    for call in (stored.metrics, stored.names, stored.events, lambda: stored.sql("select * from metrics")):
        with pytest.warns(ShmlogWarning, match=r"000001\.wal: frames of run 'other' at byte 0; left out"):
            call()
    with pytest.warns(ShmlogWarning):
        assert rows_in(stored.metrics()) == expected_rows(folder)
    assert any("frames of run 'other'" in finding.message for finding in verify(folder.dir).findings)
    assert not verify(folder.dir).ok
    folder.describe(run_id="other")
    with pytest.warns(ShmlogWarning, match=r"000000\.wal: frames of run 'one'"):
        assert shmlog.load(folder.dir).metrics().num_rows == len(foreign.records)


def test_a_part_of_the_run_that_another_was_copied_over_is_left_out(folder: Folder) -> None:
    folder.seal(1)
    folder.describe(run_id="other")
    with pytest.warns(ShmlogWarning, match="a part of run 'one'; left out"):
        assert shmlog.load(folder.dir).metrics().num_rows == 0


def test_a_part_whose_texts_would_fill_the_memory_is_left_out_and_told(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.complete()
    path = folder.layout.part(0)
    table = parts.read_part(path)
    texts = pa.array(["x" * (1 << 20)]).take(pa.array([0] * table.num_rows))
    bomb = table.set_column(METRICS.get_field_index("text"), METRICS.field("text"), texts)
    options = {**write_options(), "use_dictionary": True, "column_encoding": None}
    with monkeypatch.context() as patched:
        patched.setattr(parts, "write_options", lambda _: options)
        parts.write_part(path, bomb, run_id="one", first=0, last=0, progress=lambda: None)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(parts, "TEXT_BYTES", 32 << 20)
    stored = shmlog.load(folder.dir)
    for call in (stored.metrics, stored.to_pandas, lambda: stored.metrics("loss")):
        with pytest.warns(ShmlogWarning, match=r"bytes of text, .*refused.*; its records are left out"):
            assert len(call()) == 0
    assert any("bytes of text" in finding.message for finding in verify(folder.dir).findings)
    for command in (["show"], ["tail", "--no-follow"], ["export", "-f", "csv", "-o", str(folder.dir.parent / "x.csv")]):
        main([*command, str(folder.dir)])
        assert "bytes of text" in capsys.readouterr().err


def test_a_run_in_a_renamed_folder_keeps_its_parts(folder: Folder) -> None:
    folder.seal(1)
    log = simple_log().next()
    fill(log)
    folder.add(log)
    folder.layout = RunLayout(folder.dir.rename(folder.dir.with_name("renamed")))
    folder.complete()
    assert_whole(folder.dir, folder)


# ---- while it is sealed ----


def test_a_run_is_read_while_it_is_sealed(tmp_path: Path, folder: Folder) -> None:
    stored = shmlog.load(folder.dir)
    assert stored.metrics().num_rows == len(folder.records)
    log = simple_log().next()
    folder.seal(1)
    fill(log)
    torn = log.of_run("one") + log.data[:100]
    folder.add(log)
    folder.layout.log(1).write_bytes(torn)
    assert_whole(folder.dir, folder)
    assert stored.metrics().num_rows == len(folder.records)


def test_parts_beyond_what_is_sealed_do_not_count(folder: Folder) -> None:
    folder.seal(1)
    part = folder.layout.part(0)
    shutil.copy(part, folder.layout.part(1))
    shutil.copy(part, part.with_name(f"{part.name}.tmp"))
    assert_whole(folder.dir, folder)


def test_what_is_sealed_during_a_look_is_read_once(folder: Folder) -> None:
    read_logs = snapshot._read_logs
    with pytest.MonkeyPatch.context() as patch:

        def seal_first(layout: RunLayout, next_log: int) -> dict[int, bytes]:
            patch.undo()
            folder.seal(1)
            return read_logs(layout, next_log)

        patch.setattr(snapshot, "_read_logs", seal_first)
        rows = rows_of(shmlog.load(folder.dir))
    assert not folder.layout.logs(), "it was sealed meanwhile"
    assert rows == expected_rows(folder), "I6: from its part, though the books had told of a log"


def test_a_listing_that_lacks_what_was_being_merged_is_taken_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that appears and those that go during a listing may all be missing in it."""
    folder.seal(1)
    parts_of, empty = RunLayout.parts, [True]

    def listed(layout: RunLayout, **which: Any) -> list[Part]:
        return [] if empty and empty.pop() else parts_of(layout, **which)

    monkeypatch.setattr(RunLayout, "parts", listed)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert rows_of(shmlog.load(folder.dir)) == expected_rows(folder), "I4: nothing is missing"
    assert not told
    assert not empty


def test_a_log_stays_until_its_part_is_there(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    sealer = folder.open_sealer()
    with monkeypatch.context() as patch:
        patch.setattr(parts, "write_part", fail)
        with pytest.raises(OSError, match="No space"):
            sealer.catch_up(1, wait=True)
        assert folder.layout.logs() == [0], "I6: it is not sealed"
        with pytest.raises(OSError, match="No space"):  # of the part that was begun anew
            sealer.catch_up(1, wait=True)
    sealer.catch_up(1, wait=True)
    sealer.close()
    assert not folder.layout.logs()
    assert_whole(folder.dir, folder)


def test_events_of_the_next_log_are_not_sealed_with_this_one(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    write_part = parts.write_part

    def write_late(*arguments: Any, **options: Any) -> None:
        time.sleep(0.3)  # until the next log is read
        write_part(*arguments, **options)

    monkeypatch.setattr(parts, "write_part", write_late)
    log = simple_log().next()
    fill(log)
    folder.add(log)
    sealer = folder.open_sealer()
    sealer.catch_up(1, wait=True)
    sealer.close()
    sealed = sealer.ledger.extents["events.jsonl"]
    assert sealed.bytes < folder.layout.events.stat().st_size, "I6: they will be written again"
    assert_whole(folder.dir, folder)


def test_nothing_is_sealed_by_damaged_books(folder: Folder) -> None:
    folder.seal(1)
    books = folder.layout.sealed_json
    data = books.read_bytes()
    books.write_bytes(data.replace(b'"next_log": 1', b'"next_log": 0'))
    assert books.read_bytes() != data
    with pytest.raises(CorruptDataError, match="checksum"):
        folder.open_sealer()


# ---- choosing ----


def test_metrics_are_ordered_by_step_then_time_then_producer(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run" / "one")
    log = Log()
    for number in (1, 0):
        log.lane(number).owner(OWNER)
        for step, ts in ((3, 5000), (1, 9000), (1, 4000), (-2, 1000), (1, 4000)):
            log.lane(number).metric("x", float(number), step, ts)
    log.frame()
    folder.add(log)
    table = shmlog.load(folder.dir).metrics()
    assert table.schema.equals(RECORDS)
    order = list(zip(*(table[name].to_pylist() for name in ("step", "ts", "lane", "seq")), strict=True))
    assert order == sorted(order)
    assert [step for step, *_ in order] == [-2, -2, 1, 1, 1, 1, 1, 1, 3, 3]


@pytest.mark.parametrize("sealed", [False, True])
def test_names_are_exact_or_lists_or_patterns(tmp_path: Path, sealed: bool) -> None:
    folder = Folder(tmp_path / "run" / "one")
    log = Log()
    log.lane(0).owner(OWNER)
    for name in ("a", "ab", "abc", "x[0]", "x0", "A"):
        log.lane(0).metric(name, 1.0, 0, 0)
    log.frame()
    folder.add(log)
    if sealed:
        folder.complete()
    stored = shmlog.load(folder.dir)

    def names(wanted: Any) -> list[str]:
        return sorted(stored.metrics(wanted)["name"].to_pylist())

    assert names("a") == ["a"]
    assert names("a*") == ["a", "ab", "abc"], "case counts"
    assert names("a?") == ["ab"]
    assert names("[aA]") == ["A", "a"]
    assert names("x[0]") == ["x[0]"], "a name that is there is no pattern"
    assert names(["a", "x0", "nobody"]) == ["a", "x0"]
    assert names(("a*",)) == [], "in a list all are exact"
    assert names("nobody") == []
    assert names("nobody*") == []
    assert names([]) == []
    assert stored.metrics("nobody").schema.equals(RECORDS)
    assert stored.names() == ["A", "a", "ab", "abc", "x0", "x[0]"]


def test_events_by_type_and_in_order(folder: Folder) -> None:
    for stored in (shmlog.load(folder.dir), sealed(folder)):
        assert [event["event_type"] for event in stored.events()] == ["checked", "gap"]
        (event,) = stored.events("checked")
        assert event["data"] == {"a": [1, None, "ü"]}
        assert (event["pid"], event["rank"], event["local_rank"], event["worker"]) == (41, 3, 1, None)
        assert stored.events("nobody") == []


def sealed(folder: Folder) -> StoredRun:
    folder.complete()
    return shmlog.load(folder.dir)


def test_metrics_lines_are_metrics_and_events_of_that_type_are_events(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run" / "one", ("jsonl",))
    log = Log()
    log.lane(0).owner(OWNER)
    log.lane(0).row({"loss": 0.5, "n": 1}, 3, 0)
    log.lane(0).event("metrics", {"mine": True}, 0)
    log.frame()
    folder.add(log)
    for stored in (shmlog.load(folder.dir), sealed(folder)):
        assert [event["data"] for event in stored.events()] == [{"mine": True}]
        assert len(stored.events("metrics")) == 2
        assert stored.counts == {"metrics": 2, "events": 1, "dropped": 0}
        assert stored.metrics().num_rows == 2


# ---- status ----


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("pending", "SCHEDULED", "queued"), "pending"),
        (("running", "RUNNING", "in-progress"), "running"),
        (("success", "finished", "FINISHED", "completed", "COMPLETED"), "success"),
        (("failed", "FAILED", "error"), "failed"),
        (("cancelled", "interrupted", "INTERRUPTED", "killed", "KILLED", "canceled"), "cancelled"),
        (("crashed", "DIED"), "crashed"),
        (("", "nonsense", None, 3, ["running"]), None),
    ],
)
def test_the_words_of_other_systems_are_mapped(words: tuple[object, ...], status: str | None) -> None:
    assert {map_status(word) for word in words} == {status}


@pytest.mark.parametrize("status", ["running", "pending", "nonsense"])
def test_a_complete_run_that_nobody_finished_has_crashed(folder: Folder, status: str) -> None:
    folder.complete()
    folder.describe(status=status)
    stored = shmlog.load(folder.dir)
    assert (stored.status, stored.live, stored.unrecovered) == ("crashed", False, False)


def test_a_run_of_another_machine_is_running_as_far_as_can_be_told(folder: Folder) -> None:
    stored = shmlog.load(folder.dir)
    assert (stored.status, stored.live, stored.unrecovered) == ("running", None, False)
    assert repr(stored) == f"<shmlog.StoredRun digits/one running at {str(folder.dir)!r}>"


def test_age_is_the_time_since_the_last_write(folder: Folder) -> None:
    for path in (folder.layout.run_yaml, folder.layout.log(0)):
        os.utime(path, (0, time.time() - 100))
    assert 99 < shmlog.load(folder.dir).age < 160


# ---- what is not there ----


def test_no_run_is_a_clear_error(tmp_path: Path, folder: Folder) -> None:
    with pytest.raises(RunNotFoundError, match="nowhere: there is no such folder"):
        shmlog.load(tmp_path / "nowhere")
    with pytest.raises(RunNotFoundError, match=r"1 below it; pass the folder of one, such as .*digits.one"):
        shmlog.load(tmp_path)
    with pytest.raises(RunNotFoundError, match=r"it has no run\.yaml"):
        shmlog.load(folder.layout.wal)
    stored = shmlog.load(folder.dir)
    folder.layout.run_yaml.unlink()
    for call in (stored.metrics, stored.names, stored.events, lambda: stored.status, lambda: stored.counts):
        with pytest.raises(RunNotFoundError, match=r"run\.yaml is gone"):
            call()  # type: ignore[operator]


def test_an_empty_run_is_read(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "run" / "one")
    folder.layout.wal.rmdir()
    stored = assert_whole(folder.dir, folder)
    assert (stored.config, stored.artifacts, stored.producers) == ({}, [], [])


def test_reading_changes_nothing(folder: Folder) -> None:
    def state() -> dict[str, tuple[bytes, int]]:
        files = [path for path in folder.dir.rglob("*") if path.is_file()]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = state()
    assert_whole(folder.dir, folder)
    verify(folder.dir)
    assert state() == before


def test_artifacts_are_paths_below_their_folder(folder: Folder) -> None:
    (folder.layout.artifacts / "deep").mkdir(parents=True)
    (folder.layout.artifacts / "deep" / "model.bin").write_bytes(b"")
    assert [artifact.name for artifact in shmlog.load(folder.dir).artifacts] == ["deep/model.bin"]


# ---- damage ----

BAD_FILES = [b"", b"}{", b"\0" * 100, b"\xff\xfe", b"[" * 100_000, b"2001-99-99", b"[]", b"run_id: &a [*a]"]


@pytest.mark.parametrize("data", BAD_FILES, ids=lambda data: repr(data[:12]))
@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("sinks", SINKS, ids="+".join)
def test_a_damaged_run_yaml_costs_only_what_it_alone_says(
    tmp_path: Path, data: bytes, complete: bool, sinks: tuple[str, ...]
) -> None:
    folder = Folder(tmp_path / "run" / "one", sinks)
    log = simple_log()
    log.lane(0).event("experiment_end", {"status": "failed"}, 99)
    log.frame(now=99)
    folder.add(log)
    if complete:
        folder.complete()
    folder.layout.run_yaml.write_bytes(data)
    with pytest.warns(ShmlogWarning, match=r"run\.yaml"):
        stored = assert_whole(folder.dir, folder)
    with pytest.warns(ShmlogWarning, match=r"run\.yaml"):
        assert (stored.id, stored.experiment, stored.status) == ("one", "run", "failed")


@pytest.mark.parametrize("data", [*BAD_FILES, b"{}", b'{"next_log": -1, "events_bytes": 0}'], ids=repr)
@pytest.mark.parametrize("sinks", SINKS, ids="+".join)
def test_without_books_what_is_met_twice_is_read_once(tmp_path: Path, data: bytes, sinks: tuple[str, ...]) -> None:
    folder = Folder(tmp_path / "run" / "one", sinks)
    log = simple_log()
    folder.add(log)
    copy = log.of_run("one")
    folder.seal(1)
    log = log.next()
    fill(log)
    folder.add(log)
    folder.layout.log(0).write_bytes(copy)  # as if killed before it was deleted
    folder.layout.sealed_json.write_bytes(data)
    with pytest.warns(ShmlogWarning, match=r"sealed\.json"):
        assert_whole(folder.dir, folder)


def test_a_damaged_part_hides_no_other(folder: Folder) -> None:
    folder.seal(1)
    log = simple_log().next()
    fill(log, 7)
    folder.add(log)
    folder.complete()
    path = folder.layout.part(0)
    path.write_bytes(path.read_bytes()[:-20])
    stored = shmlog.load(folder.dir)
    with pytest.warns(ShmlogWarning, match=r"part-000000\.parquet: damaged .*; its records are left out"):
        assert stored.metrics().num_rows == len(log.records)
    with pytest.warns(ShmlogWarning, match=r"part-000000\.parquet"):
        assert "loss" in stored.names()


def test_a_pipe_in_the_place_of_a_part_holds_nobody_up(folder: Folder) -> None:
    folder.seal(1)
    folder.complete()
    path = folder.layout.part(0)
    path.unlink()
    os.mkfifo(path)
    with pytest.warns(ShmlogWarning, match="not a regular file"):
        assert shmlog.load(folder.dir).metrics().num_rows == 0


@pytest.fixture
def parted(tmp_path: Path) -> Folder:
    """A run at work, with four parts."""
    folder = Folder(tmp_path / "digits" / "parted")
    log = simple_log()
    folder.add(log)
    for _ in range(3):
        log = log.next()
        fill(log)
        folder.add(log)
    folder.seal(4)
    assert len(folder.layout.parts()) == 4
    return folder


@pytest.mark.parametrize("at", [100, -200], ids=["a page", "the footer"])
def test_one_damaged_part_of_several_is_told_and_the_others_are_read(parted: Folder, at: int) -> None:
    path = parted.layout.part(2)
    others = expected_rows(parted) - rows_in(read.read_part(path, None, LOCAL))
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.warns(ShmlogWarning, match=r"part-000002\.parquet: damaged .*; its records are left out") as told:
        assert rows_of(shmlog.load(parted.dir)) == others
    assert len(told) == 1


@pytest.mark.parametrize("kind", ["another run's", "another name's", "damaged"])
def test_parts_that_only_another_runs_or_a_damaged_one_covers_are_read(parted: Folder, kind: str) -> None:
    cover = parted.layout.part(0, 3)
    table = read.read_part(parted.layout.part(0), None, LOCAL)
    run_id = "other" if kind == "another run's" else parted.layout.run_id
    parts.write_part(
        cover, table, run_id=run_id, first=0, last=7 if kind == "another name's" else 3, progress=lambda: None
    )
    if kind == "damaged":
        data = bytearray(cover.read_bytes())
        data[-20] ^= 1
        cover.write_bytes(data)
    stored = shmlog.load(parted.dir)
    with pytest.warns(ShmlogWarning, match=cover.name):
        assert rows_of(stored) == expected_rows(parted)
    with pytest.warns(ShmlogWarning, match=cover.name):
        assert stored.scan().count_rows() == len(expected_rows(parted))
    assert not verify(parted.dir).ok


def test_a_part_of_logs_that_are_not_sealed_covers_none_that_are(parted: Folder) -> None:
    shutil.copy(parted.layout.part(0), parted.layout.part(0, 99))
    assert rows_of(shmlog.load(parted.dir)) == expected_rows(parted)


def test_a_damaged_frame_is_told(folder: Folder) -> None:
    data = bytearray(folder.layout.log(0).read_bytes())
    data[300] ^= 1
    folder.layout.log(0).write_bytes(data)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        shmlog.load(folder.dir).metrics()
    assert any("000000.wal: wrong checksum" in str(warning.message) for warning in told), [str(w.message) for w in told]


def test_lines_that_are_none_are_told(folder: Folder) -> None:
    folder.complete()
    with folder.layout.events.open("ab") as file:
        file.write(b'{"a": NaN}\n{"a": 1e999}\n\0\0\0\n"x"\n' + b'{"torn": ')
    with pytest.warns(ShmlogWarning, match=r"events\.jsonl: 5 lines that are not JSON"):
        assert len(shmlog.load(folder.dir).events()) == 2
