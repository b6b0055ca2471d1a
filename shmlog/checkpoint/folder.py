"""The checkpoints of one name in a folder: find, load, delete and copy them."""

from __future__ import annotations

import os
from pathlib import Path

from shmlog.base.warn import warn_caller
from shmlog.checkpoint.arguments import whole_number
from shmlog.checkpoint.container import verify
from shmlog.checkpoint.encoded import Checkpoint, read_checkpoint
from shmlog.checkpoint.files import CheckpointInfo, Index, checkpoint_files, file_name, read_info
from shmlog.checkpoint.pickled import is_pickled, read_pickled
from shmlog.checkpoint.publish import copy
from shmlog.errors import CheckpointNotFoundError, CorruptDataError, UnreadableError
from shmlog.folder.names import check_id

#: How a checkpoint is named: its step, its file, or what `list` returned.
Which = int | str | os.PathLike[str] | CheckpointInfo


class CheckpointFolder:
    """Finds, loads, deletes and copies checkpoints; `CheckpointManager` adds the saving."""

    def __init__(self, folder: str | os.PathLike[str], name: str, *, allow_pickle: bool) -> None:
        self.folder = Path(os.path.abspath(folder))
        self.name = check_id(name, "name")
        self.allow_pickle = allow_pickle
        self._index = Index(self.folder, self.name)

    # ---- finding ----

    def list(self) -> list[CheckpointInfo]:
        """Return the checkpoints of this name, oldest first; warns of damaged ones."""
        return self._index.scan()

    def latest(self) -> CheckpointInfo | None:
        """Return the checkpoint saved last, or None."""
        return next(reversed(self._index.scan()), None)

    def _path(self, which: Which) -> Path:
        if isinstance(which, CheckpointInfo):
            return which.path
        if isinstance(which, str | os.PathLike):
            return Path(which)
        path = self.folder / file_name(self.name, whole_number("which", which, 0))
        if not path.exists():
            raise CheckpointNotFoundError(f"{self.folder}: no checkpoint {self.name!r} of step {which}")
        return path

    # ---- loading ----

    def load(self, which: Which | None = None) -> Checkpoint:
        """Read a checkpoint back, after its checksum has been checked.

        Parameters
        ----------
        which : int, path or CheckpointInfo, optional
            A step, a file, or what `list` returned. A file may be one that another program has pickled,
            such as checkpointing. Default: the newest; if that one is damaged the one before it, with a warning.

        Returns
        -------
        Checkpoint
            With ``state``, ``info`` and `restore_rng`.

        Raises
        ------
        CheckpointNotFoundError
            If there is none.
        CorruptDataError
            If it is damaged, or all are.
        UnsafeDataError
            If it holds pickled objects and the manager was made without ``allow_pickle``.
        MissingExtraError
            If it holds tensors of torch, which is not installed.
        """
        if which is None:
            return self._load_newest()
        path = self._path(which)
        try:
            if is_pickled(path):
                return read_pickled(path, allow_pickle=self.allow_pickle)
            return read_checkpoint(path, allow_pickle=self.allow_pickle)
        except FileNotFoundError as error:
            raise CheckpointNotFoundError(f"{path}: no such checkpoint") from error

    def _load_newest(self) -> Checkpoint:
        for info in reversed(self._index.scan()):
            try:
                return read_checkpoint(info.path, allow_pickle=self.allow_pickle)
            except (UnreadableError, FileNotFoundError) as error:
                warn_caller(f"passed over, trying the one before: {error}")
        files = checkpoint_files(self.folder, self.name)
        if files:
            several = f"all {len(files)} checkpoints {self.name!r}"
            raise CorruptDataError(f"{self.folder}: {several} are damaged or refused, as the warnings say")
        raise CheckpointNotFoundError(f"{self.folder}: no checkpoint {self.name!r}")

    # ---- files ----

    def delete(self, *which: Which) -> None:
        """Delete checkpoints of this name; ``delete(*manager.list())`` deletes all.

        Raises
        ------
        CheckpointNotFoundError
            If one is not in the folder, or not of this name. Nothing was deleted.
        """
        own = set(checkpoint_files(self.folder, self.name))
        paths = [Path(os.path.abspath(self._path(checkpoint))) for checkpoint in which]
        for path in paths:
            if path not in own:
                raise CheckpointNotFoundError(f"{path}: no checkpoint {self.name!r} in {self.folder}")
        for path in paths:
            path.unlink(missing_ok=True)

    def backup_checkpoint(self, which: Which | None, backup_dir: str | os.PathLike[str]) -> Path:
        """Copy a checkpoint into another folder, checked, durably, under its own name.

        Parameters
        ----------
        which : int, path or CheckpointInfo, or None
            As for `load`; None is the newest.
        backup_dir : path
            Made if it does not exist.

        Returns
        -------
        Path
            The copy.

        Raises
        ------
        CheckpointNotFoundError
            If there is no such checkpoint.
        CorruptDataError
            If it is damaged. Nothing was copied.
        StorageError
            If the copy can't be written.
        """
        if which is None:
            which = self.latest()
            if which is None:
                raise CheckpointNotFoundError(f"{self.folder}: no checkpoint {self.name!r}")
        path = self._path(which)
        try:
            read_info(path)
            verify(path)
        except FileNotFoundError as error:
            raise CheckpointNotFoundError(f"{path}: no such checkpoint") from error
        return copy(path, Path(os.path.abspath(backup_dir)))
