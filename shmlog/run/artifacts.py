"""How a process logs the artifacts of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from shmlog.errors import RunStateError
from shmlog.folder.layout import RunLayout


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

    def log_artifact(self, path: str | os.PathLike[str], name: str | None = None, *, algorithm: str = "sha256") -> None:
        """Keep a copy of a file, or of each file in a folder, as an artifact, with an ``artifact`` event for each.

        Contents are stored once for all runs of a root. Logging the same artifact again changes nothing.

        Parameters
        ----------
        path : path
            A file or a folder. It is read at once and may be changed afterwards. In a folder, links to files
            within it are logged as files, and empty folders are not logged.
        name : str, optional
            Name in the run: a path with ``/``. Default: the last part of ``path``.
        algorithm : str
            Algorithm of the digest: ``sha256``, ``sha512`` or ``blake2b``.

        Raises
        ------
        TypeError, ValueError
            If the name is not usable, or ``path`` is a device, a pipe, an empty folder or one with a link out
            of it. Nothing was logged.
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
            run.log_artifact(path, name, algorithm=algorithm)
            return
        from shmlog.run.keep import keep  # rarely needed, and slow to import

        for data in keep(self._layout, path, name, algorithm):
            self.event("artifact", data)
