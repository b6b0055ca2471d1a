"""``shmlog completion``: print a script by which a shell completes commands, options and names."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from shmlog.base.extras import import_extra
from shmlog.cli.output import print_json
from shmlog.cli.parser import add_command

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands

_SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")
_EXAMPLE = """
shmlog completion bash > ~/.local/share/bash-completion/completions/shmlog
shmlog completion zsh > ~/.zfunc/_shmlog        with fpath=(~/.zfunc $fpath) before compinit in ~/.zshrc
shmlog completion fish > ~/.config/fish/completions/shmlog.fish
shmlog completion tcsh > ~/.shmlog.tcsh         with `source ~/.shmlog.tcsh` in ~/.tcshrc
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``completion``."""
    parser = add_command(commands, "completion", run, "print a script that completes shmlog's command line", _EXAMPLE)
    parser.add_argument("shell", choices=_SHELLS, metavar="|".join(_SHELLS), help="your shell")


def run(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    shtab = import_extra("shtab", "completion")
    from shmlog.cli.shells import mark

    mark(args.parser, shtab)
    script = shtab.complete(args.parser, args.shell)
    if args.json:
        print_json({"shell": args.shell, "script": script})
    else:
        print(script)
    return 0
