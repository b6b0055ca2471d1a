"""Books of a run with very many short-lived producers: old ones are folded, and no sum changes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.cli.main import main
from shmlog.flusher.recover import _recover_files
from shmlog.folder import runfile
from shmlog.folder.description import Description
from shmlog.folder.files import BYTES_MAX
from shmlog.reader.verify.verify import verify
from shmlog.records import parts, producers
from shmlog.records.decode import Decoder
from shmlog.records.ledger import Ledger
from shmlog.records.producers import is_folded
from shmlog.records.schema import METRICS
from shmlog.records.wal import Frame, scan
from tests.support.folders import OWNER, Folder, seal_one_by_one
from tests.support.frames import Log
from tests.support.processes import wait_until
from tests.support.readings import SINKS, assert_whole

FEW = 8
LOGS = 4
TENANCIES = 5  # of each of two lanes, in each log
PIDS = 14  # fewer than tenancies: some come again


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the books list few producers."""
    monkeypatch.setattr(producers, "LISTED_MAX", FEW)


def add_crowd(folder: Folder, log: Log, seed: int = 0) -> Log:
    """Add a log of producers that live for a moment; return the next one."""
    for number in range(TENANCIES):
        for lane in (log.lane(0), log.lane(1)):
            serial = seed + log.number * TENANCIES + number
            pid = 100 + (3 * serial + 7 * lane.number) % PIDS
            lane.owner({**OWNER, "pid": pid, "rank": lane.number, "process": f"worker-{serial}"})
            for step in range(serial % 4):
                lane.metric("loss", step / 4, step, step)
            lane.event("worked", {"serial": serial}, serial)
            lane.gap([lane.gapped[0] + serial % 3, 0, lane.gapped[2] + 1, 0, 0, 0], serial)
        log.frame(now=log.number + number)
    folder.add(log)
    return log.next()


def crowded(path: Path, sinks: tuple[str, ...] = ("parquet",), logs: int = LOGS) -> tuple[Folder, Log]:
    """Return a run with unsealed logs of such producers, and the next log."""
    folder, log = Folder(path / "runs" / "digits" / "one", sinks), Log()
    for _ in range(logs):
        log = add_crowd(folder, log)
    return folder, log


def sums_of(listed: list[dict[str, Any]]) -> dict[int, Counter[str]]:
    """Return all counts by lane."""
    sums: dict[int, Counter[str]] = {}
    for producer in listed:
        counts = {what: producer[what] for what in ("metrics", "events")}
        tenancies = {"tenancies": producer.get("tenancies", 1)}
        sums.setdefault(producer["lane"], Counter()).update({**counts, **producer["dropped"], **tenancies})
    return sums


CALLS = st.lists(
    st.tuples(
        st.integers(0, 3),  # lane
        st.integers(0, 2),  # tenancies that begin
        st.integers(0, 5), st.integers(0, 5),  # metrics, events
        st.dictionaries(st.sampled_from(["full", "large"]), st.integers(1, 5)),
        st.booleans(),  # whether the books are committed here
    ),
    max_size=80,
)  # fmt: skip


