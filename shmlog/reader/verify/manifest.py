"""Checks of what is in the files of a run, against manifest.json, and of artifacts, against what was logged."""

from __future__ import annotations

from pathlib import Path

from shmlog.errors import UnreadableError
from shmlog.folder.artifacts import EVENT_TYPE
from shmlog.folder.content import Content, content_at, is_digest
from shmlog.folder.layout import RunLayout
from shmlog.folder.manifest import SCHEMA, listed_files
from shmlog.folder.runfile import read_sealed_mapping
from shmlog.reader.artifacts import find_artifacts
from shmlog.reader.read import read_events
from shmlog.reader.snapshot import Snapshot
from shmlog.reader.verify.report import ERROR, Report


def check(layout: RunLayout, snapshot: Snapshot, report: Report) -> None:
    """Check the files of a run that is complete, if it has a manifest, and its artifacts."""
    listed = _read(layout, report) if snapshot.complete else None
    known = {} if listed is None else _check_files(layout, listed, report)
    _check_artifacts(layout, snapshot, known, report)


def _read(layout: RunLayout, report: Report) -> dict[str, Content] | None:
    """Return what the manifest says of each file; None if there is no manifest, or it is damaged."""
    try:
        manifest, fault = read_sealed_mapping(layout.manifest, layout.files)
    except FileNotFoundError:
        return None  # of a run of an earlier version, or in which it could not be written
    except (UnreadableError, OSError) as error:
        report.error(layout.manifest, str(error).removeprefix(f"{layout.manifest}: "))
        return None
    files = manifest.get("files")
    contents = {name: _content(entry) for name, entry in files.items()} if isinstance(files, dict) else {"": None}
    if fault or manifest.get("schema") != SCHEMA or None in contents.values():
        report.error(layout.manifest, "is damaged, or of another version")
        return None
    return {name: content for name, content in contents.items() if content is not None}


def _content(entry: object) -> Content | None:
    if not isinstance(entry, dict) or set(entry) != set(Content._fields):
        return None
    size, digest = entry["size_bytes"], entry["digest"]
    return Content(size, digest) if type(size) is int and size >= 0 and is_digest(digest) else None


def _check_files(layout: RunLayout, listed: dict[str, Content], report: Report) -> dict[Path, Content]:
    """Check each file that no other check has reported; return the content of those that are as they were."""
    there = {path.relative_to(layout.dir).as_posix(): path for path in sorted(listed_files(layout))}
    damaged = {finding.file for finding in report.findings if finding.severity == ERROR}
    known = {}
    for name, due in listed.items():
        path = there.pop(name, None)
        if path is None:
            report.error(layout.dir / name, "is missing, or no regular file; manifest.json lists it")
        elif path not in damaged and (fault := _fault(layout, path, due)):
            report.error(path, fault)
        else:
            known[path] = due
    for path in there.values():
        report.warning(path, "was put there after the run: manifest.json does not list it")
    return known


def _fault(layout: RunLayout, path: Path, due: Content) -> str | None:
    try:
        with layout.files.open(path) as file:
            present = content_at(file.fileno(), due.algorithm)
    except UnreadableError as error:  # it is no longer what `listed_files` has listed
        return str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return f"can't be read ({error.strerror})"
    if present == due:
        return None
    if present.size_bytes == due.size_bytes:
        return "is not what manifest.json lists (its digest differs)"
    return f"is not what manifest.json lists ({present.size_bytes:,} bytes, {due.size_bytes:,} in the run)"


def _check_artifacts(layout: RunLayout, snapshot: Snapshot, known: dict[Path, Content], report: Report) -> None:
    reported = {finding.file for finding in report.findings}
    is_imported = isinstance(snapshot.described.source, dict)
    try:
        artifacts = list(find_artifacts(layout, read_events(layout, snapshot, EVENT_TYPE)[0]))
    except OSError as error:  # also where the disk has failed only now, and not when the events were checked
        place = Path(error.filename or layout.events)
        report.error(place, f"can't be read ({error.strerror}): artifacts are not checked")
        return
    for artifact in artifacts:
        report.counts["artifacts"] += 1
        if artifact.path in reported:
            continue
        if is_imported and layout.files.state(artifact.path) is None:
            report.warning(artifact.path, "is not here: what the run was imported from did not hold it")
            continue
        fault = artifact.fault(known.get(artifact.path))
        if fault:
            report.error(artifact.path, fault)
        elif snapshot.complete and artifact.digest is None and artifact.path not in known:
            report.warning(artifact.path, "was not logged: nothing says what should be in it")
