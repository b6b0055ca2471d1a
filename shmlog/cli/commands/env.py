"""``shmlog env``: list the environment variables that shmlog reads, and their values."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from shmlog.base import variables
from shmlog.cli.output import print_json
from shmlog.cli.parser import add_command
from shmlog.cli.text import clean, table

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands

_MEANINGS = {
    variables.ROOT: "folder of all experiments, where none is given (else runs)",
    variables.EXPERIMENT: "experiment of a run, where init is given none (else default)",
    variables.NAME: "name of a run, where init is given none",
    variables.TAGS: "tags of a run, separated by commas, where init is given none",
    variables.GROUP: "group of a run, where init is given none",
    variables.CONFIG: "parameters of a run, below those that init is given: JSON, or a=1,b=2",
    variables.QUIET: "anything but 0: no word at the end of a run on a terminal, where init is not given quiet",
    "SHMLOG_MODE": "disabled: runs do nothing; strict: a call without a run raises; else enabled",
    "SHMLOG_RANK": "rank of this process, before RANK, SLURM_PROCID and the like",
    "SHMLOG_RUN": "set by init: the run that its children follow",
}
_EXAMPLE = """
shmlog env
SHMLOG_ROOT=/data/runs SHMLOG_TAGS=nightly,gpu python train.py
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``env``."""
    add_command(commands, "env", run, "list the environment variables that shmlog reads", _EXAMPLE)


def run(args: argparse.Namespace) -> int:
    """List the variables."""
    if args.json:
        print_json({name: os.environ.get(name) for name in _MEANINGS})
        return 0
    rows = [(name, clean(os.environ.get(name, "-")), meaning) for name, meaning in _MEANINGS.items()]
    for line in table(("variable", "value", "meaning"), rows, ("variable", "value", "meaning")):
        print(line)
    return 0
