"""Books that are made of what the lanes were offered: whatever loses a record is told, and no log goes that held it."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

import shmlog
from shmlog.cli.main import main
from shmlog.errors import CorruptDataError, StorageError
from shmlog.flusher import closing, sinks
from shmlog.flusher.loop import Keeper
from shmlog.flusher.recover import _recover_files
from shmlog.flusher.sinks import Config, Parts, Sink, Text
from shmlog.folder import runfile
from shmlog.folder.description import Description
from shmlog.folder.large import read_large
from shmlog.folder.layout import RunLayout
from shmlog.reader.verify.verify import verify
from shmlog.records import decode, lines, parts
from shmlog.records.decode import Batch, Decoder
from shmlog.records.ledger import Ledger
from shmlog.records.lines import event_lines
from shmlog.records.values import KINDS
from shmlog.records.wal import Frame, scan
from tests.support.books import assert_books_balance
from tests.support.folders import OWNER, Folder, simple_log
from tests.support.frames import Log
from tests.support.processes import wait_until

RECORDS = 40
EVENTS = 1  # that the run has begun


@pytest.fixture(autouse=True)
def _tries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "RETRY_S", 0.001)


def keeper_of(run: shmlog.Run) -> Keeper:
    """Return what keeps the run, with a first log."""
    keeper = Keeper(RunLayout(run.dir), run._segment, run._ref)  # type: ignore[arg-type]
    assert keeper._drain.next_log() == 0
    return keeper


def log_some(run: shmlog.Run, keeper: Keeper) -> None:
    """Put records into the log, in two frames."""
    for frame in range(2):
        for step in range(RECORDS // 2):
            run.log("x", float(frame), step)
        assert keeper._drain.drain_pass()[0] == 0


def failing(function: Callable[..., Any], error: BaseException, times: int) -> Callable[..., Any]:
    """Return a function that fails some times when it has done its work, and that is then as ever."""
    left = [times]

    def fail(*args: Any, **options: Any) -> Any:
        found = function(*args, **options)
        if left[0]:
            left[0] -= 1
            raise error
        return found

    return fail


ERRORS = [MemoryError(), pa.ArrowMemoryError("no memory"), ValueError("a bug"), OSError(errno.EIO, "I/O error")]


# ---- nothing is lost by an exception ----


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("function", ["decode", "_events"])
def test_a_chunk_whose_decoding_fails_is_decoded_again(
    unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch, error: Exception, function: str
) -> None:
    """Also if the decoder has taken half of it."""
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    monkeypatch.setattr(Decoder, function, failing(getattr(Decoder, function), error, 2))
    keeper.close(patient=False)
    stored = assert_books_balance(unkept_run.dir, offered=RECORDS)
    assert stored.metrics().num_rows == RECORDS
    assert not RunLayout(unkept_run.dir).kept.exists()


@pytest.mark.parametrize("sink", [Parts, Config, Text])
def test_a_chunk_that_was_decoded_and_that_a_sink_did_not_take_stands_once_in_the_end(
    unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch, sink: type[Sink]
) -> None:
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    monkeypatch.setattr(sink, "take", failing(sink.take, MemoryError(), 2))
    keeper.close(patient=False)
    stored = assert_books_balance(unkept_run.dir, offered=RECORDS)
    assert len(stored.events()) == EVENTS


@pytest.mark.parametrize("change", [Path.unlink, lambda path: os.truncate(path, 0)], ids=["removed", "cut"])
def test_what_comes_after_a_text_file_was_taken_away_or_cut_is_there_once(
    unkept_run: shmlog.Run, change: Callable[[Path], None]
) -> None:
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    layout, sealer = keeper._layout, keeper._get_sealer()
    keeper._drain.next_log()
    sealer.catch_up(1, wait=True)
    change(layout.events)
    unkept_run.event("later", {})
    keeper.close(patient=False)
    assert layout.events.exists()
    assert layout.events.read_text().count('"later"') == 1
    assert not verify(layout.dir).ok, "what was taken away is missing"


@pytest.mark.parametrize("left", [0, 10, 1000], ids=["empty", "within a line", "within what is not sealed"])
def test_lines_that_were_cut_off_before_they_were_sealed_are_written_again(unkept_run: shmlog.Run, left: int) -> None:
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    layout, sealer = keeper._layout, keeper._get_sealer()
    keeper._drain.next_log()
    sealer.catch_up(1, wait=True)
    sealed = layout.events.stat().st_size
    names = [f"later {number}" for number in range(50)]
    for name in names:
        unkept_run.event(name, {})
    assert keeper._drain.drain_pass()[0] == 0
    sealer.catch_up(1)
    assert sealed < 1000 < layout.events.stat().st_size, "they are in the file"
    os.truncate(layout.events, left)
    keeper.close(patient=False)
    types = [event["event_type"] for event in _readable(layout.events)]
    assert [event_type for event_type in types if event_type.startswith("later")] == names
    assert verify(layout.dir).ok == (left > sealed), "what was sealed is missing"


def _readable(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def test_a_run_that_can_t_be_decoded_keeps_its_logs(unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    with monkeypatch.context() as patched:
        patched.setattr(Decoder, "decode", failing(Decoder.decode, MemoryError(), -1))
        with pytest.raises(StorageError, match="'shmlog recover' closes it later"):
            keeper.close(patient=False)
    assert shmlog.load(unkept_run.dir).metrics().num_rows == RECORDS
    keeper.close(patient=False)
    assert_books_balance(unkept_run.dir, offered=RECORDS)


def test_a_part_that_lacks_rows_does_not_count(unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_less(path: Path, table: pa.Table, **options: Any) -> None:
        write_part(path, table.slice(1), **options)

    write_part = parts.write_part
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    with monkeypatch.context() as patched:
        patched.setattr(parts, "write_part", write_less)
        with pytest.raises(StorageError, match=f"{RECORDS - 1} rows were written, of {RECORDS} metrics"):
            keeper.close(patient=False)
    keeper.close(patient=False)
    assert_books_balance(unkept_run.dir, offered=RECORDS)


# ---- what is lost all the same is told, and its log is kept ----


def lose_a_chunk(monkeypatch: pytest.MonkeyPatch, log: int) -> None:
    """Have the sealer pass over the frames of one log: a mistake that no check of ours knows of."""

    def forget(decoder: Decoder, frames: list[Frame]) -> Batch:
        return decode_all(decoder, [frame for frame in frames if frame.log != log])

    decode_all = Decoder.decode
    monkeypatch.setattr(Decoder, "decode", forget)


def assert_lost(run_dir: Path, lost: dict[int, int], kept: list[int]) -> shmlog.StoredRun:
    """Assert that the loss is told by all that tell of a run, and that the logs are there."""
    stored = shmlog.load(run_dir)
    assert stored.lost == lost
    assert stored.metadata["lost"] == {str(lane): count for lane, count in lost.items()}
    assert stored.metadata["kept_logs"] == kept
    report = verify(run_dir)
    for lane, count in lost.items():
        assert any(f"lane {lane}: {count} records" in finding.message for finding in report.findings), report
    assert not report.ok
    layout = RunLayout(run_dir)
    assert sorted(path.name for path in layout.kept.iterdir()) == [layout.log(number).name for number in kept]
    assert not layout.wal.exists()
    return stored


@pytest.mark.parametrize("log", [0, 1, 2], ids=["first", "middle", "last"])
def test_a_loss_that_no_check_sees_is_counted_and_its_log_kept(
    unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], log: int
) -> None:
    keeper = keeper_of(unkept_run)
    for _ in range(3):
        log_some(unkept_run, keeper)
        if keeper._drain.closed_below < 2:
            assert keeper._drain.next_log() == 0
    with monkeypatch.context() as patched:
        lose_a_chunk(patched, log)
        keeper.close(patient=False)
    lost = RECORDS + (EVENTS if log == 0 else 0)
    stored = assert_lost(unkept_run.dir, {0: lost}, [log])
    assert stored.metrics().num_rows == 2 * RECORDS
    layout = RunLayout(unkept_run.dir)
    found = Decoder(layout.dir).decode(frames_of(layout.kept_log(log), log))
    assert found.metrics.num_rows == RECORDS, "the log has what was lost"
    assert main(["show", str(unkept_run.dir)]) == 0
    assert f"{lost} LOST" in capsys.readouterr().out
    assert main(["show", "--json", str(unkept_run.dir)]) == 0
    assert json.loads(capsys.readouterr().out)["lost"] == {"0": lost}
    assert main(["verify", str(unkept_run.dir)]) == 1


def test_a_log_is_kept_also_by_who_comes_after_a_kill(unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The books are committed, and the log lies in its old place."""
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    with monkeypatch.context() as patched:
        lose_a_chunk(patched, 0)
        patched.setattr("shmlog.flusher.sealer.remove_log", failing(lambda *_: None, KeyboardInterrupt(), 1))
        with pytest.raises(KeyboardInterrupt):
            keeper.close(patient=False)
    keeper.close(patient=False)
    assert_lost(unkept_run.dir, {0: RECORDS + EVENTS}, [0])