@given(calls=CALLS, most=st.integers(1, 30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_folding_changes_no_sum(monkeypatch: pytest.MonkeyPatch, calls: list[Any], most: int) -> None:
    whole, folded = Ledger(None), Ledger(None)
    offered: Counter[int] = Counter()
    tenancies: Counter[int] = Counter()
    monkeypatch.setattr(producers, "LISTED_MAX", most)
    for lane, more, metrics, events, dropped, is_committed in calls:
        tenancies[lane] += more or not tenancies[lane]
        offered[lane] += metrics + events + sum(dropped.values()) + 1  # one is lost
        for ledger in (whole, folded):
            ledger.add_owner(lane, tenancies[lane], {**OWNER, "pid": tenancies[lane]})
            ledger.add_counts(lane, tenancies[lane], metrics, events, dropped)
            ledger.account_for(0, offered)
        if is_committed:
            folded = Ledger.of(json.loads(json.dumps(folded.producers())), {})
            folded.account_for(0, offered)
    listed = folded.producers()
    assert len(listed) <= max(most, 2 * len(tenancies))
    assert folded.producers() == listed
    assert (folded.counts(), folded.dropped(), folded.lost()) == (whole.counts(), whole.dropped(), whole.lost())
    assert [folded.end_of(lane) for lane in range(4)] == [whole.end_of(lane) for lane in range(4)]
    monkeypatch.setattr(producers, "LISTED_MAX", 1000)
    assert sums_of(listed) == sums_of(whole.producers())
    in_full = {(p["lane"], p["tenancy"]): p for p in whole.producers()}
    assert all(in_full[p["lane"], p["tenancy"]] == p for p in listed if not is_folded(p))
    latest = {p["lane"]: p["tenancy"] for p in listed if not is_folded(p)}
    assert latest == {lane: tenancies[lane] for lane in latest}, "the latest of a lane is never folded"


def test_a_folded_entry_has_what_its_producers_have_in_common(few: None) -> None:
    ledger = Ledger(None)
    for tenancy in range(1, 20):
        ledger.add_owner(0, tenancy, {**OWNER, "pid": tenancy, "process": f"worker-{tenancy}"})
        ledger.add_counts(0, tenancy, 2, 1, {"full": 3} if tenancy == 2 else {})
    first, *others = ledger.producers()
    common = {key: OWNER[key] for key in ("rank", "local_rank", "worker", "host")}
    assert first == {
        "lane": 0, "tenancy": 12, "tenancies": 12, "pid": None, "process": None, "metrics": 24, "events": 12,
        "dropped": {"full": 3}, "started_at": "1970-01-01T00:00:00.000000Z", **common,
    }  # fmt: skip
    assert [producer["tenancy"] for producer in others] == list(range(13, 20))
    ledger.add_owner(0, 5, {**OWNER, "pid": 5})
    ledger.add_counts(0, 5, 1, 0, {})
    assert ledger.producers() == [{**first, "metrics": 25}, *others], "a late record of it is counted there"


def test_the_books_of_a_run_whose_lanes_all_had_very_many_producers_stay_small() -> None:
    ledger = Ledger(None)
    lanes, tenancies = 256, 80
    for lane in range(lanes):
        for tenancy in range(1, tenancies + 1):
            ledger.add_owner(lane, tenancy, {**OWNER, "pid": 4_000_000 + tenancy, "process": "SpawnProcess-12345"})
            ledger.add_counts(lane, tenancy, 10**9, 10**6, {"full": 10**6})
    listed = ledger.producers()
    assert len(listed) == producers.LISTED_MAX < lanes * tenancies
    assert len(runfile.render(listed)) < BYTES_MAX // 8
    assert ledger.counts()["metrics"] == lanes * tenancies * 10**9


def test_as_many_producers_as_may_be_listed_are_not_folded(few: None) -> None:
    ledger = Ledger(None)
    for tenancy in range(FEW):
        ledger.add_owner(0, tenancy + 1, {**OWNER, "pid": tenancy})
    assert [producer["pid"] for producer in ledger.producers()] == list(range(FEW))


def test_a_decoder_keeps_the_owners_of_present_tenancies_alone(tmp_path: Path) -> None:
    """A flusher would else grow with each worker."""
    folder, _ = crowded(tmp_path)
    decoder = Decoder(folder.dir)
    for number in range(LOGS):
        path = folder.layout.log(number)
        frames = scan(path.read_bytes(), path=path, log=number, run_id="one")
        decoder.decode([frame for frame in frames if isinstance(frame, Frame)])
    assert decoder._owners == {(lane, LOGS * TENANCIES): decoder.cursors[lane].owner_json for lane in (0, 1)}


# ---- run folders ----


@pytest.mark.parametrize("sinks", SINKS, ids="+".join)
def test_a_run_with_folded_books_is_read_and_verified(tmp_path: Path, few: None, sinks: tuple[str, ...]) -> None:
    """Live, half sealed, and complete; a process that is listed has had the lane before, too."""
    folder, _ = crowded(tmp_path, sinks)
    folder.seal(LOGS - 1)
    assert len(runfile.read(folder.layout.sealed_json)["producers"]) <= FEW
    live = assert_whole(folder.dir, folder)
    assert verify(folder.dir).findings == []
    folder.complete()
    stored = assert_whole(folder.dir, folder)
    assert verify(folder.dir).findings == []
    assert stored.producers == live.producers
    assert [is_folded(producer) for producer in stored.producers] == [True, *[False] * 3] * 2
    assert stored.lost == {}
    listed = {(p["lane"], p["pid"]): p["metrics"] for p in stored.producers if not is_folded(p)}
    rows = Counter((row["lane"], row["pid"]) for row in stored.metrics().to_pylist())
    assert any(rows[producer] > count for producer, count in listed.items()), "a listed one is among the folded, too"


@pytest.mark.parametrize("what", ["metrics", "events", "dropped"])
@pytest.mark.parametrize("is_listed", [False, True], ids=["folded", "listed"])
@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_wrong_count_is_found_in_a_lane_that_is_folded(
    tmp_path: Path, few: None, what: str, is_listed: bool, wrong: int
) -> None:
    folder, _ = crowded(tmp_path)
    folder.complete()
    producer = next(p for p in folder.described["producers"] if p["lane"] == 1 and is_folded(p) != is_listed)
    if what == "dropped":
        producer["dropped"]["large"] += wrong
    else:
        producer[what] += wrong
    folder.describe()
    messages = [finding.message for finding in verify(folder.dir).findings]
    what = "drops (large)" if what == "dropped" else what
    assert any(message.startswith("lane 1, ") and f"{what} are booked" in message for message in messages)
    assert not any(message.startswith("lane 0, ") for message in messages)


def test_counts_that_are_moved_from_one_entry_to_the_other_are_found(tmp_path: Path, few: None) -> None:
    folder, _ = crowded(tmp_path, logs=2)  # no pid comes again
    folder.complete()
    folded, *listed = (p for p in folder.described["producers"] if p["lane"] == 0)
    folded["events"] -= 1
    listed[0]["events"] += 1
    folder.describe()
    pid, events = listed[0]["pid"], listed[0]["events"]
    messages = [finding.message for finding in verify(folder.dir).findings]
    assert f"lane 0, pid {pid}: {events} events are booked, the files hold {events - 1}" in messages


def test_a_row_of_a_folded_producer_that_is_gone_is_missed(tmp_path: Path, few: None) -> None:
    folder, _ = crowded(tmp_path)
    folder.complete()
    path = folder.layout.part(0)
    *rows, _ = (row for row in parts.read_part(path).to_pylist())
    path.unlink()
    parts.write_part(path, pa.Table.from_pylist(rows, METRICS), run_id="one", first=0, last=0, progress=lambda: None)
    messages = [finding.message for finding in verify(folder.dir).findings]
    assert any("all that are not listed one by one: " in message and "metrics" in message for message in messages)


def test_producers_of_one_process_are_folded_and_compared_with_its_records(tmp_path: Path, few: None) -> None:
    folder, log = Folder(tmp_path / "runs" / "digits" / "one"), Log()
    for step in range(2 * FEW):
        log.lane(0).owner(OWNER)
        log.lane(0).metric("loss", 0.5, step, step)
    log.frame()
    folder.add(log)
    folder.complete()
    first = folder.described["producers"][0]
    assert (first["pid"], first["tenancies"]) == (OWNER["pid"], FEW + 1)
    assert verify(folder.dir).findings == []
    first["metrics"] += 1
    folder.describe()
    messages = [finding.message for finding in verify(folder.dir).findings]
    assert f"lane 0, pid {OWNER['pid']}: {2 * FEW + 1} metrics are booked, the files hold {2 * FEW}" in messages


@pytest.mark.parametrize("wrong", [-1, "many", None])
def test_an_entry_that_does_not_say_of_how_many_it_is_is_damage(tmp_path: Path, few: None, wrong: object) -> None:
    folder, _ = crowded(tmp_path)
    folder.complete()
    folder.described["producers"][0]["tenancies"] = wrong
    folder.describe()
    assert "its list of producers is damaged" in [finding.message for finding in verify(folder.dir).findings]
    with pytest.raises(shmlog.errors.CorruptDataError, match="does not say what the run holds"):
        shmlog.init(resume=folder.dir)


def test_books_that_an_earlier_version_did_not_fold_go_on_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = crowded(tmp_path)
    folder.seal(LOGS - 1)
    assert len(runfile.read(folder.layout.sealed_json)["producers"]) > FEW
    monkeypatch.setattr(producers, "LISTED_MAX", FEW)
    _recover_files(folder.layout, Description.read(folder.layout), None, "")
    stored = assert_whole(folder.dir, folder)
    (finding,) = verify(folder.dir).findings
    assert "memory was gone" in finding.message
    assert len(stored.producers) == FEW
    assert sum(producer.get("tenancies", 1) for producer in stored.producers) == 2 * LOGS * TENANCIES


def test_a_sealer_that_begins_anew_goes_on_with_folded_books(tmp_path: Path, few: None) -> None:
    folder, log = crowded(tmp_path)
    for number in range(LOGS):
        sealer = folder.open_sealer()
        seal_one_by_one(sealer, number + 1)
        sealer.close()
    add_crowd(folder, log)
    folder.complete()
    assert_whole(folder.dir, folder)
    assert verify(folder.dir).findings == []


def test_a_run_with_folded_books_is_resumed(tmp_path: Path, few: None) -> None:
    folder, _ = crowded(tmp_path)
    folder.complete()
    before = folder.described["producers"]
    with shmlog.init(resume=folder.dir) as run:
        run.log("loss", 1.0, step=100)
    wait_until(lambda: shmlog.load(folder.dir).described.complete is True, "the resumed run is complete")
    stored = shmlog.load(folder.dir)
    assert stored.producers[:-1] == before
    assert stored.producers[-1]["lane"] == 2
    assert verify(folder.dir).findings == []


# ---- what counts the records again ----


def test_books_that_are_counted_again_are_folded(tmp_path: Path, few: None) -> None:
    folder, _ = crowded(tmp_path)
    folder.complete()
    whole = shmlog.load(folder.dir)
    counts, dropped = whole.counts, whole.dropped
    folder.layout.run_yaml.unlink()
    shmlog.Store(folder.dir.parent.parent).rebuild("one")
    stored = shmlog.load(folder.dir)
    assert (len(stored.producers), stored.counts, stored.dropped) == (FEW, counts, dropped)
    assert verify(folder.dir).findings == []


def test_the_producers_of_an_imported_run_are_folded(tmp_path: Path, few: None) -> None:
    folder, _ = crowded(tmp_path)
    folder.complete()
    (path,) = shmlog.export_run(folder.dir, tmp_path / "run.json")
    back = shmlog.load(shmlog.import_run(path, tmp_path / "back").dir)
    assert len(back.producers) <= FEW
    assert any(map(is_folded, back.producers))
    assert back.counts["metrics"] == len(folder.records)
    assert verify(back.dir).findings == []


def test_show_says_of_how_many_an_entry_is(tmp_path: Path, few: None, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = crowded(tmp_path)
    folder.complete()
    assert main(["show", str(folder.dir)]) == 0
    assert f"{LOGS * TENANCIES - 3} producers" in capsys.readouterr().out
