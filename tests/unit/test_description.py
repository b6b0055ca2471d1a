"""run.yaml: its fields are those of the page, what nobody knows is kept, and what is said of it on each occasion."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.errors import CorruptDataError
from shmlog.folder import runfile
from shmlog.folder.description import FIELDS, Description, run_id_of
from shmlog.folder.layout import RunLayout
from shmlog.reader.model import RunRecord
from shmlog.reader.rebuild import rebuild_description
from tests.support.csource import ROOT
from tests.support.processes import wait_until

OF_OTHER_FILES = {"dir", "live", "params", "paused_s", "pinned", "problems"}


def test_its_fields_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "format.md").read_text().partition("\n## 10. run.yaml\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE)
    keys = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert sorted(keys) == sorted(FIELDS)


def test_a_record_of_a_run_is_made_of_its_fields() -> None:
    assert set(RunRecord.__dataclass_fields__) - OF_OTHER_FILES <= FIELDS.keys()


def test_what_it_does_not_know_is_no_field_and_stays_where_it_is(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "digits" / "one")
    layout.dir.mkdir(parents=True)
    of_somebody: dict[Any, Any] = {"status": "success", "of_a_later_version": {"x": 1}, "complete": True}
    runfile.write_sealed(layout.run_yaml, of_somebody)
    described = Description.read(layout).changed(status="failed")
    described.complete = False
    described.write(layout)
    assert list(runfile.read(layout.run_yaml).items()) == [
        ("status", "failed"), ("of_a_later_version", {"x": 1}), ("complete", False),
    ]  # fmt: skip
    with pytest.raises(TypeError, match=r"run\.yaml has no 'statsu'"):
        Description(statsu="failed")
    with pytest.raises(AttributeError):
        described.statsu = "failed"  # type: ignore[attr-defined]
    assert not hasattr(described, "__getitem__")
    assert not hasattr(described, "get")


def test_a_run_keeps_what_nobody_knows_through_all_of_its_attempts(tmp_path: Path) -> None:
    with shmlog.init("kept", root=tmp_path) as run:
        pass
    layout = RunLayout(run.dir)
    wait_until(lambda: Description.read(layout).complete is True and not layout.wal.exists(), "the flusher to end")
    Description({**Description.read(layout).mapping, "of_a_later_version": [1, "ü"]}).write(layout)
    with shmlog.init(root=tmp_path, resume=run.dir):
        assert runfile.read(layout.run_yaml).get("of_a_later_version") == [1, "ü"]
    wait_until(lambda: Description.read(layout).complete is True and not layout.wal.exists(), "the flusher to end")
    described = runfile.read(layout.run_yaml)
    assert described.get("of_a_later_version") == [1, "ü"]
    assert described["attempt"] == 2
    assert described.keys() - {"of_a_later_version"} <= FIELDS.keys()


@pytest.mark.parametrize("value", [None, [], {}, "x", 7, True], ids=repr)
def test_a_strangers_values_are_read_as_they_stand(tmp_path: Path, value: Any) -> None:
    layout = RunLayout(tmp_path / "digits" / "one")
    layout.dir.mkdir(parents=True)
    runfile.write_sealed(layout.run_yaml, dict.fromkeys(FIELDS, value))
    described, problem = Description.read_or_guess(layout)
    assert problem is None
    assert all(getattr(described, name) == value for name in FIELDS)
    assert described.latest_attempt() == (7 if value == 7 and value is not True else 1)
    assert described.first_lanes(0) == [0]
    assert run_id_of(layout) == (value if isinstance(value, str) else "one")


def test_without_its_file_it_says_what_the_folder_does(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "digits" / "one")
    layout.dir.mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        Description.read_or_guess(layout)
    layout.run_yaml.write_bytes(b"{")
    with pytest.raises(CorruptDataError, match=r"run\.yaml"):
        Description.read(layout)
    described, problem = Description.read_or_guess(layout)
    assert described.mapping == {"run_id": "one", "experiment": "digits", "complete": True}
    assert problem
    assert str(layout.run_yaml) in problem


def test_it_is_written_anew_if_its_remains_say_that_there_are_no_attempts(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path / "digits" / "one")
    layout.metrics.mkdir(parents=True)
    layout.run_yaml.write_text('{\n  "attempts": null,\n  "user": "somebody",\n  "ho')
    rebuilt = rebuild_description(layout)
    assert (rebuilt.attempts, rebuilt.user, rebuilt.status) == (None, "somebody", "crashed")
