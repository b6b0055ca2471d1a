"""``shmlog completion``: print a script by which a shell completes commands, options and names."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from shmlog.cli.output import print_json
from shmlog.cli.parser import add_command

if TYPE_CHECKING:
    from shmlog.cli.parser import Commands

_EXAMPLE = """
shmlog completion bash > ~/.local/share/bash-completion/completions/shmlog
shmlog completion fish > ~/.config/fish/completions/shmlog.fish
eval "$(shmlog completion zsh)"        in ~/.zshrc
"""


def add_parser(commands: Commands) -> None:
    """Add the command ``completion``."""
    parser = add_command(commands, "completion", run, "print a script that completes shmlog's command line", _EXAMPLE)
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), metavar="bash|zsh|fish", help="your shell")


def run(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    from shmlog.cli.main import build_parser
    from shmlog.cli.shells import SHELLS

    script = SHELLS[args.shell](build_parser())
    if args.json:
        print_json({"shell": args.shell, "script": script})
    else:
        print(script, end="")
    return 0