def test_a_live_run_tells_what_it_has_lost(unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    assert keeper._drain.next_log() == 0
    with monkeypatch.context() as patched:
        lose_a_chunk(patched, 0)
        keeper._get_sealer().catch_up(1, wait=True)
    log_some(unkept_run, keeper)
    stored = shmlog.load(unkept_run.dir)
    assert stored.lost == {0: RECORDS + EVENTS}
    assert stored.metrics().num_rows == RECORDS
    assert not verify(unkept_run.dir).ok
    keeper.close(patient=False)
    assert_lost(unkept_run.dir, {0: RECORDS + EVENTS}, [0])


def test_finish_is_not_true_if_records_are_lost(
    unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    assert unkept_run.stats["lost"] == 0
    lose_a_chunk(monkeypatch, 0)
    ended = threading.Event()
    seen: list[int] = []

    def keep() -> None:
        while not ended.is_set():
            keeper._tick()
            seen.append(unkept_run.stats.get("lost", 0))

    threads = [threading.Thread(target=keeper._drain.run, args=(1 << 30,)), threading.Thread(target=keep)]
    for thread in threads:
        thread.start()
    try:
        assert unkept_run.finish() is False
    finally:
        ended.set()
        keeper._drain.stop()
        for thread in threads:
            thread.join()
    (record,) = (record for record in caplog.records if record.name == "shmlog" and record.levelname == "WARNING")
    assert "'shmlog verify" in record.getMessage()
    assert max(seen) >= RECORDS


def test_the_next_attempt_goes_on_with_the_books_of_a_loss(
    unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has lost nothing itself; its logs have other numbers than the one that was kept, though that left no part."""
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    with monkeypatch.context() as patched:
        lose_a_chunk(patched, 0)
        keeper.close(patient=False)
    monkeypatch.undo()
    run = shmlog.init("unkept", root=unkept_run.dir.parent.parent, resume=unkept_run.id)
    run.log("x", 1.0)
    assert run.finish() is True
    wait_until(lambda: not RunLayout(run.dir).wal.exists(), "the flusher's end")
    stored = assert_lost(run.dir, {0: RECORDS + EVENTS}, [0])
    assert stored.metrics().num_rows == 1


@pytest.mark.parametrize("reboot", [False, True], ids=["crash", "reboot"])
def test_recovery_cuts_no_file_of_which_the_books_are_missing(unkept_run: shmlog.Run, reboot: bool) -> None:
    """Without wal/ nothing tells what of events.jsonl is sealed: all of it is read, and nothing of it is removed."""
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    assert keeper._drain.next_log() == 0
    keeper._get_sealer().catch_up(1, wait=True)
    layout = RunLayout(unkept_run.dir)
    for path in layout.wal.iterdir():
        path.unlink()
    before = layout.events.read_bytes()
    assert before
    with pytest.raises(CorruptDataError, match=r"sealed\.json: is missing"):
        recover_from(unkept_run, reboot=reboot)
    assert layout.events.read_bytes() == before
    with pytest.warns(shmlog.ShmlogWarning, match=r"sealed\.json: is missing"):
        assert shmlog.load(unkept_run.dir).metrics().num_rows == RECORDS
    assert not verify(unkept_run.dir).ok


def test_a_part_of_a_log_that_the_power_has_emptied_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was durable before the books told of it, and its log never was."""
    folder = Folder(tmp_path / "digits" / "one")
    folder.add(simple_log())
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "commit", failing(lambda *_: None, OSError(errno.ENOSPC, "full"), 1))
        with pytest.raises(OSError, match="full"):
            folder.seal(1)
    assert folder.layout.part(0).exists()
    folder.layout.log(0).write_bytes(b"")
    folder.complete()
    stored = shmlog.load(folder.dir)
    assert stored.counts["metrics"] == stored.metrics().num_rows == 0
    assert verify(folder.dir).ok


def test_a_run_of_an_earlier_version_has_lost_nothing_that_is_known(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "digits" / "one")
    log = Log()
    log.lane(0).owner(OWNER)
    log.lane(0).metric("x", 1.0, 0, 0)
    log.frame()
    folder.add(log)
    folder.complete()
    described = runfile.read(folder.layout.run_yaml)
    for name in ("offered", "kept_logs"):
        del described[name]
    runfile.write_sealed(folder.layout.run_yaml, described)
    assert verify(folder.dir).ok
    assert shmlog.load(folder.dir).lost == {}


# ---- logs of other runs ----


@pytest.mark.parametrize("reboot", [False, True], ids=["crash", "reboot"])
@pytest.mark.parametrize("number", [0, 1, 7], ids=["among what is sealed", "behind frames of this run", "alone"])
def test_recovery_takes_nothing_from_the_log_of_another_run_and_keeps_it(
    unkept_run: shmlog.Run, reboot: bool, number: int
) -> None:
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    assert keeper._drain.next_log() == 0
    sealer = keeper._get_sealer()
    sealer.catch_up(1, wait=True)
    sealer.close()
    layout, foreign = RunLayout(unkept_run.dir), simple_log(number).of_run("other")
    with open(layout.log(number), "ab") as file:
        begin = file.tell()
        file.write(foreign)
    held = layout.log(number).read_bytes()
    recover_from(unkept_run, reboot=reboot)
    stored = shmlog.load(unkept_run.dir)
    assert stored.metrics().num_rows == stored.counts["metrics"] == RECORDS
    assert stored.lost == {}
    assert layout.kept_log(number).read_bytes() == held
    report = verify(unkept_run.dir)
    assert [finding.message for finding in report.findings if finding.file.parent == layout.kept] == [
        f"frames of run 'other', {len(foreign)} bytes at byte {begin}"
    ]
    assert not report.ok


def test_the_log_of_another_run_that_is_in_the_way_is_kept(unkept_run: shmlog.Run) -> None:
    """Somebody puts it there while the run goes on, which takes the next number."""
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    layout, foreign = RunLayout(unkept_run.dir), simple_log(1).of_run("other")
    layout.log(1).write_bytes(foreign)
    assert keeper._drain.next_log() == 0
    log_some(unkept_run, keeper)
    keeper.close(patient=False)
    stored = shmlog.load(unkept_run.dir)
    assert (stored.metrics().num_rows, stored.lost) == (2 * RECORDS, {})
    assert layout.kept_log(1).read_bytes() == foreign


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_and_in_the_way_of_the_next_log_is_put_aside(unkept_run: shmlog.Run, kind: str) -> None:
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    layout = RunLayout(unkept_run.dir)
    path = layout.log(1)
    {"pipe": lambda: os.mkfifo(path), "folder": path.mkdir, "link": lambda: path.symlink_to("elsewhere")}[kind]()
    assert keeper._drain.next_log() == 0
    log_some(unkept_run, keeper)
    keeper.close(patient=False)
    stored = shmlog.load(unkept_run.dir)
    assert (stored.metrics().num_rows, stored.lost, stored.metadata["complete"]) == (2 * RECORDS, {}, True)
    assert os.path.lexists(layout.kept_log(1))


def test_a_log_that_is_kept_replaces_no_other(unkept_run: shmlog.Run) -> None:
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    layout, foreign = RunLayout(unkept_run.dir), simple_log(0).of_run("other")
    layout.kept.mkdir()
    earlier = [layout.kept_log(0), layout.kept_log(0, 1)]
    for path in earlier:
        path.write_bytes(foreign[:-1])
    with open(layout.log(0), "ab") as file:
        file.write(foreign)
    held = layout.log(0).read_bytes()
    keeper.close(patient=False)
    assert [path.read_bytes() for path in earlier] == [foreign[:-1]] * 2
    assert layout.kept_log(0, 2).read_bytes() == held
    told = {finding.file for finding in verify(layout.dir).findings if finding.file.parent == layout.kept}
    assert told == {*earlier, layout.kept_log(0, 2)}


def test_what_the_log_of_another_run_has_replaced_is_lost_and_told(unkept_run: shmlog.Run) -> None:
    keeper = keeper_of(unkept_run)
    log_some(unkept_run, keeper)
    assert keeper._drain.next_log() == 0
    layout = RunLayout(unkept_run.dir)
    layout.log(0).write_bytes(simple_log(0).of_run("other"))
    recover_from(unkept_run, reboot=False)
    assert_lost(unkept_run.dir, {0: RECORDS + EVENTS}, [0])


def test_a_log_of_an_earlier_version_is_left_to_that(unkept_run: shmlog.Run) -> None:
    layout = RunLayout(unkept_run.dir)
    data = simple_log(0).of_run(unkept_run.id).replace(b"SLF2", b"SLF1")
    layout.log(0).write_bytes(data)
    with pytest.raises(
        CorruptDataError, match="earlier version of shmlog, and only that version can read it: recover the run"
    ):
        recover_from(unkept_run, reboot=True)
    assert layout.log(0).read_bytes() == data


# ---- damaged frames ----


def flip(path: Path, offset: int) -> None:
    """Flip a bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def frames_of(path: Path, log: int) -> list[Frame]:
    return [found for found in scan(path.read_bytes(), path=path, log=log, run_id=None) if isinstance(found, Frame)]


def log_frames(run: shmlog.Run, keeper: Keeper, count: int) -> None:
    """Put frames into the log, each with a record of a new name and one of the name before."""
    for number in range(count):
        run.log(f"name{number}", float(number), number)
        run.log(f"name{max(0, number - 1)}", float(number), number)
        assert keeper._drain.drain_pass()[0] == 0


def recover_from(run: shmlog.Run, *, reboot: bool) -> None:
    """Recover a run as after a crash, or as after a reboot that has left its files alone."""
    layout = RunLayout(run.dir)
    if reboot:
        _recover_files(layout, Description.read(layout), None, "", force=True)
    else:
        Keeper(layout, run._segment, run._ref).close(patient=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("damaged", [0, 1, 3, 7])
@pytest.mark.parametrize("reboot", [False, True], ids=["crash", "reboot"])
def test_a_damaged_frame_of_an_open_log_costs_itself_alone(unkept_run: shmlog.Run, damaged: int, reboot: bool) -> None:
    """Names and owners stand twice; what is lost is counted by lane, and its log kept."""
    keeper = keeper_of(unkept_run)  # its first frame tells that the run has begun
    log_frames(unkept_run, keeper, 8)
    layout = RunLayout(unkept_run.dir)
    frame = frames_of(layout.log(0), 0)[damaged]
    flip(layout.log(0), frame.offset + frame.length // 2)
    recover_from(unkept_run, reboot=reboot)
    stored = assert_lost(layout.dir, {0: 2 if damaged else EVENTS}, [0])
    assert stored.metrics().num_rows == (14 if damaged else 16)
    assert stored.names() == [f"name{number}" for number in range(8)]
    assert stored.metrics()["pid"].unique().to_pylist() == [stored.metadata["pid"]]


def test_a_damaged_end_of_the_log_is_counted_by_who_has_the_segment(unkept_run: shmlog.Run) -> None:
    """Though what it held is overwritten there, and what comes behind it has numbers without a hole."""
    keeper = keeper_of(unkept_run)
    log_frames(unkept_run, keeper, 4)
    layout = RunLayout(unkept_run.dir)
    for frame in frames_of(layout.log(0), 0)[-2:]:
        flip(layout.log(0), frame.offset + frame.length // 2)
    unkept_run.log("behind", 1.0)
    recover_from(unkept_run, reboot=False)
    stored = assert_lost(layout.dir, {0: 4}, [0])
    assert stored.names() == ["behind", "name0", "name1"]


def test_a_lane_of_which_the_open_log_tells_nothing_goes_on_from_the_books(unkept_run: shmlog.Run) -> None:
    """The log before is sealed and gone, and the frame that repeats what it held is damaged."""
    keeper = keeper_of(unkept_run)
    log_frames(unkept_run, keeper, 3)
    assert keeper._drain.next_log() == 0
    keeper._get_sealer().catch_up(1, wait=True)
    keeper._discard_sealer()
    layout = RunLayout(unkept_run.dir)
    flip(layout.log(1), 40)
    unkept_run.log("behind", 1.0)
    recover_from(unkept_run, reboot=False)
    stored = shmlog.load(layout.dir)
    assert (stored.lost, stored.dropped) == ({}, {})
    assert stored.names() == ["behind", "name0", "name1", "name2"]


# ---- large texts ----


def log_large(run: shmlog.Run, keeper: Keeper, texts: list[str]) -> None:
    """Log texts that are too large for the ring."""
    for step, text in enumerate(texts):
        run.log("text", text, step)
    assert keeper._drain.drain_pass()[0] == 0
    assert len(list((run.dir / "large").iterdir())) == len(texts)


def text_of(number: int, run: shmlog.Run) -> str:
    """Return a text that does not fit the ring."""
    return f"text {number} " * (run._segment.lane_slots * 8 // 7 + 1)


PLACES = [
    pytest.param(module, function, id=f"{module.__name__.split('.')[-1]}.{function}")
    for module, function in [(decode, "read_large"), (decode, "large_size"), (sinks, "read_large")]
]


@pytest.mark.parametrize(("module", "function"), PLACES)
@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EMFILE], ids=errno.errorcode.get)
def test_a_large_text_that_can_t_be_read_now_is_read_later(
    unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str, code: int
) -> None:
    keeper = keeper_of(unkept_run)
    text = text_of(0, unkept_run)
    log_large(unkept_run, keeper, [text])
    monkeypatch.setattr(module, function, failing(getattr(module, function), OSError(code, "error"), 2))
    keeper.close(patient=False)
    stored = assert_books_balance(unkept_run.dir, offered=1)
    assert stored.metrics("text")["text"].to_pylist() == [text]


def test_a_large_text_whose_file_is_gone_is_lost_and_told(unkept_run: shmlog.Run) -> None:
    keeper = keeper_of(unkept_run)
    texts = [text_of(number, unkept_run) for number in range(3)]
    log_large(unkept_run, keeper, texts)
    for path in (unkept_run.dir / "large").iterdir():
        if path.read_text() == texts[1]:
            path.unlink()
    keeper.close(patient=False)
    stored = assert_lost(unkept_run.dir, {0: 1}, [0])
    assert stored.metrics("text")["text"].to_pylist() == [texts[0], texts[2]]


def test_a_large_text_that_goes_before_it_is_written_is_lost_and_told(
    unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there when its log was decoded."""
    keeper = keeper_of(unkept_run)
    texts = [text_of(number, unkept_run) for number in range(2)]
    log_large(unkept_run, keeper, texts)

    def read_what_goes(run_dir: Path, path: str) -> bytes:
        if (run_dir / path).read_text() == texts[0]:
            (run_dir / path).unlink()
        return read_large(run_dir, path)

    monkeypatch.setattr(sinks, "read_large", read_what_goes)
    with suppress(StorageError):
        keeper.close(patient=False)
    assert shmlog.load(unkept_run.dir).metadata["complete"], "the run is never closed"
    stored = assert_lost(unkept_run.dir, {0: 1}, [0])
    assert stored.metrics("text")["text"].to_pylist() == [texts[1]]


def test_not_all_large_texts_of_a_log_are_in_memory_at_a_time(
    unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together they may be more than an array can hold: in a part those of a row group are, in lines those of a few."""
    texts = [text_of(number, unkept_run) for number in range(5)]
    for module in (parts, lines):
        monkeypatch.setattr(module, "GROUP_TEXT_BYTES", 2 * len(texts[0]))
    keeper = keeper_of(unkept_run)
    unkept_run.log({"value": 1.5, "text": "short"}, step=9)
    log_large(unkept_run, keeper, texts)
    layout = RunLayout(unkept_run.dir)
    frames = frames_of(layout.log(0), 0)
    batch = Decoder(layout.dir, takes_all=True).decode(frames)
    assert batch.metrics["text"].nbytes < len(texts[0])

    pieces = list(event_lines(batch, metrics=True, read_large=partial(read_large, layout.dir)))
    assert max(map(len, pieces)) < 3 * len(texts[0])
    whole = Decoder(layout.dir).decode(frames)
    assert b"".join(pieces) == b"".join(event_lines(whole, metrics=True))

    keeper.close(patient=False)
    stored = assert_books_balance(layout.dir, offered=7)
    assert stored.metrics("text")["text"].to_pylist() == [*texts, "short"]
    with parts.open_file(layout.parts()[0].path) as file:
        assert [file.metadata.row_group(group).num_rows for group in file.groups] == [2, 2, 3]
        kinds = {kind for group in file.groups for kind in file.read([group])["kind"].chunk(0).dictionary.to_pylist()}
    assert kinds <= set(KINDS)


def test_the_flusher_leaves_no_text_out_however_large_all_are_together(
    unkept_run: shmlog.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader does: the run may be a stranger's."""
    keeper = keeper_of(unkept_run)
    texts = [text_of(number, unkept_run) for number in range(4)]
    log_large(unkept_run, keeper, texts)
    monkeypatch.setattr(decode, "_LARGE_BYTES_MAX", 2 * len(texts[0]))
    with pytest.warns(shmlog.errors.ShmlogWarning, match="a text that can't be read"):
        assert shmlog.load(unkept_run.dir).metrics("text").num_rows == 2
    keeper.close(patient=False)
    stored = assert_books_balance(unkept_run.dir, offered=4)
    assert stored.metrics("text")["text"].to_pylist() == texts
