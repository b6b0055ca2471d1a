"""The run folder: every path in it is made here."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from shmlog.base.durable import TEMPORARY_SUFFIX, fsync_dir, is_there
from shmlog.errors import StorageError, UnreadableError
from shmlog.folder.files import LOCAL, RunFiles
from shmlog.folder.names import experiment_of

# `re` compiles and caches each at its first use: `init` needs none.
_LOG = r"(\d{6,})\.wal"
_KEPT_LOG = r"(\d{6,})(?:\.[1-9]\d*)?\.wal"
_PROVENANCE = r"(?:provenance(?:\.[1-9]\d*)?\.yaml|git(?:\.[1-9]\d*)?\.diff)"
_NODE = r"node=(0|[1-9]\d{0,8})"
_PART = r"part-(\d{6,})(?:-(\d{6,}))?\.parquet"
_TEMPORARY = rf"(?s:.*){re.escape(TEMPORARY_SUFFIX)}"


class Part(NamedTuple):
    """A sealed Parquet file and the logs ``first`` … ``last`` of a node that it covers."""

    first: int
    last: int
    path: Path
    node: int = 0


class TextSeries(NamedTuple):
    """A text file that goes on in others when it is full: NAME.END, NAME.1.END, NAME.2.END and so on."""

    stem: str
    end: str

    def name(self, number: int) -> str:
        """Return the name of the first file (0), or of its continuation ``number``."""
        return f"{self.stem}.{number}.{self.end}" if number else f"{self.stem}.{self.end}"

    @property
    def pattern(self) -> str:
        """A regular expression for these names, whose group is the number."""
        return rf"{self.stem}(?:\.([1-9]\d{{0,5}}))?\.{self.end}"


EVENTS = TextSeries("events", "jsonl")
RUN_LOG = TextSeries("run", "log")


class RunLayout:
    """Paths of one run folder. The constructor touches no file; ``files`` reads them."""

    files: RunFiles = LOCAL

    def __init__(self, run_dir: str | os.PathLike[str], node: int = 0) -> None:
        self.dir = Path(os.path.abspath(run_dir))
        self.run_yaml = self.dir / "run.yaml"
        self.config_yaml = self.dir / "config.yaml"
        self.annotations_yaml = self.dir / "annotations.yaml"
        self.manifest = self.dir / "manifest.json"
        self.wal = self.dir / "wal"
        self.sealed_json = self.wal / "sealed.json"
        self.flusher_log = self.wal / "flusher.log"
        self.recovered = self.wal / "recovered"
        self.kept = self.dir / "kept"
        self.node = node
        self.metrics = self.dir / "metrics" / f"node={node}"
        self.events = self.event_file(0)
        self.run_log = self.dir / RUN_LOG.name(0)
        self.large = self.dir / "large"
        self.late = self.dir / "late"
        self.artifacts = self.dir / "artifacts"
        self.checkpoints = self.dir / "checkpoints"
        self.segment = self.dir / "segment"

    @property
    def run_id(self) -> str:
        """The run's id: the name of its folder."""
        return self.dir.name

    @property
    def experiment(self) -> str:
        """The experiment's name, which that of the folder above is made from."""
        folder = self.dir.parent.name
        return experiment_of(folder) or folder  # a folder of somebody else's has its own name

    @property
    def root(self) -> Path:
        """The folder of all experiments."""
        return self.dir.parent.parent

    def make_folders(self) -> None:
        """Make the folders that a run is written into; existing ones stay."""
        self.refuse_links()
        self.wal.mkdir(exist_ok=True)
        self.metrics.mkdir(parents=True, exist_ok=True)

    def refuse_links(self) -> None:
        """Raise StorageError if one of our folders is a symlink: files written through it would land elsewhere."""
        for folder in self.linked_folders():
            if folder != self.artifacts:  # `run.keep` checks each part of an artifact's path
                raise StorageError(f"{folder} is a symlink: nothing is written through it; remove it")

    def linked_folders(self) -> list[Path]:
        """Return those of our folders that are symlinks: their targets do not belong to the run."""
        folders = (self.wal, self.kept, self.metrics.parent, self.metrics, self.large, self.late, self.artifacts)
        return [folder for folder in folders if self.files.is_link(folder)]

    def log(self, number: int) -> Path:
        """Return the path of write-ahead log ``number``."""
        return self.wal / f"{number:06d}.wal"

    def lacks_books(self) -> bool:
        """Whether the books of a run that has begun are missing: a log is removed only after they record it."""
        states = map(self.files.state, self.event_files().values())
        is_begun = bool(self.parts() or self.logs()) or any(state and state.st_size for state in states)
        return is_begun and not self.files.exists(self.log(0)) and not self.files.exists(self.sealed_json)

    def kept_log(self, number: int, again: int = 0) -> Path:
        """Return the path of log ``number`` if it is kept; ``again``: of another kept log with that number."""
        return self.kept / (f"{number:06}.{again}.wal" if again else self.log(number).name)

    def free_kept_log(self, number: int) -> Path:
        """Return a free path at which log ``number`` can be kept: no kept log is ever replaced."""
        return next(path for i in itertools.count() if not is_there(path := self.kept_log(number, i)))

    def kept_logs(self) -> list[tuple[int, Path]]:
        """Return number and path of the kept logs, ascending."""
        return sorted((int(m[1]), self.kept / m[0]) for m in self._matches(self.kept, _KEPT_LOG))

    def event_file(self, number: int) -> Path:
        """Return the path of events.jsonl (0), or of its continuation ``number``."""
        return self.dir / EVENTS.name(number)

    def event_files(self) -> dict[int, Path]:
        """Return events.jsonl and its continuations, as far as they exist, in order."""
        return self.text_files(EVENTS)

    def text_files(self, series: TextSeries) -> dict[int, Path]:
        """Return the files of a series, as far as they exist, in order."""
        files = {int(m[1] or 0): self.dir / m[0] for m in self._matches(self.dir, series.pattern)}
        return dict(sorted(files.items()))

    def provenance(self, attempt: int) -> Path:
        """Return the path of the file that describes an attempt's code and machine."""
        return self.dir / _of_attempt("provenance", attempt, "yaml")

    def git_diff(self, attempt: int) -> Path:
        """Return the path of the changes of an attempt's code since its commit."""
        return self.dir / _of_attempt("git", attempt, "diff")

    def provenance_files(self) -> list[Path]:
        """Return the existing files of both kinds, of all attempts."""
        return sorted(self.dir / m[0] for m in self._matches(self.dir, _PROVENANCE))

    def part(self, first: int, last: int | None = None) -> Path:
        """Return the path of the part of log ``first``, or of logs ``first`` … ``last``."""
        name = f"part-{first:06d}" if last is None else f"part-{first:06d}-{last:06d}"
        return self.metrics / f"{name}.parquet"

    def logs(self) -> list[int]:
        """Return the numbers of the write-ahead logs present, ascending."""
        return sorted(int(m[1]) for m in self._matches(self.wal, _LOG))

    def parts(self, *, but: Container[Path] = (), below: int | None = None) -> list[Part]:
        """Return the existing parts that no other part covers, ascending.

        ``but``: ignore these files. ``below``: ignore parts of logs from this number on.
        """
        return self._parts(but, below)[0]

    def parts_of_nodes(self, *, but: Container[Path] = (), below: int | None = None) -> list[Part]:
        """Return what `parts` does, and the parts of all other nodes; ``below`` counts logs of this node alone."""
        others = [part for other in self.other_nodes() for part in other.parts(but=but)]
        return self.parts(but=but, below=below) + others

    def covered_parts(self) -> list[Part]:
        """Return the existing parts that another part covers."""
        return self._parts()[1]

    def other_nodes(self) -> list[RunLayout]:
        """Return the layouts of the same run on the other nodes whose metrics are here, ascending."""
        nodes = sorted(int(m[1]) for m in self._matches(self.metrics.parent, _NODE))
        return [RunLayout(self.dir, node) for node in nodes if node != self.node]

    def _parts(self, but: Container[Path] = (), below: int | None = None) -> tuple[list[Part], list[Part]]:
        matches = self._matches(self.metrics, _PART)
        present = [Part(int(m[1]), int(m[2] or m[1]), self.metrics / m[0], self.node) for m in matches]
        present = [part for part in present if part.path not in but and (below is None or part.last < below)]
        present.sort(key=lambda part: (part.first, -part.last))
        uncovered: list[Part] = []
        covered: list[Part] = []
        for part in present:
            is_covered = bool(uncovered) and part.last <= uncovered[-1].last
            (covered if is_covered else uncovered).append(part)
        return uncovered, covered

    def leftovers(self) -> list[Path]:
        """Return the temporary files among those of the run, also those that are being written."""
        folders = (self.dir, self.metrics, self.wal)
        return [path for folder in folders for path in sorted(folder / m[0] for m in self._matches(folder, _TEMPORARY))]

    def _matches(self, folder: Path, pattern: str) -> Iterator[re.Match[str]]:
        with suppress(FileNotFoundError, NotADirectoryError):
            yield from filter(None, (re.fullmatch(pattern, name) for name in self.files.names(folder)))


