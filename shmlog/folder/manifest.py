"""manifest.json: size and digest of each file of a finished run that has no reason to change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from shmlog.base.durable import TEMPORARY_SUFFIX
from shmlog.folder import runfile
from shmlog.folder.content import content_of
from shmlog.folder.layout import EVENTS, RUN_LOG, RunLayout

SCHEMA = 1


def listed_files(layout: RunLayout) -> Iterator[Path]:
    """Yield the files that a manifest lists.

    It does not list run.yaml, which has its own checksum, annotations, which people change later, checkpoints,
    of which old ones are removed, and foreign files in the folder.
    """
    texts = [file for series in (EVENTS, RUN_LOG) for file in layout.text_files(series).values()]
    for file in (layout.config_yaml, *texts, *layout.provenance_files()):
        if layout.files.is_file(file):
            yield file
    for folder in (layout.metrics.parent, layout.large, layout.artifacts):
        for file in layout.files.below(folder):
            if folder == layout.artifacts or not file.name.endswith(TEMPORARY_SUFFIX):
                yield file


def write_manifest(layout: RunLayout) -> None:
    """Write the manifest of a complete run, or replace the existing one; reads every byte of the run.

    Raises
    ------
    OSError
        If a file can't be read, or the manifest can't be written. An existing manifest is unchanged then.
    """
    files = {}
    for path in sorted(listed_files(layout)):
        content = content_of(path)
        name = path.relative_to(layout.dir).as_posix()
        files[name] = content._asdict()
    runfile.write_sealed(layout.manifest, {"schema": SCHEMA, "run_id": layout.run_id, "files": files})
