"""``shmlog artifacts``: list the artifacts of a run, check them, copy one out."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog.cli.find import resolve_run
from shmlog.cli.output import print_json, say
from shmlog.cli.parser import FOUND, UsageError, add_command, add_root_option, path
from shmlog.cli.text import plural, relative, size, table
from shmlog.errors import StorageError

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands
    from shmlog.reader.artifacts import Artifact

_EXAMPLE = """
shmlog artifacts                              those of the newest run below ./runs
shmlog artifacts verify runs/digits           read every byte of the newest run's of an experiment
shmlog artifacts --get model.bin -o best.bin  copy one, or a folder of them, and check the copy
"""

_COLUMNS = ("name", "size", "type", "digest", "state")


def add_parser(commands: Commands) -> None:
    """Add the command ``artifacts``."""
    parser = add_command(commands, "artifacts", run, "list a run's artifacts, check them, copy one out", _EXAMPLE)
    parser.usage = "shmlog artifacts [-h] [--json] [--debug] [--root ROOT] [--get NAME] [-o OUT] [verify] [RUN]"
    text = "verify: read every byte of each; RUN: as for show (default: latest)"
    parser.add_argument("words", nargs="*", metavar="RUN", type=path, help=text)
    add_root_option(parser)
    parser.add_argument("--get", metavar="NAME", help="copy this one")
    out = "file or folder to copy to, which must not exist (default: the last part of NAME)"
    parser.add_argument("-o", "--output", metavar="OUT", type=path, help=out)


def run(args: argparse.Namespace) -> int:
    """List the artifacts, verify them, or copy one."""
    from shmlog.reader.stored import load

    every_byte = args.words[:1] == ["verify"]
    places = args.words[every_byte:]
    if len(places) > 1:
        raise UsageError(f"one run, not {len(places)}: {' '.join(places)}")
    if args.get is None and args.output is not None:
        raise UsageError("-o needs --get NAME, the artifact to copy")
    if args.get is not None and every_byte:
        raise UsageError("--get checks what it copies: leave 'verify' out")
    stored = load(resolve_run(places[0] if places else None, args.root))
    if args.get is not None:
        return _get(stored.artifact(args.get), args.output, args.json)
    artifacts = stored.artifacts
    faults = {artifact.name: artifact.fault() if every_byte else None for artifact in artifacts}
    if args.json:
        print_json([_as_dict(artifact, faults[artifact.name]) for artifact in artifacts])
    else:
        _print(artifacts, faults, every_byte)
    return FOUND if any(faults.values()) else 0


def _as_dict(artifact: Artifact, fault: str | None) -> dict[str, Any]:
    return {
        "name": artifact.name, "path": artifact.path, "size_bytes": artifact.size_bytes, "digest": artifact.digest,
        "media_type": artifact.media_type, "created_at": artifact.created_at, "damage": fault,
    }  # fmt: skip


def _print(artifacts: list[Artifact], faults: dict[str, str | None], every_byte: bool) -> None:
    if not artifacts:
        say("shmlog: no artifacts")
        return
    rows = [_row(artifact, faults[artifact.name], every_byte) for artifact in artifacts]
    for line in table(_COLUMNS, rows, left=("name", "type", "digest", "state")):
        print(line)
    for artifact in artifacts:
        if faults[artifact.name]:
            say(f"shmlog: error: {relative(artifact.path)}: {faults[artifact.name]}")
    total = f"{plural(len(artifacts), 'artifact')}, {size(sum(artifact.size_bytes for artifact in artifacts))}"
    damaged = sum(map(bool, faults.values()))
    say(f"shmlog: {total}" + (f"; {len(artifacts) - damaged} sound, {damaged} damaged" if every_byte else ""))


def _row(artifact: Artifact, fault: str | None, every_byte: bool) -> tuple[object, ...]:
    state = "damaged" if fault else "not logged" if artifact.digest is None else "sound" if every_byte else "logged"
    digest = artifact.digest[: artifact.digest.index(":") + 13] if artifact.digest else None
    return (artifact.name, size(artifact.size_bytes), artifact.media_type, digest, state)


# ---- copying ----


def _get(artifact: Artifact, output: str | None, json: bool) -> int:
    target = Path(output or artifact.name.rpartition("/")[2])
    if os.path.lexists(target):
        raise StorageError(f"{target} is there already: name another place with -o")
    targets = {target / file.name.removeprefix(f"{artifact.name}/"): file for file in artifact.files}
    for copy, file in (targets or {target: artifact}).items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        file.copy_to(copy)
        if not json:
            say(f"shmlog: wrote {relative(copy)} ({size(file.size_bytes)})")
    if json:
        print_json({"name": artifact.name, "files": list(targets or [target])})
    return 0
