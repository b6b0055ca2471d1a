"""Statistics, comparisons and findings: what they say is what pandas and numpy say, or follows from the data."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import shmlog
from shmlog.analysis.bootstrap import VALUES_MIN, Difference, bootstrap_difference
from shmlog.analysis.findings import find, spike_scores, trend_of
from shmlog.cli.commands.compare import Condition, condition, holds
from shmlog.cli.main import main
from shmlog.errors import RunNotFoundError, ShmlogError, ShmlogWarning
from shmlog.folder.status import RunStatus
from shmlog.logs import analyze_logs, load_structured_logs
from shmlog.reader.model import RunRecord
from shmlog.store.compare import compare
from tests.support.folders import Folder
from tests.support.frames import Log
from tests.support.stores import add_run

NUMBERS = st.one_of(st.floats(-1e12, 1e12), st.just(math.nan), st.integers(-(2**50), 2**50), st.booleans())
RECORDS = st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["a", "b"]), NUMBERS, st.integers(0, 5)), max_size=40)

KEYS = ["lane", "pid", "rank", "local_rank", "worker"]


def make_run(folder: Path, recorded: list[tuple[int, str, Any, int]]) -> shmlog.StoredRun:
    """Return a run of which lane, name, value and step of each record are given."""
    made = Folder(folder / f"x{len(list(folder.iterdir()))}")
    log = Log(0)
    for number in sorted({lane for lane, *_ in recorded}):
        log.lane(number).owner({"pid": 100 + number, "rank": number} if number else {"pid": 1})
    for ts, (lane, name, value, step) in enumerate(recorded):
        log.lane(lane).metric(name, value, step, ts * 1000)
    log.frame()
    made.add(log)
    return shmlog.load(made.layout.dir)


# ---- statistics ----


@pytest.mark.filterwarnings("ignore:Degrees of freedom:RuntimeWarning")
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recorded=RECORDS, ddof=st.integers(0, 2), by=st.sampled_from([None, "producer"]))
def test_statistics_are_those_of_pandas(tmp_path: Path, recorded: Any, ddof: int, by: str | None) -> None:
    stored = make_run(tmp_path, recorded)
    found = stored.statistics(by=by, ddof=ddof).to_pylist()
    frame = stored.to_pandas()
    keys = ["name", *(KEYS if by else [])]
    groups = {tuple(None if pd.isna(k) else k for k in key): part["value"] for key, part in
              frame.groupby(keys, dropna=False, observed=True)}  # fmt: skip
    assert [tuple(row[key] for key in keys) for row in found] == sorted(
        groups, key=lambda key: tuple((k is not None, k) for k in key)
    )
    for row in found:
        values = groups[tuple(row[key] for key in keys)]
        assert (row["count"], row["nan"]) == (len(values), values.isna().sum())
        expected = {
            "mean": values.mean(), "std": values.std(ddof=ddof), "min": values.min(), "max": values.max(),
            "median": values.median(), "first": values.iloc[0], "last": values.iloc[-1],
            "q5": values.quantile(0.05), "q25": values.quantile(0.25), "q95": values.quantile(0.95),
        }  # fmt: skip
        for name, value in expected.items():
            own = math.nan if row[name] is None else row[name]
            np.testing.assert_allclose(own, value, rtol=1e-9, atol=1e-3, err_msg=name)


def test_statistics_of_text_infinities_and_nothing(tmp_path: Path) -> None:
    stored = make_run(tmp_path, [(0, "t", "text", 0), (0, "i", math.inf, 0), (0, "i", 1.0, 1), (0, "n", math.nan, 0)])
    rows = {row["name"]: row for row in stored.statistics().to_pylist()}
    assert sorted(rows) == ["i", "n"]
    assert (rows["i"]["mean"], rows["i"]["min"], rows["i"]["last"]) == (math.inf, 1.0, 1.0)
    assert math.isnan(rows["i"]["std"])
    assert rows["n"]["mean"] is None
    assert rows["n"]["nan"] == 1
    assert stored.statistics("absent").num_rows == 0
    assert shmlog.load(add_run(tmp_path, "empty").dir).statistics(by="producer").num_rows == 0


@pytest.mark.parametrize("wrong", [{"by": "rank"}, {"ddof": -1}, {"ddof": True}, {"quantiles": [1.5]}])
def test_statistics_that_cannot_be(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        make_run(tmp_path, []).statistics(**wrong)


# ---- bootstrap ----


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 200 95 % intervals of samples of 100, some 190 hold the difference."""
    generator = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        a, b = generator.normal(10, 1, 100), generator.normal(11, 2, 100)
        found = bootstrap_difference(a, b, resamples=500, seed=seed, block=1)
        held += found.low <= 1 <= found.high
    assert 178 <= held <= 199


