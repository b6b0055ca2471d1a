"""The command line: one parser, one module for each command, one place for errors."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from shmlog.cli.output import one_line, say
from shmlog.cli.parser import EXIT_CODES, USAGE, Parser, UsageError, exit_code

INTERRUPTED, PIPE_CLOSED = 130, 141

COMMANDS = {
    name: "import_" if name == "import" else "pin" if name == "unpin" else name
    for name in (
        "demo", "runs", "experiments", "show", "report", "metrics", "tail", "sql", "compare", "export", "import", "tag",
        "annotate", "pin", "unpin", "rm", "prune", "restore", "recover", "verify", "artifacts", "checkpoints", "gc",
        "env", "completion",
    )
}  # fmt: skip
"""The commands, in the order of the help, and the module of each."""

_EXAMPLE = """example:
  shmlog demo                    train a small model in three processes, log it all
  shmlog show                    look at the newest run below ./runs
  shmlog runs --status failed    list the runs that failed
  shmlog tail -n 5 runs/digits   follow the newest run of one experiment

"""


class _Version(argparse.Action):
    """Print the version; the import that finds it costs time, which other commands are spared."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"shmlog {version('shmlog')}")
        except PackageNotFoundError:
            print("shmlog, not installed")
        parser.exit()


def build_parser(only: str | None = None) -> Parser:
    """Return the parser of the whole command line, or of one command, for which fewer modules are imported."""
    parser = Parser(
        prog="shmlog",
        description="Metrics and structured events of programs made of many processes.",
        epilog=f"{_EXAMPLE}\n{EXIT_CODES}",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(parser=parser)  # for the command completion
    parser.set_defaults(advise=lambda args, extra: "")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name in dict.fromkeys(COMMANDS.values() if only is None else [COMMANDS[only]]):
        import_module(f"shmlog.cli.commands.{name}").add_parser(commands)
    return parser


def _command_of(argv: Sequence[str]) -> str | None:
    """Return the command that words begin with, behind options; None if the parser needs to know all commands."""
    first = next((word for word in argv if not word.startswith("-")), None)
    return first if first in COMMANDS and first != "completion" else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` and return its exit code."""
    _never_fail_to_print()
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser(_command_of(words))
    args, extra = parser.parse_known_args(words)
    if extra:
        of_command = parser if args.command is None else args.parser_of_command
        of_command.error(f"unrecognized arguments: {' '.join(extra)}{args.advise(args, extra)}")
    if args.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            code: int = args.run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _close_stdout()
        return PIPE_CLOSED
    except Exception as error:
        if args.debug and not isinstance(error, UsageError):
            raise
        say(f"shmlog: error: {one_line(error)}")
        return exit_code(error)


def _say_warning(message: Warning | str, *_: object, **__: object) -> None:
    say(f"shmlog: warning: {message}")


def _never_fail_to_print() -> None:
    """Escape characters that the terminal's encoding lacks, rather than fail on them."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def _close_stdout() -> None:
    """Discard what is still buffered: the reader of the pipe is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
