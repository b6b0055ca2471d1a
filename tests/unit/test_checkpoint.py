"""Checkpoints: what is saved comes back, the right ones are kept, damage is found."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import os
import pickle
import random
import shutil
import sys
import warnings
import zoneinfo
from collections import Counter, OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import shmlog
from shmlog import CheckpointManager
from shmlog.checkpoint import codec
from shmlog.checkpoint.container import SHA256, verify
from shmlog.checkpoint.encoded import STATE
from shmlog.checkpoint.files import read_info
from shmlog.errors import CorruptDataError, RefusedError, UnsafeDataError
from tests.support.sources import experiment_logger_folder


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, their types included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray) and one.dtype.names:  # there may be anything between the fields
        return bool(one.dtype == other.dtype) and all(same(one[name], other[name]) for name in one.dtype.names)
    if isinstance(one, np.ndarray | np.generic):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    if isinstance(one, dict):
        return list(map(repr, one)) == list(map(repr, other)) and all(
            same(a, b) for a, b in zip(one.values(), other.values(), strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float | complex):
        return repr(one) == repr(other)
    if isinstance(one, dt.datetime | dt.time):
        return (one.replace(tzinfo=None), one.fold, repr(one.tzinfo)) == (
            other.replace(tzinfo=None), other.fold, repr(other.tzinfo),
        )  # fmt: skip
    return bool(one == other)


def round_trip(folder: Path, state: Any) -> Any:
    manager = CheckpointManager(folder, "trip", keep_last=1)
    manager.save(state, 0)
    return manager.load().state


# ---- what comes back ----

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**300), 2**300), st.floats(), st.complex_numbers(),
    st.text(st.characters(exclude_categories=())), st.binary(), st.binary().map(bytearray), st.dates(),
    st.timedeltas(), st.datetimes(timezones=st.none() | st.timezones(), allow_imaginary=False), st.times(),
    st.builds(dt.timezone, st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23))).map(
        lambda zone: dt.datetime(2026, 1, 2, tzinfo=zone)
    ),
)  # fmt: skip
DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.array_dtypes(hnp.scalar_dtypes(), allow_subarrays=True),
    st.sampled_from([np.dtype(np.longdouble), np.dtype(np.clongdouble)]),
)
ARRAYS = DTYPES.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=3)))
SCALARS = hnp.arrays(hnp.scalar_dtypes().map(lambda dtype: dtype.newbyteorder("=")), 1).map(lambda array: array[0])
KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.tuples(st.integers(), st.text()))
STATES = st.recursive(
    LEAVES | ARRAYS | SCALARS,
    lambda inner: st.one_of(
        st.lists(inner), st.lists(inner).map(tuple), st.dictionaries(KEYS, inner),
        st.dictionaries(st.text(), inner).map(OrderedDict), st.dictionaries(st.sampled_from("$ab"), inner),
    ),
)  # fmt: skip


@settings(max_examples=60)
@given(state=STATES)
def test_every_state_comes_back_the_same(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    folder = tmp_path_factory.mktemp("state")
    assert same(round_trip(folder, state), state)
    shutil.rmtree(folder)


AWKWARD: dict[str, Any] = {
    "big int": 10**5000,
    "negative big int": -(2**64),
    "int at the border": [2**63, 2**64 - 1, 2**64, -(2**63) - 1],
    "floats": [0.1, -0.0, 5e-324, math.inf, -math.inf, math.nan, 1.7976931348623157e308],
    "sets": [set(), {1, 2}, frozenset({"a"}), {(1, 2)}],
    "paths": [Path("a/b"), PurePosixPath("/"), Path("x\udcff")],
    "zone": dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    "utc": dt.datetime.now(dt.UTC),
    "named zone": dt.time(1, 2, tzinfo=dt.timezone(dt.timedelta(0), "mine")),
    "tag as a key": {"$": "tuple", "items": [1]},
    "colliding names": {"a.b": np.zeros(1), "a": {"b": np.ones(1)}, "a.b#2": np.full(1, 2.0), "": np.full(1, 3.0)},
    "reserved names": {"shmlog.sha256": np.zeros(1), "__metadata__": np.ones(1), STATE: b"x", "state": np.ones(2)},
    "an array alone": np.arange(3),
    "fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(10)[::-2],
    "broadcast": np.broadcast_to(np.float32(2), (3, 2)),
    "big-endian": np.array([1.5, np.nan], ">f8"),
    "structured": np.array([(1, 2.0)], np.dtype([("a", "<i2"), ("b", ">f8")], align=True)),
    "strings": np.array(["a", "üß"]),
    "dates": np.array(["2026-01-01", "NaT"], "M8[ns]"),
    "scalars": [np.float32(0.1), np.bool_(True), np.str_(""), np.bytes_(b"a\0b"), np.int8(-1)],
    "no date": np.datetime64("NaT", "s"),
}


@pytest.mark.parametrize("what", AWKWARD)
def test_awkward_values_come_back_the_same(tmp_path: Path, what: str) -> None:
    assert same(round_trip(tmp_path, AWKWARD[what]), AWKWARD[what])


def test_arrays_come_back_writable(tmp_path: Path) -> None:
    found = round_trip(tmp_path, [np.zeros(3), np.zeros(2, ">f4"), np.zeros(2, complex)])
    for array in found:
        array[0] = 1


def test_attributes_of_an_ordered_dict_are_kept(tmp_path: Path) -> None:
    state = OrderedDict(w=np.ones(2))
    state._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined] # as torch does
    assert vars(round_trip(tmp_path, state)) == {"_metadata": {"": {"version": 1}}}


class Custom:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Custom)

    __hash__ = None  # type: ignore[assignment]


def in_itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Custom(), r"Custom; save its state_dict"),
        (Counter("aab"), "Counter"),
        (np.array([None]), "array of Python objects"),
        (np.ma.masked_array([1]), "MaskedArray"),
        (np.zeros(1, np.dtype("f8", metadata={"a": 1})), "dtype float64"),
        (np.void(b"ab"), "scalar of dtype"),
        (lambda: None, "function"),
        (np.random.default_rng(), "Generator"),
        (dt.datetime(2026, 1, 1, tzinfo=type("Zone", (dt.tzinfo,), {})()), "zone of type Zone"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:10],
)  # fmt: skip
def test_what_cannot_be_saved_is_refused_by_its_key_path(tmp_path: Path, value: Any, message: str) -> None:
    manager = CheckpointManager(tmp_path / "new")
    with pytest.raises(TypeError, match=rf"^state\['model'\]\[1\]: cannot save .*{message}"):
        manager.save({"model": [1, value]}, 0)
    assert not (tmp_path / "new").exists()


def test_a_state_in_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^state\['a'\]\[0\]\[0\]….*100 levels deep, or in itself"):
        CheckpointManager(tmp_path).save({"a": in_itself()}, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"metrics": {"loss": "low"}}, r"metrics\['loss'\]: must be a number, not a str"),
     ({"metadata": {"x": np.ones(1)}}, r"metadata\['x'\]: cannot save arrays"),
     ({"metadata": {"x": [Custom()]}}, r"metadata\['x'\]\[0\]: cannot save .*Custom")],
)  # fmt: skip
def test_metrics_are_numbers_and_metadata_plain(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        CheckpointManager(tmp_path, allow_pickle=True).save({}, 0, **options)


def test_metrics_and_metadata_come_back(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    metadata = {"note": "ü", "when": dt.date(2026, 1, 1), "many": (1, 2)}
    saved = manager.save({}, 7, metrics={"loss": np.float32(0.5), "n": 3, "bad": math.nan}, metadata=metadata)
    found = CheckpointManager(tmp_path).latest()
    assert found is not None
    assert same(found.metadata, metadata)
    assert same(found.metrics, {"loss": 0.5, "n": 3, "bad": math.nan})
    assert found._replace(metrics={}) == saved._replace(metrics={})


# ---- random number generators ----


def test_resuming_goes_on_with_the_same_random_numbers(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    random.gauss(0, 1)
    np.random.standard_normal()
    manager.save({}, 1)
    expected = [random.gauss(0, 1), random.random(), np.random.standard_normal(3).tolist()]
    manager.load()
    assert random.random() != expected[1]
    manager.resume_from_checkpoint()
    assert [random.gauss(0, 1), random.random(), np.random.standard_normal(3).tolist()] == expected


def test_resuming_without_a_checkpoint_starts_afresh(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path / "none")
    assert manager.resume_from_checkpoint() is None
    with pytest.raises(shmlog.errors.CheckpointNotFoundError):
        manager.resume_from_checkpoint(3)


# ---- which are kept ----


def steps(manager: CheckpointManager) -> list[int | None]:
    return [info.step for info in manager.list()]


def test_keep_last_counts_those_of_earlier_processes(tmp_path: Path) -> None:
    for first in (0, 3, 6):
        manager = CheckpointManager(tmp_path, "exp", keep_last=2)
        for step in range(first, first + 3):
            manager.save({}, step)
    assert steps(CheckpointManager(tmp_path, "exp")) == [7, 8]
    assert len(os.listdir(tmp_path)) == 2


def test_zero_keeps_all(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=0)
    for step in range(6):
        manager.save({}, step)
    assert steps(manager) == list(range(6))


@pytest.mark.parametrize(("mode", "best"), [("min", 1), ("max", 3)])
def test_the_best_is_kept_and_nan_is_never_the_best(tmp_path: Path, mode: str, best: int) -> None:
    manager = CheckpointManager(tmp_path, keep_last=1, keep_best=("loss", mode))
    for step, loss in enumerate([2.0, 1.0, math.nan, 5.0, 3.0]):
        manager.save({}, step, metrics={"loss": loss})
    manager.save({}, 9)
    assert steps(manager) == [best, 9]
    found = CheckpointManager(tmp_path, keep_best=("loss", mode)).best()
    assert found is not None
    assert found.step == best


def test_there_is_no_best_without_the_metric(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_best=("loss", "min"))
    manager.save({}, 1, metrics={"other": 1})
    assert manager.best() is None
    with pytest.raises(ValueError, match="keep_best="):
        CheckpointManager(tmp_path).best()


def test_names_match_exactly(tmp_path: Path) -> None:
    names = ["exp", "exp2", "exp-2", "exp-00000001", "EXP"]
    managers = {name: CheckpointManager(tmp_path, name, keep_last=1) for name in names}
    for step in (1, 2):
        for name, manager in managers.items():
            manager.save(name, step)
    for name, manager in managers.items():
        assert steps(manager) == [2]
        assert manager.load().state == name
    managers["exp"].delete(*managers["exp"].list())
    assert steps(managers["exp"]) == []
    assert len(os.listdir(tmp_path)) == len(names) - 1


def test_going_back_to_an_older_step_keeps_what_is_saved_then(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, keep_last=2)
    for step in (100, 200, 300):
        manager.save({}, step)
    manager.resume_from_checkpoint(200)
    manager.save({}, 250)
    assert steps(manager) == [300, 250]
    assert manager.load().info.step == 250


def test_the_newest_is_the_one_saved_last_whatever_the_files_times(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    for step in (1, 2):
        manager.save({}, step)
    os.utime(tmp_path / "checkpoint-00000001.safetensors", (2e9, 2e9))
    latest = CheckpointManager(tmp_path).latest()
    assert latest is not None
    assert latest.step == 2


def test_the_same_step_is_replaced(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save("a", 1)
    manager.save("b", 1)
    assert steps(manager) == [1]
    assert manager.load(1).state == "b"


def test_steps_are_counted_on_where_none_is_given(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    assert [manager.save({}).step, manager.save({}, 7).step, manager.save({}).step] == [0, 7, 8]


@pytest.mark.parametrize("step", [-1, 2**63, 1.5, "1"])
def test_a_step_is_a_whole_number(tmp_path: Path, step: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        CheckpointManager(tmp_path).save({}, step)


def test_a_large_step_is_found_again(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path)
    manager.save({}, 2**63 - 1)
    assert steps(manager) == [2**63 - 1]


def test_should_save_at_multiples_and_after_a_jump(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, save_every=10)
    due = []
    for step in [0, 1, 10, 11, 25, 26, 30, 41]:
        if manager.should_save(step):
            manager.save({}, step)
            due.append(step)
    assert due == [0, 10, 25, 30, 41]
    assert not CheckpointManager(tmp_path).should_save(0)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "a/b"},
        {"name": ""},
        {"keep_last": -1},
        {"keep_last": None},
        {"save_every": 0},
        {"save_every": "10"},
        {"keep_best": ("loss", "best")},
        {"keep_best": "loss"},
        {"keep_best": 1},
    ],
    ids=str,
)
def test_unusable_arguments_are_refused_by_name(tmp_path: Path, options: Any) -> None:
    (name,) = options
    with pytest.raises((ValueError, TypeError), match=rf"{name}.*(must be|use 1 to 64)"):
        CheckpointManager(tmp_path, **options)


@pytest.mark.parametrize(
    "options", [{"metrics": 0.5}, {"metrics": ["loss"]}, {"metadata": "text"}, {"step": 1.5}], ids=str
)
def test_unusable_arguments_of_a_save_are_refused_by_name(tmp_path: Path, options: Any) -> None:
    (name,) = options
    with pytest.raises(TypeError, match=f"{name} must be"):
        CheckpointManager(tmp_path).save({}, **options)


def test_a_checkpoint_is_indexed_like_a_dict_and_shown_in_a_line(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, "exp")
    info = manager.save({"w": 1}, 7, metadata={"by": "me"})
    found = manager.resume_from_checkpoint()
    assert found is not None
    assert (found["state"], found["iteration"], found["step"], found["metadata"]) == ({"w": 1}, 7, 7, {"by": "me"})
    assert found["timestamp"] == info.created_at.isoformat()
    with pytest.raises(KeyError, match=r"'loss'; a checkpoint has 'state', 'step'"):
        found["loss"]
    assert repr(found) == f"<Checkpoint 'exp' step 7, {info.created_at:%Y-%m-%d %H:%M:%S} UTC, {info.path}>"


def test_a_missing_checkpoint_is_a_missing_file(tmp_path: Path) -> None:
    """What code expects that was written for files."""
    with pytest.raises(FileNotFoundError, match="no checkpoint 'checkpoint' of step 3"):
        CheckpointManager(tmp_path).load(3)


# ---- damage ----


def two(folder: Path) -> tuple[CheckpointManager, Path]:
    manager = CheckpointManager(folder)
    manager.save({"w": np.zeros(100)}, 1)
    return manager, manager.save({"w": np.ones(100)}, 2).path


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    manager, path = two(tmp_path)
    sound = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for at, byte in enumerate(sound):
            os.pwrite(file.fileno(), bytes([byte ^ 0x10]), at)
            with pytest.raises(shmlog.errors.CorruptDataError, match=path.name):
                manager.load(2)
            os.pwrite(file.fileno(), bytes([byte]), at)
    assert manager.load(2).state["w"][0] == 1


def test_every_cut_is_found(tmp_path: Path) -> None:
    manager, path = two(tmp_path)
    sound = path.read_bytes()
    path.write_bytes(sound + b"\0")
    for size in reversed(range(len(sound) + 2)):
        os.truncate(path, size)
        if size != len(sound):
            with pytest.raises(shmlog.errors.CorruptDataError, match=path.name):
                manager.load(2)


@pytest.mark.parametrize("digits", ["", "00", "00" * 9])
def test_a_scalar_that_is_short_shows_nothing_of_the_memory(digits: str) -> None:
    with pytest.raises(shmlog.errors.CorruptDataError, match="a numpy scalar of 8 bytes"):
        codec.StateDecoder(None, allow_pickle=False).decode({codec._TAG: "numpy", "dtype": "S8", "hex": digits})


@pytest.mark.parametrize("at", [20, -40], ids=["header", "data"])
def test_a_damaged_newest_falls_back_to_the_one_before_with_a_warning(tmp_path: Path, at: int) -> None:
    _, path = two(tmp_path)
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
    manager = CheckpointManager(tmp_path)
    with pytest.warns(shmlog.ShmlogWarning, match=r"passed over.*checkpoint-00000002"):
        found = manager.load()
    assert found.info.step == 1
    path.with_name("checkpoint-00000001.safetensors").write_bytes(b"nothing")
    with pytest.warns(shmlog.ShmlogWarning), pytest.raises(shmlog.errors.CorruptDataError, match="all 2 checkpoints"):
        manager.load()
    with pytest.raises(shmlog.errors.CheckpointNotFoundError):
        CheckpointManager(tmp_path, "other").load()


def test_a_damaged_file_is_never_deleted_by_itself(tmp_path: Path) -> None:
    manager, path = two(tmp_path)
    path.write_bytes(b"damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", shmlog.ShmlogWarning)
        for step in range(3, 9):
            manager.save({}, step)
    assert path.read_bytes() == b"damaged"


def test_a_pickle_of_another_program_is_named_for_what_it_is(tmp_path: Path) -> None:
    folder = experiment_logger_folder(tmp_path / "theirs")
    path = folder / "digits_iter_000020.ckpt"
    manager = CheckpointManager(folder)
    with pytest.raises(UnsafeDataError, match=r"ckpt: a pickle of another program.*allow_pickle=True"):
        manager.load(path)
    with pytest.raises(RefusedError, match=r"ckpt: a pickle of another program"):
        manager.backup_checkpoint(path, tmp_path / "copies")
    checkpoint = CheckpointManager(folder, allow_pickle=True).load(path)
    assert checkpoint.state == {"weights": [1.0, 2.0]}
    info = checkpoint.info
    assert (info.name, info.step, info.metadata) == ("digits", 20, {"loss": 0.5})
    assert info.created_at.isoformat() == "2026-01-01T12:00:02.250000+00:00"
    path.write_bytes(pickle.dumps([1]))
    assert CheckpointManager(folder, allow_pickle=True).load(path).state == [1]
    path.write_bytes(b"\x80\4junk")
    with pytest.raises(CorruptDataError, match="a pickle that can't be loaded"):
        CheckpointManager(folder, allow_pickle=True).load(path)


def test_a_file_of_another_program_is_passed_over(tmp_path: Path) -> None:
    manager, _ = two(tmp_path)
    safetensors.numpy.save_file({"w": np.ones(3)}, tmp_path / "checkpoint-00000009.safetensors")
    (tmp_path / "checkpoint-1.safetensors").write_bytes(b"")
    with pytest.warns(shmlog.ShmlogWarning, match="not that of a checkpoint"):
        assert steps(manager) == [1, 2]


# ---- the file ----


def test_other_programs_read_the_file(tmp_path: Path) -> None:
    info = CheckpointManager(tmp_path).save({"model": {"fc.weight": np.arange(6, dtype=np.float32)}, "n": 3}, 1)
    found = safetensors.numpy.load_file(info.path)
    assert found["model.fc.weight"].tolist() == [0, 1, 2, 3, 4, 5]
    assert json.loads(found[STATE].tobytes())["state"]["n"] == 3
    assert len(found[SHA256]) == 32


def test_every_tensor_is_aligned(tmp_path: Path) -> None:
    state = [np.ones(3, np.uint8), np.ones(1), b"abc", np.ones(3, np.float16), np.ones(1, np.int32), np.ones(5, bool)]
    data = CheckpointManager(tmp_path).save(state, 1).path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            items = math.prod(entry["shape"])
            begin, end = entry["data_offsets"]
            assert begin % ((end - begin) // items) == 0


def test_no_pickle_is_written_or_read_unasked(tmp_path: Path) -> None:
    trusting = CheckpointManager(tmp_path, allow_pickle=True)
    info = trusting.save({"a": [Custom()], "b": 1}, 1)
    assert info.has_pickled
    assert trusting.load().state == {"a": [Custom()], "b": 1}
    with pytest.raises(shmlog.errors.UnsafeDataError, match=r"a\.0 is pickled.*allow_pickle=True"):
        CheckpointManager(tmp_path).load()
    assert not trusting.save({"b": 1}, 2).has_pickled
    assert CheckpointManager(tmp_path).load().state == {"b": 1}


def test_loading_finds_no_class_by_name(tmp_path: Path) -> None:
    """No unpickler runs where it is not asked for, whatever the file holds."""
    evil = pickle.dumps(Custom())
    CheckpointManager(tmp_path).save({"a": evil, "b": np.array([evil])}, 1)
    script = """
