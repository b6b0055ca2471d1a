"""A folder of experiment_logger and checkpointing: ``NAME_structured.jsonl``, ``NAME.log``, ``NAME_iter_000001.ckpt``.

Checkpoints may also lie in a folder ``checkpoints``. They are pickles, and stay what they are: `CheckpointManager.load`
reads one, if it is allowed to.
"""

from __future__ import annotations

import re
from pathlib import Path

from shmlog.errors import RefusedError
from shmlog.transfer.imported import ImportedRun
from shmlog.transfer.importers import jsonl

_LOG = "_structured.jsonl"
_FILES = re.compile(r"(?P<name>.+?)(_structured\.jsonl|_(iter|ckpt)_\d{4,}\.ckpt)", re.DOTALL)
_CHECKPOINTS = "checkpoints"


def name_in(file: str) -> str | None:
    """Return the name of the experiment in the name of a file, or None if it is no such file."""
    match = _FILES.fullmatch(file)
    return match["name"] if match else None


def read(path: Path) -> ImportedRun:
    """Return the run of a folder, or, of a path ``FOLDER/NAME``, the one of that name; the runs, if there are several.

    Raises
    ------
    RefusedError
        If there is none.
    """
    folder, wanted = (path, None) if path.is_dir() else (path.parent, path.name)
    names = sorted({name for file in _files(folder) if (name := name_in(file.name))})
    if wanted is None and len(names) > 1:
        return ImportedRun("", further=[str(folder / name) for name in names])
    name = names[0] if names and wanted is None else wanted
    if name not in names:
        raise RefusedError(f"{path}: not a run of experiment_logger; the folder has {', '.join(names) or 'none'}")
    log = folder / f"{name}{_LOG}"
    run = jsonl.read(log) if log.is_file() else ImportedRun(str(name))
    run.described.name = run.described.name or name
    for file in _files(folder):
        if file != log:
            _add_file(run, file, str(name), where=file.relative_to(folder).as_posix(), others=names[1:])
    return run


def _add_file(run: ImportedRun, file: Path, name: str, *, where: str, others: list[str]) -> None:
    """Add a file as an artifact if it belongs to the run; report one that belongs to no run with the first of them."""
    is_checkpoint = name_in(file.name) == name
    if is_checkpoint or file.name in (f"{name}.log", f"{name}_index.json"):
        if file.is_symlink() or not file.is_file():
            run.problems.add("files left out", f"{where}: not a regular file; left out")
            return
        run.artifacts[f"{_CHECKPOINTS if is_checkpoint else 'experiment_logger'}/{file.name}"] = file
        if is_checkpoint:
            run.notes.add("checkpoints", f"{where}: {_kind_of(file)}; kept as it is")
    elif name not in others and not any(file.name.startswith(other) for other in others):
        run.problems.add("files left out", f"{where} belongs to no experiment; left out")


def _files(folder: Path) -> list[Path]:
    """Return the files of the folder, and of the one of its checkpoints."""
    below = folder / _CHECKPOINTS
    others = below.iterdir() if below.is_dir() and not below.is_symlink() else ()
    return sorted(file for file in (*folder.iterdir(), *others) if not file.is_dir())


def _kind_of(file: Path) -> str:
    with open(file, "rb") as content:
        begin = content.read(4)
    if begin[:1] == b"\x80":
        return "a pickle, which CheckpointManager(…, allow_pickle=True).load reads"
    return "a zip archive, as torch.save writes" if begin == b"PK\3\4" else "a checkpoint of an unknown form"
