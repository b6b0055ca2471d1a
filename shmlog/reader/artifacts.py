"""The artifacts of a run: those that were logged, and those that exist."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from shmlog.base.times import read_time
from shmlog.errors import ArtifactNotFoundError, CorruptDataError, UnreadableError
from shmlog.folder.artifacts import Logged, media_type_of
from shmlog.folder.content import ALGORITHM, Content, content_at, copy_content
from shmlog.folder.files import LOCAL, RunFiles
from shmlog.folder.layout import RunLayout

_FOLDER_TYPE = "inode/directory"  # as file managers call it
_NAMES_MAX = 10
_DIGITS = re.compile("[a-z0-9]+:[0-9a-f]{8,}")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file that belongs to a run, or a folder of such files.

    Attributes
    ----------
    name : str
        Its path below the run's folder artifacts/, with ``/`` between the parts, as it was logged.
    path : Path
        Its file, which any program can read and none may write: runs share equal contents.
    size_bytes : int
        As it was logged; of a folder, the sum over its files.
    digest : str or None
        ``"sha256:"`` and hexadecimal digits. None of a folder, and of a file that was put there without logging.
    media_type : str
        Guessed from the end of its name, such as ``"image/png"``.
    created_at : datetime
        When it was logged, or else last written, in UTC.
    files : tuple of Artifact
        The files of a folder; empty for a file.
    """

    name: str
    path: Path
    size_bytes: int
    digest: str | None
    media_type: str
    created_at: datetime
    files: tuple[Artifact, ...] = ()
    _run_files: RunFiles = field(default=LOCAL, repr=False, compare=False)

    def open(self, mode: str = "rb") -> IO[Any]:
        """Open the file for reading.

        Parameters
        ----------
        mode : str
            ``"rb"``, or ``"r"`` for text in UTF-8.

        Raises
        ------
        ValueError
            If it is a folder, or ``mode`` is not for reading.
        CorruptDataError
            If it is missing, or not a regular file.
        """
        if mode not in ("rb", "r"):
            raise ValueError(f"an artifact is opened for reading alone, with mode 'rb' or 'r', not {mode!r}")
        if self.files:
            raise ValueError(f"artifact {self.name!r} is a folder: open one of its files")
        file = self._open()
        return io.TextIOWrapper(file, encoding="utf-8") if mode == "r" else file

    def copy_to(self, target: str | os.PathLike[str]) -> None:
        """Copy the file and check the copy; a copy that differs from what was logged is removed.

        Parameters
        ----------
        target : path
            Path of the copy, which must not exist.

        Raises
        ------
        ValueError
            If the artifact is a folder.
        FileExistsError
            If ``target`` exists.
        CorruptDataError
            If the file is missing or has changed.
        """
        algorithm = self.digest.partition(":")[0] if self.digest else ALGORITHM
        with self.open() as source:
            fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            try:
                fault = self.fault(copy_content(source.fileno(), fd, algorithm))
                if fault:
                    raise CorruptDataError(f"{self.path}: {fault}")
            except BaseException:
                os.unlink(target)
                raise
            finally:
                os.close(fd)

    def verify(self) -> None:
        """Read the file, or all files of the folder, and compare them with what was logged.

        Raises
        ------
        CorruptDataError
            If one is missing or has changed; the message names it.
        """
        for file in self.files or (self,):
            fault = file.fault()
            if fault:
                raise CorruptDataError(f"{file.path}: {fault}")

    def fault(self, content: Content | None = None) -> str | None:
        """Return what is wrong with the file, or None; ``content`` is that of the file if the caller has read it."""
        algorithm = self.digest.partition(":")[0] if self.digest else None
        try:
            if content is None or content.algorithm != algorithm:
                content = self._content(algorithm or "sha256")
        except UnreadableError as error:
            return str(error).removeprefix(f"{self.path}: ")
        except OSError as error:
            return f"can't be read ({error.strerror})"
        if self.digest is not None and content.size_bytes != self.size_bytes:
            return f"has {content.size_bytes:,} bytes; {self.size_bytes:,} were logged"
        if self.digest is not None and content.digest != self.digest:
            return f"has changed: its content is {content.digest}; {self.digest} was logged"
        return None

    def _content(self, algorithm: str) -> Content:
        with self._open() as file:
            return content_at(file.fileno(), algorithm)

    def _open(self) -> io.BufferedReader:
        """Open the file, unless a link leads to it, or it is not a regular file."""
        try:
            return self._run_files.open_below(self.path.parents[self.name.count("/")], self.name)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CorruptDataError(f"{self.path}: is missing") from error


def find_artifacts(layout: RunLayout, events: Iterable[Mapping[str, Any]]) -> list[Artifact]:
    """Return the artifacts that events name, even if they are missing, and all other files, by name."""
    logged = {entry.name: entry for entry in map(Logged.of_event, events) if entry is not None}
    artifacts = [_of_event(layout, entry) for entry in logged.values()]
    for path in layout.files.below(layout.artifacts):
        name = path.relative_to(layout.artifacts).as_posix()
        state = layout.files.state(path) if name not in logged else None
        if state is not None:
            artifacts.append(_of_file(layout, name, state))
    return sorted(artifacts, key=lambda artifact: artifact.name)


def _of_event(layout: RunLayout, logged: Logged) -> Artifact:
    created_at = read_time(logged.timestamp) or datetime.fromtimestamp(0, UTC)  # 1970: not an event of shmlog
    return Artifact(
        name=logged.name, path=layout.artifacts / logged.name, size_bytes=logged.content.size_bytes,
        digest=logged.content.digest, media_type=logged.media_type, created_at=created_at, _run_files=layout.files,
    )  # fmt: skip


def _of_file(layout: RunLayout, name: str, state: os.stat_result) -> Artifact:
    return Artifact(
        name=name, path=layout.artifacts / name, size_bytes=state.st_size, digest=None, media_type=media_type_of(name),
        created_at=datetime.fromtimestamp(state.st_mtime, UTC), _run_files=layout.files,
    )  # fmt: skip


def choose(layout: RunLayout, artifacts: list[Artifact], name: str) -> Artifact:
    """Return the file, or else the folder, of a name, or the file of a digest; raises ArtifactNotFoundError."""
    for artifact in artifacts:
        if artifact.name == name:
            return artifact
    same = [artifact for artifact in artifacts if artifact.digest and artifact.digest.startswith(name)]
    if same and _DIGITS.fullmatch(name):
        if len({artifact.digest for artifact in same}) > 1:
            names = ", ".join(artifact.name for artifact in same[:_NAMES_MAX])
            raise ArtifactNotFoundError(f"run {layout.run_id}: several artifacts have a digest {name}…: {names}")
        return same[0]
    files = tuple(artifact for artifact in artifacts if artifact.name.startswith(f"{name}/"))
    if not files:
        names = ", ".join(artifact.name for artifact in artifacts[:_NAMES_MAX]) or "none"
        more = f" and {len(artifacts) - _NAMES_MAX} more" if len(artifacts) > _NAMES_MAX else ""
        raise ArtifactNotFoundError(f"run {layout.run_id} has no artifact {name!r}; it has {names}{more}")
    return Artifact(
        name=name, path=layout.artifacts / name, size_bytes=sum(file.size_bytes for file in files), digest=None,
        media_type=_FOLDER_TYPE, created_at=max(file.created_at for file in files), files=files,
    )  # fmt: skip