def test_blocks_widen_the_interval_of_values_that_resemble_their_neighbours() -> None:
    generator = np.random.default_rng(2)
    a, b = (np.convolve(generator.normal(size=1100), np.ones(100) / 10, "valid") for _ in "ab")
    alone, blocks = (bootstrap_difference(a, b, block=block) for block in (1, 100))
    assert blocks.high - blocks.low > 4 * (alone.high - alone.low)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_the_bootstrap_finds_what_was_put_in(statistic: str) -> None:
    generator = np.random.default_rng(3)
    a = generator.normal(100, 1, 400)
    b = a * 1.1
    found = bootstrap_difference(a, b, statistic=statistic)
    assert found == bootstrap_difference(a, b, statistic=statistic)
    assert found != bootstrap_difference(a, b, statistic=statistic, seed=1)
    assert found.relative == pytest.approx(0.1)
    assert found.relative_low is not None
    assert found.relative_high is not None
    assert 0.09 < found.relative_low < 0.1 < found.relative_high < 0.11
    assert found.low < found.difference < found.high


@settings(max_examples=50)
@example(a=[5e-324, 5e-324, 1.0, 0.0, 1.0], b=[0.0, 0.0, 0.0, 0.0, 1.0])
@given(
    a=st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=30), b=st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=30)
)
def test_any_numbers_have_a_difference(a: list[float], b: list[float]) -> None:
    found = bootstrap_difference(a, b, resamples=100)
    assert found.difference == pytest.approx(np.mean(b) - np.mean(a))
    assert min(b) - max(a) - 1e-6 <= found.low <= found.high <= max(b) - min(a) + 1e-6
    assert json.loads(json.dumps(found.to_dict()))["confidence"] == 0.95


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"first": [1.0] * 4}, "at least 5"), ({"second": [math.nan] * 9}, "9 of 9"), ({"statistic": "mode"}, "mode"),
        ({"confidence": 1}, "between 0 and 1"), ({"resamples": 5}, "at least 100"), ({"block": 0}, "block"),
        ({"first": np.ones((3, 3))}, "at least 5"),
    ],
)  # fmt: skip
def test_what_can_not_be_compared(wrong: dict[str, Any], why: str) -> None:
    given = {"first": [1.0] * 9, "second": [2.0] * 9, **wrong}
    with pytest.raises(ValueError, match=why):
        bootstrap_difference(given.pop("first"), given.pop("second"), **given)


def test_a_zero_has_no_per_cent(tmp_path: Path) -> None:
    found = bootstrap_difference([0.0] * 9, [1.0] * 9)
    assert (found.difference, found.low, found.high, found.relative, found.relative_low) == (1, 1, 1, None, None)


def test_a_window_of_a_metric(tmp_path: Path) -> None:
    a = make_run(tmp_path, [(0, "m", float(step), step) for step in range(20)])
    b = make_run(tmp_path, [(0, "m", 2.0 * step, step) for step in range(20)])
    assert a.compare_metric(b, "m", last=5).first == 17
    assert a.compare_metric(b, "m", window=(0, 4)).second == 4
    assert a.compare_metric(b, "m", window=(None, 9)).first == 4.5
    assert a.compare_metric(b, "m", window=(10, None)).first == 14.5
    with pytest.raises(ValueError, match="metric 'absent' of run"):
        a.compare_metric(b, "absent")


# ---- runs side by side ----


