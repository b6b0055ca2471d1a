"""What the files of a run say of it, so that it can be kept in an index; who lives is asked anew each time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shmlog.base.plain import plain
from shmlog.errors import RunNotFoundError, UnreadableError
from shmlog.folder import liveness
from shmlog.folder.description import Description
from shmlog.folder.layout import RunLayout
from shmlog.folder.liveness import find_status
from shmlog.folder.root import is_run
from shmlog.folder.runfile import ANNOTATED, read_mapping
from shmlog.reader import codec
from shmlog.reader.model import RunRecord

Signature = list[list[int] | None]

_FILES = ("run.yaml", "config.yaml", "annotations.yaml")
_NOT_OF_FILES = ("run_id", "experiment", "dir", "status", "live", "problems")


@dataclass(frozen=True)
class Facts:
    """What stands in the files of a run.

    Attributes
    ----------
    record : dict
        A `RunRecord` as JSON, but for what its folder and the kernel say.
    members : dict
        What of run.yaml tells whether its processes live.
    rebuilt : bool
        Whether run.yaml was damaged or missing, so that other files had to tell.
    """

    record: dict[str, Any]
    members: dict[str, Any]
    rebuilt: bool = False


def sign(run_dir: str) -> Signature:
    """Return what changes whenever run.yaml, config.yaml or annotations.yaml does."""
    return [_sign(f"{run_dir}/{name}") for name in _FILES]


def _sign(path: str) -> list[int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_mode]


def read_facts(layout: RunLayout) -> Facts:
    """Read the files of a run; what is damaged is told, and made up for by other files."""
    problems: list[str] = []
    told = _read(layout.run_yaml, problems)
    described = _rebuild(layout) if told is None else Description(told)
    if told is None:
        problems[:] = [f"{problem}; rebuilt" for problem in problems or [f"{layout.run_yaml}: missing"]]
    params = _read(layout.config_yaml, problems) or {}
    annotated = _read(layout.annotations_yaml, problems) or {}
    record = _checked({**described.mapping, "params": params}, layout.run_yaml, problems)
    kept = {name: annotated[name] for name in ANNOTATED if name in annotated}
    for name in kept:
        if kept[name] is None:  # said to be nothing, whatever run.yaml says
            record.pop(name, None)
    record |= _checked(kept, layout.annotations_yaml, problems)
    record.setdefault("name", layout.run_id)
    record["paused_s"] = described.paused_s()
    record["problems"] = problems
    return Facts(record, described.life(), rebuilt=told is None)


def _rebuild(layout: RunLayout) -> Description:
    from shmlog.reader.rebuild import rebuild_description  # with pyarrow, which whole stores can be listed without

    return rebuild_description(layout)


def _read(path: Path, problems: list[str]) -> dict[str, Any] | None:
    """Return what a file holds; None if there is none, or if it is damaged, which becomes a problem."""
    try:
        return read_mapping(path)
    except FileNotFoundError:
        return None
    except UnreadableError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
    return None


def _checked(found: Mapping[str, Any], path: Path, problems: list[str]) -> dict[str, Any]:
    """Return the fields of a record that are what they should be, as JSON; tell of the others."""
    checked = {}
    for name, reader in codec.readers(RunRecord).items():
        if found.get(name) is None or name in _NOT_OF_FILES:
            continue
        try:
            reader.read(found[name])
            checked[name] = plain(found[name])
        except (TypeError, ValueError, OverflowError, UnreadableError) as error:
            problems.append(f"{path}: {name}: {error}")
    return checked


def make_record(run_dir: str, facts: Facts) -> RunRecord:
    """Return the run as it is now; raises CorruptDataError if the facts are not of a run."""
    members = Description(facts.members)
    live = False if members.complete is True else liveness.members_live(members)
    experiment, run_id = run_dir.rsplit("/", 2)[1:]
    where = {"run_id": run_id, "experiment": experiment, "dir": run_dir}
    return RunRecord.from_dict({**facts.record, **where, "status": find_status(members, live), "live": live})


def read_record(layout: RunLayout) -> RunRecord:
    """Return the run as its files and the kernel have it now.

    Raises
    ------
    RunNotFoundError
        If there is none.
    """
    if not is_run(layout):
        raise RunNotFoundError(f"no run in {layout.dir}: it has no run.yaml and no records")
    return make_record(str(layout.dir), read_facts(layout))
