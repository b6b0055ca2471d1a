"""``shmlog checkpoints``: list the checkpoints of a run or folder, and check them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog.cli.find import resolve_run
from shmlog.cli.output import command, print_json, say
from shmlog.cli.parser import FOUND, UsageError, add_command, add_root_option, path
from shmlog.cli.text import plural, relative, size, table, value
from shmlog.errors import CheckpointNotFoundError, RunNotFoundError

if TYPE_CHECKING:
    from shmlog.checkpoint.survey import CheckpointFile
    from shmlog.cli.parser import Commands

_EXAMPLE = """
shmlog checkpoints                      those of the newest run below ./runs
shmlog checkpoints verify runs/digits   read every byte of the newest run's of an experiment
shmlog checkpoints models               those in a folder of your own
"""

_COLUMNS = ("file", "name", "step", "metrics", "size", "saved (UTC)", "state")


def add_parser(commands: Commands) -> None:
    """Add the command ``checkpoints``."""
    summary = "list checkpoints, and check them with verify"
    parser = add_command(commands, "checkpoints", run, summary, _EXAMPLE)
    parser.usage = "shmlog checkpoints [-h] [--json] [--debug] [--root ROOT] [verify] [DIR|RUN]"
    text = "verify: read every byte of each; DIR: a folder of checkpoints, or RUN: as for show (default: latest)"
    parser.add_argument("words", nargs="*", metavar="DIR|RUN", type=path, help=text)
    add_root_option(parser)


def run(args: argparse.Namespace) -> int:
    """List the checkpoints, or verify them."""
    from shmlog.checkpoint.survey import survey

    every_byte = args.words[:1] == ["verify"]
    places = args.words[every_byte:]
    if len(places) > 1:
        raise UsageError(f"one folder or run, not {len(places)}: {' '.join(places)}")
    folder = _folder(places[0] if places else None, args.root)
    checkpoints = survey(folder, every_byte=every_byte)
    if args.json:
        print_json([_as_dict(checkpoint) for checkpoint in checkpoints])
    else:
        _print(folder, checkpoints, every_byte)
    return FOUND if any(checkpoint.damage for checkpoint in checkpoints) else 0


def _folder(text: str | None, root: str) -> Path:
    """Return the folder of checkpoints that ``text`` means."""
    from shmlog.checkpoint.files import checkpoint_files
    from shmlog.checkpoint.survey import checkpoints_of
    from shmlog.folder.root import has_description

    if text is not None and not has_description(Path(text)) and checkpoint_files(Path(text)):
        return Path(text)
    try:
        return checkpoints_of(resolve_run(text, root))
    except RunNotFoundError as error:
        if text is not None and Path(text).is_dir():
            raise CheckpointNotFoundError(f"{text}: neither a checkpoint nor a run here") from error
        raise


def _as_dict(checkpoint: CheckpointFile) -> dict[str, Any]:
    header = checkpoint.info._asdict() if checkpoint.info else {}
    return {
        **header, "path": checkpoint.path, "name": checkpoint.name, "step": checkpoint.step,
        "sha256": checkpoint.sha256, "damage": checkpoint.damage,
    }  # fmt: skip


def _print(folder: Path, checkpoints: list[CheckpointFile], every_byte: bool) -> None:
    if not checkpoints:
        say(f"shmlog: no checkpoints in {relative(folder)}")
        return
    rows = [_row(checkpoint, "sound" if every_byte else "ok") for checkpoint in checkpoints]
    for line in table(_COLUMNS, rows, left=("file", "name", "metrics", "saved (UTC)", "state")):
        print(line)
    damaged = [checkpoint for checkpoint in checkpoints if checkpoint.damage]
    for checkpoint in damaged:
        say(f"shmlog: error: {checkpoint.damage}")
    if every_byte:
        say(f"shmlog: {plural(len(checkpoints) - len(damaged), 'checkpoint')} sound, {len(damaged)} damaged")
    else:
        say(f"shmlog: headers and sizes only; to read every byte: {command('checkpoints', 'verify', relative(folder))}")


def _row(checkpoint: CheckpointFile, sound: str) -> tuple[object, ...]:
    info, step = checkpoint.info, None if checkpoint.step is None else str(checkpoint.step)
    if info is None:
        return (checkpoint.path.name, checkpoint.name, step, None, None, None, "damaged")
    metrics = ", ".join(f"{name}={value(number)}" for name, number in info.metrics.items())
    saved = info.created_at.strftime("%Y-%m-%d %H:%M:%S")
    state = "damaged" if checkpoint.damage else sound
    return (checkpoint.path.name, checkpoint.name, step, metrics, size(info.bytes), saved, state)
