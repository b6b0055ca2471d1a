"""How a process logs the artifacts of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shmlog.errors import RunStateError
from shmlog.folder.layout import RunLayout

if TYPE_CHECKING:
    from shmlog.run.keep import Source


class Artifacts:
    """The methods of a `Run` that keep files."""

    id: Any
    enabled: Any
    status: Any
    is_owner: Any
    is_open: Any
    event: Callable[..., None]
    _layout: RunLayout
    _next: Callable[[], Any]

    def log_artifact(self, source: Source, name: str | None = None, *, algorithm: str = "sha256") -> None:
        """Keep a copy of a file, of each file in a folder, or of data as an artifact, with an event for each.

        Contents are stored once for all runs of a root. Logging the same artifact again changes nothing.

        Parameters
        ----------
        source : path, bytes or file object
            A file or a folder. It is read at once and may be changed afterwards. In a folder, links to files
            within it are logged as files, and empty folders are not logged. Or what the file is to hold: bytes, or
            an object with ``read()``, which is read from its begin if it can go there; texts are written in UTF-8.
        name : str, optional
            Name in the run: a path with ``/``. Default: the last part of a path; data needs one.
        algorithm : str
            Algorithm of the digest: ``sha256``, ``sha512`` or ``blake2b``.

        Raises
        ------
        TypeError, ValueError
            If the name is not usable or is missing, or ``source`` is a device, a pipe, an empty folder or one with a
            link out of it. Nothing was logged.
        RunStateError
            If the run has an artifact with that name and other content, or has ended. Nothing was logged.
        StorageError
            If a file can't be read or stored, or has changed meanwhile. Nothing was logged, and the run goes on.
        """
        if not self.enabled:
            return
        if self.status != "running":
            raise RunStateError(f"run {self.id} has ended in this process ({self.status}): it takes no artifacts")
        run = self if self.is_owner or self.is_open else self._next()
        if run is None:
            raise RunStateError(f"run {self.id} has ended: it takes no artifacts")
        if run is not self:
            run.log_artifact(source, name, algorithm=algorithm)
            return
        from shmlog.run.keep import keep  # rarely needed, and slow to import

        for data in keep(self._layout, source, name, algorithm):
            self.event("artifact", data)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text as an artifact, in UTF-8.

        Parameters
        ----------
        text : str
            Written as it is, line ends included.
        name : str
            Name in the run: a path with ``/``, such as ``"notes/report.md"``.

        Raises
        ------
        TypeError, ValueError, RunStateError, StorageError
            As `log_artifact` does. Nothing was logged.
        """
        if not isinstance(text, str):
            raise TypeError(f"log_text() takes a str, not {type(text).__name__}")
        self.log_artifact(text.encode(), name)

    def log_dict(self, data: Any, name: str) -> None:
        """Keep a dict or list as an artifact: as JSON or YAML, as the end of the name says.

        Parameters
        ----------
        data : mapping or list
            Values are converted as those of events; what can't be is refused.
        name : str
            Name in the run: a path with ``/`` that ends in ``.json``, ``.yaml`` or ``.yml``.

        Raises
        ------
        TypeError, ValueError, RunStateError, StorageError
            As `log_artifact` does; and for a value that can't be converted, or another end. Nothing was logged.
        """
        from shmlog.run.documents import document  # rarely needed

        self.log_artifact(document(data, name), name)
