"""``shmlog compare``: runs side by side, and whether one is worse than another with confidence."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from shmlog.cli.find import locate, resolve_run
from shmlog.cli.output import command, print_json, say, to_json
from shmlog.cli.parser import FOUND, UsageError, add_command, add_runs_argument, path, positive, steps
from shmlog.cli.text import or_one_of, paragraph, statistic, table, value
from shmlog.errors import ShmlogError, UnknownNameError
from shmlog.folder.root import some

if TYPE_CHECKING:
    from shmlog.analysis.bootstrap import Difference
    from shmlog.cli.parser import Commands
    from shmlog.reader.stored import StoredRun
    from shmlog.store.compare import Comparison

_EXAMPLE = """
shmlog compare runs/digits/A runs/digits/B
shmlog compare BASE NEW --metric step_time --last 200 --lower-is-better --fail-if "worse by 5%"
shmlog compare A1 A2 A3 --against B1 B2 B3 --metric latency --statistic p99
"""

_CONDITION = re.compile(r"(worse|better|higher|lower|different)(?:\s+by\s+([0-9]+(?:\.[0-9]+)?)\s*(%?))?")


class Condition(NamedTuple):
    """The change of a metric, by direction and amount, at which the command fails."""

    way: str
    amount: float
    is_relative: bool


def add_parser(commands: Commands) -> None:
    """Add the command ``compare``."""
    summary = "compare runs, and fail if one is worse with confidence"
    parser = add_command(commands, "compare", run, summary, _EXAMPLE)
    add_runs_argument(parser, several=True)
    text = "compare the first runs, together, with these, together, such as runs of several seeds; needs --metric"
    parser.add_argument("--against", metavar="RUN", nargs="+", type=path, default=[], help=text)
    text = "compare this metric of the first run with that of each other; may be repeated"
    parser.add_argument("--metric", metavar="NAME", action="append", default=[], help=text)
    parser.add_argument("--last", metavar="N", type=positive, help="only the last N records of each run")
    text = "only records of these steps, both ends included; either may be left out"
    parser.add_argument("--window", metavar="FROM:TO", type=steps, help=text)
    text = "exit with 1 if this holds: worse, better, higher, lower or different, 'by 5%%' or 'by 0.1'"
    parser.add_argument("--fail-if", metavar="CONDITION", type=condition, help=text)
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--lower-is-better", action="store_true", help="a higher value is worse")
    ways.add_argument("--higher-is-better", action="store_true", help="a lower value is worse")
    text = "mean, median, or a percentile such as p95 or p99.9 (default: mean)"
    parser.add_argument("--statistic", metavar="NAME", type=_statistic_name, default="mean", help=text)
    parser.add_argument("--confidence", type=fraction, default=0.95, help="of the intervals (default: 0.95)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random draws (default: 0)")


def condition(text: str) -> Condition:
    """Return the condition that ``text`` says."""
    match = _CONDITION.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"not a condition: {text!r}; write 'worse by 5%'")
    amount = float(match[2] or 0)
    return Condition(match[1], amount / 100 if match[3] else amount, match[3] == "%")


def _statistic_name(text: str) -> str:
    """Return a statistic; whether it is one is known without numpy."""
    if text not in ("mean", "median") and not re.fullmatch(r"p[0-9]{1,2}(\.[0-9]{1,6})?", text):
        raise argparse.ArgumentTypeError(f"must be mean, median or a percentile such as p95 or p99.9, not {text!r}")
    return text


def fraction(text: str) -> float:
    """Return ``text`` as a number between 0 and 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, not {text!r}")
    return number


def run(args: argparse.Namespace) -> int:
    """Compare runs."""
    from shmlog.store.compare import compare

    _check(args)
    places = [locate(resolve_run(text, args.root)) for text in (*args.run_names, *args.against)]
    records = [store.get(name) for store, name in places]
    comparison = compare(records, [store.summary(name) for store, name in places])
    for name in args.metric:
        if name not in comparison.metrics:
            similar = or_one_of(get_close_matches(name, comparison.metrics))
            there = some(list(comparison.metrics))
            raise UnknownNameError(f"none of the runs has a metric {name!r}{similar}; there are {there}")
    stored = [store.load(name) for store, name in places] if args.metric else []
    changes = {name: _changes(args, name, comparison.runs, stored) for name in args.metric}
    failed = [
        (name, other) for name, by_run in changes.items() for other, change in by_run.items()
        if args.fail_if and holds(args.fail_if, change, lower_is_better=args.lower_is_better)
    ]  # fmt: skip
    if args.json:
        as_dicts = {name: {run: change.to_dict() for run, change in by_run.items()} for name, by_run in changes.items()}
        failing = [{"metric": name, "run": other} for name, other in failed]
        print_json({**comparison.to_dict(), "changes": as_dicts, "failed": failing})
    else:
        first = ", ".join(comparison.runs[: len(args.run_names)]) if args.against else comparison.runs[0]
        for line in _lines(comparison, changes, first):
            print(line)
    for name, other in failed:
        say(f"shmlog: {name} of {other}: {_words_of(args.fail_if)}, with {args.confidence:.0%} confidence")
    return FOUND if failed else 0