def test_runs_side_by_side(tmp_path: Path) -> None:
    params = {"lr": 0.1, "n": 1, "model": {"name": "a"}, "nothing": None, "list": [1, True]}
    add_run(tmp_path, "one", params=params)
    add_run(tmp_path, "two", params={**params, "lr": 0.2, "n": 1.0, "model": {"name": "a", "new": 1}})
    add_run(tmp_path, "three", params={**params, "n": True})
    store = shmlog.Store(tmp_path)
    found = store.compare(["one", "two"])
    assert found.runs == ("one", "two")
    assert found.params == {"lr": {"one": 0.1, "two": 0.2}, "model.new": {"two": 1}}
    assert sorted(found.same_params) == ["list", "model.name", "n", "nothing"]
    assert found.metrics == {}
    assert store.compare(["one", "three"]).params == {"n": {"one": 1, "three": True}}
    assert json.loads(json.dumps(found.to_dict()))["runs"] == ["one", "two"]
    for few in ([], ["one"], ["one", "one"]):
        with pytest.raises(ValueError, match="two or more runs"):
            store.compare(few)
    add_run(tmp_path, "one", experiment="letters")
    names = store.compare(["digits/one", "letters/one"]).runs
    assert names == ("digits/one", "letters/one")


JSON = st.recursive(st.none() | st.booleans() | st.integers(0, 3) | st.text(max_size=3), lambda inner: st.lists(inner))


@given(a=st.dictionaries(st.text("ab.", max_size=3), JSON), b=st.dictionaries(st.text("ab.", max_size=3), JSON))
def test_every_parameter_is_the_same_or_differs(a: dict[str, Any], b: dict[str, Any]) -> None:
    from datetime import UTC, datetime

    def record(name: str, params: dict[str, Any]) -> RunRecord:
        status = RunStatus.SUCCESS
        return RunRecord(
            run_id=name, experiment="e", dir=Path("/e"), status=status, name=name, params=params,
            created_at=datetime.now(UTC),
        )  # fmt: skip

    found = compare([record("a", a), record("b", b)], [{}, {}])
    assert len(found.params) + len(found.same_params) == len(set(a) | set(b))
    assert compare([record("a", a), record("b", a)], [{}, {}]).params == {}


# ---- findings ----

STEPS = np.arange(1000)
NOISE = np.random.default_rng(4).normal(size=1000)


def kinds(values: Any) -> list[str]:
    values = np.asarray(values, np.float64)
    return [finding.kind for finding in find("m", np.arange(len(values)), values)]


def test_noise_and_constants_are_nothing() -> None:
    assert kinds(NOISE) == []
    assert kinds(np.ones(1000)) == []
    assert kinds([]) == []
    assert kinds([1.0, 2.0]) == []


def test_long_noise_has_hardly_a_spike() -> None:
    scores = np.abs(spike_scores(np.random.default_rng(5).normal(size=200_000))[0])
    assert (scores > 8).sum() <= 20  # the deviation is of 31 values each
    assert len(scores) == 200_000


def test_nan_and_infinities_are_found() -> None:
    values = NOISE.copy()
    values[[5, 9]], values[7] = math.nan, -math.inf
    nan, inf = find("m", STEPS, values)
    assert (nan.kind, nan.count, nan.first_step, nan.last_step) == ("nan", 2, 5, 9)
    assert (inf.kind, inf.count, inf.value) == ("inf", 1, -math.inf)


@pytest.mark.parametrize("base", [NOISE, np.ones(1000), np.exp(-STEPS / 100) + NOISE / 100], ids=["noise", "1", "exp"])
@pytest.mark.parametrize("at", [0, 500, 999])
def test_a_spike_is_found(base: Any, at: int) -> None:
    values = base.copy()
    values[at] += 30
    (spike,) = [finding for finding in find("m", STEPS, values) if finding.kind == "spike"]
    assert (spike.count, spike.first_step, spike.value) == (1, at, values[at])
    assert f"step {at}" in spike.message


def test_a_change_of_level_is_no_spike() -> None:
    assert "spike" not in kinds(np.where(STEPS < 500, 0.1, 0.01))


