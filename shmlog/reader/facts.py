"""What the files of a run say, in a form that an index can cache; whether processes live is asked anew each time."""

from __future__ import annotations

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
_NOT_IN_FILES = ("run_id", "experiment", "dir", "status", "live", "problems")


@dataclass(frozen=True)
class RunFacts:
    """What the files of a run say.

    Attributes
    ----------
    record : dict
        A `RunRecord` as JSON, without what its folder and the kernel say.
    members : dict
        The fields of run.yaml that show whether its processes live.
    rebuilt : bool
        Whether run.yaml was damaged or missing, and other files replaced it.
    failed : bool
        Whether a file could not be read, so that the next look may find more though no file changes.
    """

    record: dict[str, Any]
    members: dict[str, Any]
    rebuilt: bool = False
    failed: bool = False


def sign(run_dir: str) -> Signature:
    """Return a signature that differs once run.yaml, config.yaml or annotations.yaml has changed."""
    states = (RunLayout.files.known_state(f"{run_dir}/{name}") for name in _FILES)
    return [s and [s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_mode] for s in states]


def read_facts(layout: RunLayout) -> RunFacts:
    """Read the files of a run; damage becomes a problem, and other files replace a damaged run.yaml."""
    problems: list[str] = []
    failures: list[OSError] = []
    mapping = _read(layout, layout.run_yaml, problems, failures)
    description = _rebuild(layout) if mapping is None else Description(mapping)
    if mapping is None:
        problems[:] = [f"{problem}; rebuilt" for problem in problems or [f"{layout.run_yaml}: missing"]]
    params = _read(layout, layout.config_yaml, problems, failures) or {}
    annotations = _read(layout, layout.annotations_yaml, problems, failures) or {}
    record = _checked({**description.mapping, "params": params}, layout.run_yaml, problems)
    annotated = {name: annotations[name] for name in ANNOTATED if name in annotations}
    for name in annotated:
        if annotated[name] is None:  # people removed it, whatever run.yaml says
            record.pop(name, None)
    record |= _checked(annotated, layout.annotations_yaml, problems)
    record.setdefault("name", layout.run_id)
    record["paused_s"] = description.paused_s()
    record["problems"] = problems
    return RunFacts(record, description.life(), rebuilt=mapping is None, failed=bool(failures))


def _rebuild(layout: RunLayout) -> Description:
    from shmlog.reader.rebuild import rebuild_description  # with pyarrow, which a list of sound runs does not need

    return rebuild_description(layout)


def _read(layout: RunLayout, path: Path, problems: list[str], failures: list[OSError]) -> dict[str, Any] | None:
    """Return what a file holds; None if it is missing, or damaged or can't be read, which becomes a problem."""
    try:
        return read_mapping(path, layout.files)
    except FileNotFoundError:
        return None
    except UnreadableError as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
        failures.append(error)
    return None


def _checked(mapping: Mapping[str, Any], path: Path, problems: list[str]) -> dict[str, Any]:
    """Return the valid fields of a record, as JSON; the others become problems."""
    checked = {}
    for name, reader in codec.readers(RunRecord).items():
        if mapping.get(name) is None or name in _NOT_IN_FILES:
            continue
        try:
            reader.read(mapping[name])
            checked[name] = plain(mapping[name])
        except (TypeError, ValueError, OverflowError, UnreadableError) as error:
            problems.append(f"{path}: {name}: {error}")
    return checked


def make_record(run_dir: str, facts: RunFacts) -> RunRecord:
    """Return the record of a run as it is now; raises CorruptDataError if the facts are not those of a run."""
    members = Description(facts.members)
    live = False if members.complete is True else liveness.members_live(members)
    layout = RunLayout(run_dir)
    where = {"run_id": layout.run_id, "experiment": layout.experiment, "dir": run_dir}
    return RunRecord.from_dict({**facts.record, **where, "status": find_status(members, live), "live": live})


def read_record(layout: RunLayout) -> RunRecord:
    """Return the record of a run as its files and the kernel have it now.

    Raises
    ------
    RunNotFoundError
        If there is no run.
    """
    if not is_run(layout):
        raise RunNotFoundError(f"no run in {layout.dir}: it has no run.yaml and no records")
    return make_record(str(layout.dir), read_facts(layout))
