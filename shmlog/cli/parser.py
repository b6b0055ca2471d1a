"""argparse for the commands: errors of one line, and an example in every help."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from shmlog.base.variables import root_or_default
from shmlog.cli.text import clean
from shmlog.errors import QueryError, UnknownNameError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

FOUND, USAGE, FAILED = 1, 2, 3
"""Exit codes: the command found what it looks for; it was called wrongly; it failed."""

EXIT_CODES = """exit codes: 0 done; 1 done, and the command found what it looks for, such as damage or a worse run;
2 wrong usage; 3 failed, for example because there is no such run; 130 interrupted"""

RUN = "its id or the beginning of it, its name, its folder, or, for the newest, 'latest' or an experiment"
"""How a run is named, in every command."""


def default_root() -> str:
    """Return where commands look for runs."""
    return os.fspath(root_or_default(None))


def shown_root() -> str:
    """Return `default_root` for a help text, in which ``%`` begins a placeholder."""
    return default_root().replace("%", "%%")


class UsageError(Exception):
    """Options that contradict each other."""


def exit_code(error: Exception) -> int:
    """Return the exit code of an error: `USAGE` if the command line can't be understood, else `FAILED`."""
    is_usage = isinstance(error, (UsageError, QueryError)) or type(error) is ValueError
    return USAGE if is_usage and not isinstance(error, UnknownNameError) else FAILED


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Print the error in one line, and exit."""
        self.exit(USAGE, f"shmlog: error: {clean(message)} (help: {self.prog} --help)\n")


def add_command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int], summary: str, example: str
) -> argparse.ArgumentParser:
    """Add a command with the options that all commands have.

    Parameters
    ----------
    run : callable
        Takes the parsed arguments and returns the exit code.
    summary : str
        One line without a full stop.
    example : str
        Command lines and what they do, one on each line.
    """
    lines = "\n".join(f"  {line}" for line in example.strip().splitlines())
    epilog = f"example:\n{lines}\n\n{EXIT_CODES}"
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog)
    parser.add_argument("--json", action="store_true", help="print JSON")
    # Suppressed, so that the command's default does not reset a `--debug` in front of it.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
    parser.set_defaults(run=run, parser_of_command=parser)
    return parser


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument RUN, which may be left out, and the option --root."""
    parser.add_argument("path", nargs="?", metavar="RUN", type=path, help=f"{RUN} (default: latest)")
    add_root_option(parser)


def add_root_option(parser: argparse.ArgumentParser) -> None:
    """Add the option --root."""
    parser.add_argument(
        "--root", type=path, default=default_root(), help=f"folder of all experiments (default: {shown_root()})"
    )


def add_runs_argument(parser: argparse.ArgumentParser, *, several: bool) -> None:
    """Add the argument RUN, which is required, and the option --root."""
    parser.add_argument("run_name" if not several else "run_names", nargs="+" if several else None, metavar="RUN",
                        type=path, help=RUN)  # fmt: skip
    add_root_option(parser)


def add_filter_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select runs."""
    parser.add_argument("--status", action="append", help="only runs of this status; may be repeated")
    parser.add_argument("--tag", metavar="EXPR", help="only runs with these tags, such as 'a AND (b OR c)'")


def add_selection_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select records."""
    text = "only records of these steps, both ends included; either may be left out"
    parser.add_argument("--steps", metavar="FROM:TO", type=steps, default=(None, None), help=text)
    text = "only each N-th record of a metric, and its last one"
    parser.add_argument("--every", metavar="N", type=positive, default=1, help=text)


def steps(text: str) -> tuple[int | None, int | None]:
    """Return the first and the last step that ``text`` means; None is open."""
    match = re.fullmatch(r"(-?[0-9]{1,18})?:(-?[0-9]{1,18})?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"not two steps: {text!r}; write 100:200")
    first, last = (int(number) if number else None for number in match.groups())
    if first is not None and last is not None and first > last:
        raise argparse.ArgumentTypeError(f"no step is in {text!r}; write {last}:{first}")
    return first, last


def path(text: str) -> str:
    """Return the path ``text``; raises ArgumentTypeError if it is empty or has NUL."""
    if not text or "\0" in os.fsdecode(text):
        raise argparse.ArgumentTypeError(f"not a path: {text!r}")
    return text


def positive(text: str) -> int:
    """Return ``text`` as a whole number of at least 1."""
    number = natural(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return number


def natural(text: str) -> int:
    """Return ``text`` as a whole number of at least 0 and below 10**9, which is enough for any use."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 10**9 - 1, not {text!r}")
    return int(text)