import sys
def hook(event, args):
    assert event not in ("pickle.find_class", "exec", "import") or not armed, event
armed = False
sys.addaudithook(hook)
import numpy, safetensors.numpy, shmlog
manager = shmlog.CheckpointManager(sys.argv[1])
manager.load()
armed = True
print(sorted(manager.load().state))
"""
    from tests.support.processes import run_script

    done = run_script(script, tmp_path, cwd=tmp_path)
    assert done.stdout == "['a', 'b']\n", done.stderr


def test_an_object_that_cannot_be_pickled_is_told(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\['f'\]: cannot be pickled"):
        CheckpointManager(tmp_path, allow_pickle=True).save({"f": lambda: None}, 1)


def test_abandoned_files_of_killed_saves_are_removed(tmp_path: Path) -> None:
    manager, path = two(tmp_path)
    host, now = os.uname().nodename, path.stat().st_mtime
    dead = 2**22 + 1  # above every pid

    def leave(final: str, of: str, pid: int, age: float) -> Path:
        left = tmp_path / f"{final}.{of}.{pid}.{int(age):08x}.tmp"
        left.write_bytes(b"x")
        os.utime(left, (now - age, now - age))
        return left

    mine = "checkpoint-00000009.safetensors"
    gone = [leave(mine, host, dead, 100), leave(mine, "elsewhere", 1, 4000), leave(mine, host, os.getpid(), 4000)]
    kept = [
        leave(mine, host, dead + 1, 10), leave(mine, host, os.getpid(), 100), leave(mine, "elsewhere", 2, 100),
        leave("checkpoint2-00000009.safetensors", host, dead, 9000),
    ]  # fmt: skip
    manager.save({}, 3)
    assert [left.exists() for left in gone] == [False] * 3
    assert [left.exists() for left in kept] == [True] * 4


def test_a_backup_is_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    manager, path = two(tmp_path / "a")
    copy = manager.backup_checkpoint(None, tmp_path / "b" / "c")
    assert copy == tmp_path / "b" / "c" / path.name
    assert copy.read_bytes() == path.read_bytes()
    assert manager.backup_checkpoint(1, tmp_path / "b").name == "checkpoint-00000001.safetensors"
    assert manager.load(copy).state["w"][0] == 1
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(shmlog.errors.CorruptDataError):
        manager.backup_checkpoint(path, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_only_own_checkpoints_are_deleted(tmp_path: Path) -> None:
    manager, path = two(tmp_path / "a")
    other = manager.backup_checkpoint(2, tmp_path / "b")
    for which in (other, tmp_path / "a" / "x", 77, "../b/checkpoint-00000002.safetensors"):
        with pytest.raises(shmlog.errors.CheckpointNotFoundError):
            manager.delete(1, which)
    assert steps(manager) == [1, 2]
    manager.delete(1, path)
    assert steps(manager) == []
    assert other.exists()


def test_states_are_saved_and_loaded_without_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    CheckpointManager(tmp_path).save({"lr": 0.1, "w": np.arange(6.0).reshape(2, 3)}, 1)
    state = CheckpointManager(tmp_path).load().state
    assert state["lr"] == 0.1
    assert same(state["w"], np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [-1, -8]},
        {"shape": [2]},
        {"shape": [2**62, 4]},
        {"shape": 8},
        {"data_offsets": [0, 2**40]},
        {"data_offsets": [-8, 0]},
        {"data_offsets": "ab"},
        {"dtype": "F128"},
        {"dtype": "BF16", "shape": [4]},
    ],
    ids=str,
)
def test_a_header_that_describes_no_tensor_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    """Of a file with a sound SHA-256, as a stranger may make it."""
    path = CheckpointManager(tmp_path).save({"w": np.zeros(1)}, 1).path
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    nodes = data[8 + length :]
    name = next(name for name, entry in header.items() if entry.get("shape") == [1] and entry["dtype"] == "F64")
    header[name] |= change
    text = json.dumps(header).encode()
    forged = len(text).to_bytes(8, "little") + text + nodes[:-32]
    path.write_bytes(forged + hashlib.sha256(forged).digest())
    with pytest.raises(shmlog.errors.CorruptDataError, match=path.name):
        CheckpointManager(tmp_path).load(1)


def test_verify_returns_the_sum_that_sha256sum_prints(tmp_path: Path) -> None:
    _, path = two(tmp_path)
    assert verify(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_info(path).bytes == path.stat().st_size


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(shmlog.errors.StorageError, match=r"cannot write .*file/x"):
        CheckpointManager(tmp_path / "file" / "x").save({}, 1)


@pytest.mark.parametrize("way", ["save", "save_async"])
def test_a_save_that_another_manager_removes_at_once_does_not_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    manager, other = (shmlog.CheckpointManager(tmp_path, keep_last=1) for _ in range(2))
    log = shmlog.CheckpointManager._log

    def log_late(self: shmlog.CheckpointManager, info: Any, sha256: str) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(shmlog.CheckpointManager, "_log", log)
            other.save({"x": 2}, 2)
        return log(self, info, sha256)

    monkeypatch.setattr(shmlog.CheckpointManager, "_log", log_late)
    save = manager.save if way == "save" else lambda *state: manager.save_async(*state).result()
    assert save({"x": 1}, 1).bytes == 0
    assert other.load().state == {"x": 2}