@pytest.mark.parametrize(
    "curve",
    [
        1 / (1 + STEPS), 2 / np.sqrt(1 + STEPS), np.exp(-STEPS / 5), np.exp(-STEPS / 500), 1 - 1 / (1 + STEPS),
        5.0 - np.log(1 + STEPS), STEPS**2.0, np.where(STEPS < 500, STEPS / 500, np.exp(-(STEPS - 500) / 50)),
    ],
)  # fmt: skip
def test_ordinary_curves_have_no_spike_and_do_not_diverge(curve: Any) -> None:
    for noise in (0, 0.001):
        assert not {"spike", "divergence"} & set(kinds(curve + noise * NOISE))


@pytest.mark.parametrize("tail", [10, 30, 100])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_divergence_at_the_end_is_found(tail: int, sign: int) -> None:
    values = 1 + NOISE / 10
    values[-tail:] = sign * np.geomspace(1, 9802, tail)
    (finding,) = [finding for finding in find("m", STEPS, values) if finding.kind == "divergence"]
    assert 1000 - tail <= finding.first_step < 1000 - tail / 3
    assert finding.last_step == 999
    assert finding.value == pytest.approx(sign * 9802)
    assert re.search(r"at the end, about (0\.99\d*|1\.0\d*|1) before", finding.message)


def test_what_comes_back_does_not_diverge() -> None:
    values = 1 + NOISE / 10
    values[900:904] = 1e4
    assert "divergence" not in kinds(values)
    assert "divergence" not in kinds(np.where(STEPS < 950, 0.1, 0.001))


def test_a_trend_is_found_and_its_slope() -> None:
    (trend,) = find("m", STEPS, 0.01 * STEPS + NOISE)
    assert trend.kind == "trend"
    assert trend.value == pytest.approx(10, rel=0.1)
    assert "rises" in trend.message
    assert kinds(-0.01 * STEPS + NOISE) == ["trend"]


def test_a_stall_is_found() -> None:
    values = np.where(STEPS < 400, 10 - STEPS / 40, 0) + NOISE / 5
    assert "stall" in kinds(values)
    assert "stall" not in kinds(10 - STEPS / 40 + NOISE / 5)


@given(
    values=st.lists(st.floats(), max_size=60), steps=st.lists(st.integers(-(2**62), 2**62), min_size=60, max_size=60)
)
def test_any_numbers_can_be_looked_at(values: list[float], steps: list[int]) -> None:
    found = find("m", np.array(sorted(steps)[: len(values)], np.int64), np.array(values, np.float64))
    bad = [v for v in values if not math.isfinite(v)]
    assert sum(f.count for f in found if f.kind in ("nan", "inf")) == len(bad)


@given(st.lists(st.integers(-5, 5), min_size=5, max_size=40))
def test_tau_is_that_of_all_pairs(values: list[int]) -> None:
    tau, p, _ = trend_of(np.arange(len(values)), np.array(values, np.float64))
    pairs = [np.sign(b - a) for i, a in enumerate(values) for b in values[i + 1 :]]
    differing = sum(1 for sign in pairs if sign)
    assert tau == pytest.approx(sum(pairs) / math.sqrt(differing * len(pairs)) if differing else 0)
    assert 0 <= p <= 1 or p == pytest.approx(1, abs=0.2)


def test_findings_of_a_run(tmp_path: Path) -> None:
    values = [1.0] * 50 + [math.nan]
    stored = make_run(tmp_path, [(0, "m", v, i) for i, v in enumerate(values)] + [(0, "t", "text", 0)])
    (finding,) = stored.findings()
    assert finding.to_dict()["kind"] == "nan"
    assert stored.findings("t") == []


# ---- the command ----