def _check(args: argparse.Namespace) -> None:
    if args.against and not args.metric:
        raise UsageError("--against needs --metric")
    if len(args.run_names) < 2 and not args.against:
        raise UsageError(f"one run can't be compared; name another: {command('compare', args.run_names[0], 'RUN')}")
    if args.fail_if and not args.metric:
        raise UsageError("--fail-if needs --metric")
    if args.last is not None and args.window is not None:
        raise UsageError("--last or --window, not both")
    if args.fail_if and args.fail_if.way in ("worse", "better") and not (args.lower_is_better or args.higher_is_better):
        raise UsageError(f"{args.fail_if.way!r} needs --lower-is-better or --higher-is-better")


def _changes(
    args: argparse.Namespace, name: str, runs: Sequence[str], stored: Sequence[StoredRun]
) -> dict[str, Difference]:
    """Return how a metric of each other run differs from that of the first; raises ShmlogError for unfit values."""
    options = {"statistic": args.statistic, "confidence": args.confidence, "seed": args.seed}
    try:
        if args.against:
            sides = stored[: len(args.run_names)], stored[len(args.run_names) :]
            (first, *beside), others = sides
            change = first.compare_metric(others, name, beside=beside, last=args.last, window=args.window, **options)
            return {", ".join(runs[len(args.run_names) :]): change}
        return {
            run: stored[0].compare_metric(other, name, last=args.last, window=args.window, **options)
            for run, other in zip(runs[1:], stored[1:], strict=True)
        }
    except ValueError as error:  # about the values: the command line was checked before
        raise ShmlogError(str(error)) from error


def holds(condition: Condition, change: Difference, *, lower_is_better: bool) -> bool:
    """Whether the whole interval of a change lies beyond the amount of a condition.

    Raises
    ------
    ShmlogError
        If the condition is relative, and the first value may be 0.
    """
    low, high = change.low, change.high
    if condition.is_relative:
        if change.relative_low is None or change.relative_high is None:
            raise ShmlogError("the first run's value may be 0, so the change has no per cent; give an amount")
        low, high = change.relative_low, change.relative_high
    up = low > condition.amount
    down = -high > condition.amount
    worse, better = (up, down) if lower_is_better else (down, up)
    return {"higher": up, "lower": down, "worse": worse, "better": better, "different": up or down}[condition.way]


def _words_of(condition: Condition) -> str:
    if not condition.amount:
        return condition.way
    amount = f"{condition.amount:.4g}" if not condition.is_relative else f"{100 * condition.amount:.4g} %"
    return f"{condition.way} by more than {amount}"


# ---- text ----


def _lines(comparison: Comparison, changes: Mapping[str, Mapping[str, Difference]], first: str) -> Iterator[str]:
    yield from _rows_of_runs(comparison) if len(comparison.runs) > 2 else _columns_of_runs(comparison)
    cells = [_change(name, run, change) for name, by_run in changes.items() for run, change in by_run.items()]
    if cells:
        yield ""
        yield from paragraph("first", first, indent=8)
        yield from table(["metric", "run", "first", "this run", "change", "interval"], cells, left=["metric", "run"])


def _columns_of_runs(comparison: Comparison) -> Iterator[str]:
    """Yield a column for each run, and a row for each parameter and each value of a metric."""
    if comparison.params:
        rows = [[name, *(_param(by_run, run) for run in comparison.runs)] for name, by_run in comparison.params.items()]
        yield from table(["parameter", *comparison.runs], rows, left=["parameter"])
        yield ""
    rows = [
        [f"{name} {key}", *(_figure(by_run, run, key) for run in comparison.runs)]
        for name, by_run in comparison.metrics.items()
        for key in ("last", "min", "max")
    ]
    yield from table(["metric", *comparison.runs], rows, left=["metric"])


def _rows_of_runs(comparison: Comparison) -> Iterator[str]:
    """Yield a row for each run: parameters, last values, and then what else there is of metrics."""
    columns = {name: [_param(by_run, run) for run in comparison.runs] for name, by_run in comparison.params.items()}
    for keys in (("last",), ("min", "max")):
        for name, by_run in comparison.metrics.items():
            for key in keys:
                columns[f"{name} {key}"] = [_figure(by_run, run, key) for run in comparison.runs]
    yield from table(["run", *columns], zip(comparison.runs, *columns.values(), strict=True), left=["run"])


def _figure(by_run: Mapping[str, Any], run: str, key: str) -> str:
    return statistic(by_run[run].get(key)) if run in by_run else ""


def _param(by_run: Mapping[str, Any], run: str) -> str | None:
    if run not in by_run:
        return None
    return by_run[run] if isinstance(by_run[run], str) else to_json(by_run[run])


def _change(name: str, run: str, change: Difference) -> list[str]:
    if change.relative is None or change.relative_low is None or change.relative_high is None:
        cells = [f"{change.difference:+.4g}", f"{change.low:+.4g} … {change.high:+.4g}"]
    else:
        cells = [f"{change.relative:+.2%}", f"{change.relative_low:+.2%} … {change.relative_high:+.2%}"]
    return [name, run, value(change.first), value(change.second), *cells]
