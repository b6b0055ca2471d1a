"""Any bit of a sealed part: whatever reads it gives what was logged, or tells, or fails (I10, I11).

DuckDB and pyarrow read the files of `sql` and `scan` by themselves, once all their pages were found to be sound.
"""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import shmlog
from shmlog.records.schema import METRICS
from tests.faults.hostile_folders import Answer, answer
from tests.support.folders import OWNER, Folder
from tests.support.frames import Log

FLIPS = 100
FLIPS_FULL = 2_000
CALLS_AT_ONCE = 2

COLUMNS = ", ".join(METRICS.names)
ORDER = [("lane", "ascending"), ("seq", "ascending")]


def one_name(log: Log, chance: random.Random) -> None:
    for step in range(500):
        log.lane(0).metric("loss", chance.random(), step, step * 1000)


def many_names(log: Log, chance: random.Random) -> None:
    for step in range(3):
        for number in range(150):
            log.lane(number % 2).metric(f"layer{number}.weight", chance.randrange(100) / 7, step, step * 1000)


def texts(log: Log, chance: random.Random) -> None:
    for step in range(200):
        log.lane(0).metric("sample", "".join(chance.choices("abcdefgh ü", k=chance.randrange(40))), step, step)
        log.lane(0).metric("phase", ("warm up", "train", "evaluate")[step // 70], step, step)


def all_kinds(log: Log, chance: random.Random) -> None:
    for step in range(100):
        row = {"loss": chance.random(), "n": 2**62 + step, "good": step % 3 == 0, "note": f"step {step}"}
        log.lane(step % 2).row(row, step, step * 500)


def row_groups(log: Log, chance: random.Random) -> None:
    for name in ("a", "b", "c"):
        for step in range(4200):
            log.lane(0).metric(name, round(chance.random(), 2), step, step)


SHAPES = (one_name, many_names, texts, all_kinds, row_groups)


@pytest.fixture(scope="module", params=SHAPES, ids=[shape.__name__ for shape in SHAPES])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Return a finished run of a shape, in one part."""
    made = Folder(tmp_path_factory.mktemp("parts") / "runs" / "digits" / "one")
    log = Log()
    log.lane(0).owner(OWNER)
    log.lane(1).owner({**OWNER, "pid": 42, "rank": None})
    request.param(log, random.Random(1))
    log.frame()
    made.add(log)
    made.complete()
    assert len(made.layout.parts()) == 1
    return made


def export(stored: shmlog.StoredRun) -> bytes:
    file = io.BytesIO()
    shmlog.export_run(stored, file, "arrow")
    return file.getvalue()


CALLS: dict[str, Callable[[shmlog.StoredRun], Any]] = {
    "metrics": lambda stored: stored.metrics().sort_by(ORDER),
    "scan": lambda stored: stored.scan().to_table().sort_by(ORDER),
    "sql": lambda stored: stored.sql(f"select {COLUMNS} from metrics order by lane, seq"),
    "a sum": lambda stored: stored.sql(
        "select name, count(*), count(distinct pid), sum(step), max(text), max(value), sum(int_value::hugeint % 1000) "
        "from metrics group by name order by name"
    ),
    "to_pandas": lambda stored: stored.to_pandas(),
    "export": export,
}


def ask(run_dir: Path, name: str) -> Answer:
    """Return what one of `CALLS` gives for a run."""
    return answer(run_dir, CALLS[name])


def is_equal(first: Any, second: Any) -> bool:
    if isinstance(first, (pa.Table, pd.DataFrame)):
        return isinstance(second, type(first)) and bool(first.equals(second))
    return bool(first == second)


def test_no_flip_is_read_in_silence(folder: Folder, seed: int, full: bool) -> None:
    """I11: 0 silent wrong answers, whoever reads."""
    chance = random.Random(seed)
    whole = {name: ask(folder.dir, name) for name in CALLS}
    assert all(answer.error is None and not answer.told for answer in whole.values())
    path = folder.layout.parts()[0].path
    data = path.read_bytes()
    seen: Counter[str] = Counter()
    for number in range(FLIPS_FULL if full else FLIPS):
        bit = chance.randrange(len(data) * 8)
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        for name in CALLS if full else chance.sample(sorted(CALLS), CALLS_AT_ONCE):
            now = ask(folder.dir, name)
            is_right = now.error is None and is_equal(whole[name].value, now.value)
            is_told = now.error is not None or bool(now.told)
            where = f"bit {bit} (number {number}); repeat with --seed={seed}"
            assert is_right or is_told, f"I11: {name} is silently wrong: {where}"
            assert not is_told or path.name in " ".join([now.error or "", *now.told]), f"I10: {name} names it: {where}"
            seen["told" if is_told else "right"] += 1
    print(dict(seen))
    assert seen["told"] > seen["right"] / 10, "the flips were read"
    path.write_bytes(data)
    assert all(is_equal(whole[name].value, ask(folder.dir, name).value) for name in CALLS)