@pytest.fixture
def two(tmp_path: Path) -> tuple[str, str]:
    dirs = []
    for slow in (1.0, 1.1):
        with shmlog.init("bench", root=tmp_path, config={"slow": slow}) as run:
            for step in range(50):
                run.log("t", slow + NOISE[step] / 100, step=step)
        dirs.append(str(run.dir))
    return dirs[0], dirs[1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--fail-if", "worse by 5%", "--lower-is-better"], 1),
        (["--fail-if", "worse by 15%", "--lower-is-better"], 0),
        (["--fail-if", "worse by 0.05", "--lower-is-better", "--last", "20"], 1),
        (["--fail-if", "worse", "--higher-is-better"], 0),
        (["--fail-if", "better by 5 %", "--higher-is-better", "--window", "10:"], 1),
        (["--fail-if", "different", "--statistic", "median"], 1),
        (["--fail-if", "lower"], 0),
        (["--fail-if", "worse"], 2),
        (["--fail-if", "a bit"], 2),
        (["--window", "a:b"], 2),
        (["--last", "2", "--window", "1:2"], 2),
        (["--last", "2"], 3),
    ],
)
def test_the_exit_code_says_whether_it_is_worse(two: tuple[str, str], words: list[str], code: int) -> None:
    try:
        found = main(["compare", *two, "--metric", "t", *words])
    except SystemExit as error:
        found = int(str(error.code))
    assert found == code


def test_what_the_command_prints(two: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *two, "--metric", "t"]) == 0
    out = capsys.readouterr().out
    assert "slow" in out
    assert "t last" in out
    assert "+10" in out or "+9." in out
    assert main(["compare", *two, "--metric", "t", "--fail-if", "higher", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    a, b = told["runs"]
    assert told["params"] == {"slow": {a: 1.0, b: 1.1}}
    assert told["changes"]["t"][b]["relative"] == pytest.approx(0.1, abs=0.01)
    assert told["failed"] == [{"metric": "t", "run": b}]
    for words in ([two[0]], [*two, "--fail-if", "higher"]):
        assert main(["compare", *words]) == 2


def test_a_condition_needs_the_whole_interval() -> None:
    change = bootstrap_difference([10.0 + x for x in range(10)], [10.5 + x for x in range(10)])
    assert isinstance(change, Difference)
    assert not holds(condition("higher"), change, lower_is_better=True)
    assert condition("worse by 5%") == Condition("worse", 0.05, True)
    zero = bootstrap_difference([0.0] * VALUES_MIN, [1.0] * VALUES_MIN)
    with pytest.raises(ShmlogError, match="per cent"):
        holds(condition("worse by 5%"), zero, lower_is_better=True)
    assert holds(condition("worse by 0.5"), zero, lower_is_better=True)


# ---- events ----


def test_logs_of_a_run_and_of_its_file() -> None:
    with shmlog.init("logs", sinks=("parquet", "jsonl")) as run:
        run.log("loss", 1.0, step=0)
        run.info("half way")
        run.event("custom", {"a": 1})
    found = analyze_logs(run.dir)
    assert found["event_counts"]["custom"] == 1
    assert found["final_status"] == "success"
    assert found["start_time"] < found["end_time"]
    of_file = analyze_logs(run.dir / "events.jsonl")
    assert of_file["total_events"] == found["total_events"] + of_file["event_counts"]["metrics"]
    assert load_structured_logs(run.dir) == shmlog.load(run.dir).events()


def test_a_torn_last_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines = [{"timestamp": f"2026-11-21T00:00:0{i}Z", "event_type": "e", "data": {}} for i in range(3)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for cut in range(len(text) + 1):
        path.write_text(text[:cut])
        assert load_structured_logs(path) == lines[: text[: cut + 1].count("\n") if cut < len(text) else 3]
    path.write_text(text + '{"event_type": "experiment_end", "data": {"status": "comp')
    assert analyze_logs(path) == {
        "total_events": 3, "event_counts": {"e": 3}, "start_time": "2026-11-21T00:00:00Z",
        "end_time": "2026-11-21T00:00:02Z", "final_status": None,
    }  # fmt: skip


def test_a_line_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(
        'nonsense\n{"event_type": "experiment_end", "data": {"status": "failed", "end_time": "now"}}\n[1]\n'
    )
    with pytest.warns(ShmlogWarning, match="2 lines") as told:
        found = analyze_logs(path)
    assert told[0].filename == __file__
    assert (found["total_events"], found["final_status"], found["end_time"]) == (1, "failed", "now")
    path.write_text("")
    assert analyze_logs(path)["start_time"] is None
    with pytest.raises(RunNotFoundError):
        analyze_logs(tmp_path / "absent")
