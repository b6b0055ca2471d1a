"""``shmlog compare``: that it fits its window, several runs a side, percentiles, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import shmlog
from shmlog.analysis.bootstrap import bootstrap_difference, difference_of_sides
from shmlog.cli import text
from shmlog.cli.main import main
from shmlog.cli.text import width


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of four runs in ./runs, of two seeds each, the last two slower."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for i, mean in enumerate((1.0, 1.1, 2.0, 2.1)):
        with shmlog.init("speed", name=f"r{i}", config={"seed": i % 2, "new": i > 1}) as run:
            for step, latency in enumerate(generator.normal(mean, 0.05, 200)):
                run.log({"latency": latency, "train/layer1/attention/norm": 1, "train/layer2/attention/norm": 2}, step)
    return ["r0", "r1", "r2", "r3"]


def test_three_runs_are_three_rows(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *runs[:3]]) == 0
    head, *rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    titles = [title.strip() for title in head if title.strip()]
    assert titles[:4] == ["run", "new", "seed", "latency last"]
    assert len(rows) == 3
    assert main(["compare", *runs[:2]]) == 0
    assert "latency last" in capsys.readouterr().out.splitlines()[4]


@pytest.mark.parametrize("columns", [40, 60, 80, 140])
@pytest.mark.parametrize("count", [2, 3])
def test_it_fits_its_window_and_no_two_names_look_alike(
    runs: list[str], columns: int, count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(text, "window_columns", lambda: columns)
    assert main(["compare", *runs[:count]]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert max(map(width, lines)) <= columns
    keys = [line.split("  ")[0] for line in lines]
    assert len(set(keys)) == len(keys)


def test_what_is_cut_to_the_same_text_gets_a_number() -> None:
    names = [f"a{'x' * 30}{i}{'y' * 30}b" for i in range(12)]
    cut = text._cut_apart([*names, names[0]], 10)
    assert len(set(cut)) == 12
    assert cut[0] == cut[-1]
    assert max(map(len, cut)) == 10
    assert len(set(text._cut_titles(names, [8] * 12))) == 12


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--fail-if", "worse by 5%", "--lower-is-better"], 1),
        (["--fail-if", "better", "--lower-is-better", "--statistic", "p99"], 0),
        (["--fail-if", "higher by 50%", "--statistic", "p99.9", "--last", "100"], 1),
    ],
)
def test_several_runs_a_side(runs: list[str], words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    sides = ["compare", "r0", "r1", "--against", "r2", "r3", "--metric", "latency"]
    assert main([*sides, *words]) == code
    assert main([*sides, "--json", "--statistic", "p50"]) == 0
    (change,) = json.loads(capsys.readouterr().out.partition("\n{")[2].join(["{", ""]))["changes"]["latency"].values()
    assert change["count_first"] == change["count_second"] == 400
    assert change["low"] < 1.0 < change["high"]


def test_runs_that_differ_among_themselves_widen_the_interval() -> None:
    generator = np.random.default_rng(1)
    alike = [generator.normal(1, 0.01, 100) for _ in range(2)]
    apart = [generator.normal(mean, 0.01, 100) for mean in (0.5, 1.5)]
    narrow, wide = (difference_of_sides([alike, side]) for side in (alike[::-1], apart))
    assert wide.high - wide.low > 20 * (narrow.high - narrow.low)
    assert wide.low < 0 < wide.high


def test_a_percentile_is_that_of_numpy() -> None:
    values = np.random.default_rng(2).exponential(1, 500)
    found = bootstrap_difference(values, values + 1, statistic="p99.9")
    assert found.first == np.quantile(values, 0.999)
    assert found.low <= 1 <= found.high


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["r0", "r1", "--metric", "latency", "--statistic", "p100"], 2), (["r0", "--against", "r1"], 2),
        (["r0", "r1", "--statistic", "mode"], 2), (["r0", "r1", "--metric", "nope"], 3), (["r0", "nowhere"], 3),
        (["r0", "r1", "--metric", "latency", "--last", "2"], 3),
    ],
)  # fmt: skip
def test_exit_codes(runs: list[str], words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        found = main(["compare", *words])
    except SystemExit as ended:
        found = ended.code
    assert found == code
    if "nope" in words:
        assert "there are latency, train/layer1/attention/norm" in capsys.readouterr().err
