"""Complete names of runs and experiments, and files, in shells.

The shell itself looks the names up, so that no Python starts at a key press. It offers ids, experiments, and those
names of people that need no quotes: no other name of a folder reaches the shell. The scripts around these functions
are shtab's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from shmlog.cli.parser import path

# The names that people gave: awk reads run.yaml, and then annotations.yaml, whose name counts if it has one.
_AWK = r"""awk -F'"' '/^  "name": /{ d = FILENAME; sub(/[^\/]*$/, "", d); n[d]=$4 } END { for (d in n) print n[d] }'"""

_BASH = r"""
_shmlog_root() {
    local i root=${SHMLOG_ROOT:-runs}
    for (( i = 1; i < COMP_CWORD - 1; i++ )); do
        if [[ ${COMP_WORDS[i]} == --root ]]; then root=${COMP_WORDS[i+1]}; fi
    done
    printf '%s' "$root"
}
_shmlog_names() {
    local path name word=$1
    shift
    for path in "$@"; do
        name=${path%/run.yaml}
        name=${name##*/}
        if [[ $name =~ ^[A-Za-z0-9_-]+$ && $name == "$word"* ]]; then printf '%s\n' "$name"; fi
    done
}
_shmlog_experiments() { _shmlog_names "$1" "$(_shmlog_root)"/*; }
_shmlog_given() {
    local name root=$1
    AWK "$root"/*/*/run.yaml "$root"/*/*/annotations.yaml 2>/dev/null | while IFS= read -r name; do
        if [[ $name =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ && $name == "$2"* ]]; then printf '%s\n' "$name"; fi
    done
}
_shmlog_run_dirs() {
    local root
    root=$(_shmlog_root)
    _shmlog_names "$1" latest "$root"/* "$root"/*/*/run.yaml
    _shmlog_given "$root" "$1"
    compgen -d -- "$1"
}""".replace("AWK", _AWK)

_ZSH = r"""
_shmlog_root() {
    local at=${words[(i)--root]}
    REPLY=${SHMLOG_ROOT:-runs}
    if (( at < $#words )); then REPLY=${words[at+1]}; fi
}
_shmlog_names() {
    local -a names
    names=(${(M)${@:t}:#[A-Za-z0-9_-]##})
    compadd -a names
}
_shmlog_experiments() {
    setopt localoptions extendedglob nullglob
    local REPLY; _shmlog_root
    _shmlog_names ${~${(b)REPLY}}/*(/)
}
_shmlog_run_dirs() {
    setopt localoptions extendedglob nullglob
    local REPLY; _shmlog_root
    local -a given
    given=(${(f)"$(AWK ${~${(b)REPLY}}/*/*/{run,annotations}.yaml 2>/dev/null </dev/null)"})
    given=(${(M)given:#[A-Za-z0-9_][A-Za-z0-9_.-]#})
    compadd -a given
    _shmlog_names latest ${~${(b)REPLY}}/*(/) ${~${(b)REPLY}}/*/*/run.yaml(:h)
    _files -/
}""".replace("AWK", _AWK)

_FISH = r"""
function _shmlog_root
    set -l words (commandline -opc)
    if set -l at (contains -i -- --root $words)
        and test $at -lt (count $words)
        echo $words[(math $at + 1)]
    else
        set -q SHMLOG_ROOT[1]; and echo $SHMLOG_ROOT; or echo runs
    end
end
function _shmlog_experiments
    set -l folders (_shmlog_root)/*
    string replace -rf '.*/([A-Za-z0-9_-]+)$' '$1' -- $folders
end
function _shmlog_run_dirs
    set -l files (_shmlog_root)/*/*/run.yaml
    set -l annotated (_shmlog_root)/*/*/annotations.yaml
    echo latest
    _shmlog_experiments
    string replace -rf '.*/([A-Za-z0-9_-]+)/run\.yaml$' '$1' -- $files
    AWK $files $annotated </dev/null | string match -r '^[A-Za-z0-9_][A-Za-z0-9_.-]*$'
    __fish_complete_directories
end""".replace("AWK", _AWK)

_POWERSHELL = r"""
function _shmlog_experiments {
    param([string]$WordToComplete)
    Get-ChildItem -Path runs -Directory -ErrorAction SilentlyContinue | ForEach-Object { $_.Name } |
        Where-Object { $_ -match '^[A-Za-z0-9_-]+$' -and $_ -like "$WordToComplete*" }
}
function _shmlog_run_dirs {
    param([string]$WordToComplete)
    $ids = Get-ChildItem -Path runs/*/*/run.yaml -ErrorAction SilentlyContinue | ForEach-Object { $_.Directory.Name }
    @('latest') + @(_shmlog_experiments $WordToComplete) + @($ids) |
        Where-Object { $_ -match '^[A-Za-z0-9_-]+$' -and $_ -like "$WordToComplete*" }
}"""

# tcsh has no functions, and a slash would end the pattern that shtab puts the command into.
_FIND = 'find runs -mindepth 1 -maxdepth {0} -type d -regextype posix-extended -regex "{1}" -printf "%f\\n"'
_NAME = "[A-Za-z0-9_-]+"


def _looked_up(function: str, tcsh: str) -> dict[str, Any]:
    return {
        "bash": function,
        "zsh": function,
        "fish": f"({function})",
        "tcsh": f"`{tcsh}`",
        "powershell": function,
        "preamble": {"bash": _BASH, "zsh": _ZSH, "fish": _FISH, "powershell": _POWERSHELL},
    }


_EXPERIMENTS = _looked_up("_shmlog_experiments", _FIND.format(1, f"runs.{_NAME}"))
# The function's name contains "dir": shtab's bash script then quotes the offered names as it quotes names of files.
_RUNS = _looked_up("_shmlog_run_dirs", "echo latest; " + _FIND.format(2, f"runs.{_NAME}(.{_NAME})?"))


def mark(parser: argparse.ArgumentParser, shtab: Any) -> None:
    """Tell shtab how to complete the options and arguments of all commands, by their names in the help."""
    for action in _actions(parser):
        names = str(action.metavar or "").split("|")
        if "RUN" in names:
            action.complete = _RUNS  # type: ignore[attr-defined]
        elif "EXPERIMENT" in names or "--experiment" in action.option_strings:
            action.complete = _EXPERIMENTS  # type: ignore[attr-defined]
        elif action.type is path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
