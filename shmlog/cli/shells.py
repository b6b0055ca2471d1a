"""Scripts by which shells complete the command line, made of what the parser knows.

Names of runs and experiments are looked up by the shell itself, so that no Python starts at a key press. Only those
that shmlog could have made are offered: whatever else a folder is called is not handed to the shell.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from shmlog.cli.parser import path

_RUNS, _EXPERIMENTS, _FILES = "runs", "experiments", "files"


class Value(NamedTuple):
    """What an argument or an option takes: words, or names that the shell looks up."""

    words: tuple[str, ...] = ()
    names: str = ""


class Option(NamedTuple):
    """An option, and what it takes; None if it takes nothing."""

    flags: tuple[str, ...]
    help: str
    value: Value | None


class Command(NamedTuple):
    """A command, its options, and what its arguments are."""

    name: str
    help: str
    options: tuple[Option, ...]
    arguments: Value


def commands_of(parser: argparse.ArgumentParser) -> Iterator[Command]:
    """Yield the parser itself, as the command of no name, and then its commands."""
    yield _command("", "", parser)
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    for name, one in commands.choices.items():
        yield _command(name, helps[name], one)


def _command(name: str, text: str, parser: argparse.ArgumentParser) -> Command:
    options, arguments = [], Value()
    for action in parser._actions:
        if action.option_strings:
            value = None if action.nargs == 0 else _value(action)
            options.append(Option(tuple(action.option_strings), _plain(action.help), value))
        elif not any(arguments):  # what the first ones are that can be told; a tag or a query can not
            arguments = _value(action)
    return Command(name, text, tuple(options), arguments)


def _plain(text: str | None) -> str:
    return (text or "").partition(" (default")[0].replace("%%", "%")


def _value(action: argparse.Action) -> Value:
    """Return what an action takes, as its choices or its name in the help tell."""
    if action.choices:
        return Value(words=tuple(map(str, action.choices)))
    name = str(action.metavar or "")
    if "RUN" in name.split("|"):
        return Value(names=_RUNS)
    if name == "EXPERIMENT" or "--experiment" in action.option_strings:
        return Value(names=_EXPERIMENTS)
    return Value(names=_FILES if action.type is path else "")


# ---- bash ----

_BASH = """\
_shmlog_names() {{
    local path name
    for path in "$@"; do
        name=${{path%/run.yaml}}
        name=${{name##*/}}
        if [[ $name =~ ^[A-Za-z0-9_-]+$ && $name == "$cur"* ]]; then COMPREPLY+=("$name"); fi
    done
}}
_shmlog_lines() {{
    local line
    while IFS= read -r line; do COMPREPLY+=("$line"); done
}}
_shmlog() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}"
    local command="" root=runs i words="" names="" flags=""
    for (( i = 1; i < COMP_CWORD; i++ )); do
        case "${{COMP_WORDS[i]}}" in
            --root) root="${{COMP_WORDS[i+1]}}" ;;
            -*) ;;
            *) if [[ -z $command ]]; then command="${{COMP_WORDS[i]}}"; fi ;;
        esac
    done
    COMPREPLY=()
    case "$command $prev" in
{values}
        *) case "$command" in
{commands}
        esac ;;
    esac
    if [[ -n $flags && $cur == -* ]]; then words=$flags names=""; fi
    _shmlog_lines < <(compgen -W "$words" -- "$cur")
    case "$names" in
        runs) _shmlog_names "$root"/*/*/run.yaml
            _shmlog_lines < <(compgen -d -- "$cur") ;;
        experiments) _shmlog_names "$root"/* ;;
        files) _shmlog_lines < <(compgen -f -- "$cur") ;;
    esac
}}
complete -o filenames -F _shmlog shmlog
"""


def bash(parser: argparse.ArgumentParser) -> str:
    """Return a script for bash."""
    values, commands = [], []
    for command in commands_of(parser):
        flags = shlex.quote(" ".join(flag for option in command.options for flag in option.flags))
        commands.append(f"            {shlex.quote(command.name)}) {_assign(command.arguments)} flags={flags} ;;")
        for option in command.options:
            if option.value is not None:
                patterns = "|".join(shlex.quote(f"{command.name} {flag}") for flag in option.flags)
                values.append(f"        {patterns}) {_assign(option.value)} ;;")
    return _BASH.format(values="\n".join(values), commands="\n".join(commands))


def _assign(value: Value) -> str:
    return f"words={shlex.quote(' '.join(value.words))} names={value.names}"


def zsh(parser: argparse.ArgumentParser) -> str:
    """Return a script for zsh, which can run that for bash."""
    return f"autoload -Uz compinit bashcompinit\ncompinit\nbashcompinit\n{bash(parser)}"


# ---- fish ----

_FISH = """\
function __shmlog_root
    set -l words (commandline -opc)
    set -l at (contains -i -- --root $words)
    and echo $words[(math $at + 1)]
    or echo runs
end
function __shmlog_runs
    set -l found (__shmlog_root)/*/*/run.yaml
    string replace -rf '.*/([A-Za-z0-9_-]+)/run\\.yaml$' '$1' -- $found
    __fish_complete_directories
end
function __shmlog_experiments
    set -l found (__shmlog_root)/*
    string replace -rf '.*/([A-Za-z0-9_-]+)$' '$1' -- $found
end
complete -c shmlog -f
"""


def fish(parser: argparse.ArgumentParser) -> str:
    """Return a script for fish."""
    lines = []
    for command in commands_of(parser):
        where = f"__fish_seen_subcommand_from {command.name}" if command.name else "__fish_use_subcommand"
        base = f"complete -c shmlog -n {_quote(where)}"
        if command.name:
            lines.append(f"complete -c shmlog -n __fish_use_subcommand -a {command.name} -d {_quote(command.help)}")
            lines += [f"{base}{_takes(command.arguments)}"] if any(command.arguments) else []
        for option in command.options:
            flags = "".join(f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}" for flag in option.flags)
            takes = "" if option.value is None else f" -r{_takes(option.value)}"
            lines.append(f"{base}{flags}{takes} -d {_quote(option.help)}")
    return _FISH + "\n".join(lines) + "\n"


def _takes(value: Value) -> str:
    if value.names == _FILES:
        return " -F"
    words = f"(__shmlog_{value.names})" if value.names else " ".join(value.words)
    return f" -a {_quote(words)}" if words else ""


def _quote(text: str) -> str:
    """Quote for fish, in which a backslash escapes within single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Mapping[str, Callable[[argparse.ArgumentParser], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