def _of_attempt(name: str, attempt: int, end: str) -> str:
    return f"{name}.{end}" if attempt == 1 else f"{name}.{attempt}.{end}"


class _HasDir(Protocol):
    @property
    def dir(self) -> Path: ...


RunLike = str | os.PathLike[str] | _HasDir
"""A run's folder, or an object with a ``dir``: `shmlog.Run`, `shmlog.StoredRun`, `shmlog.reader.model.RunRecord`."""


def folder_of(run: RunLike, expected: str) -> str | os.PathLike[str]:
    """Return the folder of a run; raises TypeError, whose message begins with ``expected``, if it has none."""
    folder = run if isinstance(run, (str, os.PathLike)) else getattr(run, "dir", None)
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"{expected}, or an object with its 'dir', such as a Run; not {type(run).__name__}")
    return folder


def fsync_run(layout: RunLayout) -> None:
    """Make the run's existence durable: the files that `init` wrote, its folders, and the names of those above.

    It is not known which of the folders above are as new as the run: all that may be read are fsynced.
    """
    for path in (layout.config_yaml, layout.run_yaml):
        try:
            with layout.files.open(path) as file:
                os.fsync(file.fileno())
        except (FileNotFoundError, UnreadableError):
            pass  # lost in a power failure, or not ours: nothing to make durable
    for folder in (layout.metrics, layout.metrics.parent, layout.dir, layout.dir.parent):
        fsync_dir(folder)
    for folder in layout.dir.parent.parents:
        try:
            fsync_dir(folder)
        except OSError:
            return  # not our folder
