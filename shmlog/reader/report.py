"""One page about a run: how it ended, its results, what is notable in its metrics, and what has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from shmlog.base.times import duration
from shmlog.folder.layout import RunLayout
from shmlog.reader.facts import read_record
from shmlog.reader.model import flat_params

if TYPE_CHECKING:
    from shmlog.analysis.findings import MetricFinding
    from shmlog.reader.summary import Summary

_METRICS_MAX = 30
_ADVICE = {
    "nan": "Look at the step before: a division by zero, the logarithm of 0, or too high a learning rate",
    "inf": "Look at the step before: an overflow, in half precision above 65,504, or too high a learning rate",
    "spike": "Look at the batch of that step; clipping the gradients limits what one batch can do",
    "divergence": "Go on from a checkpoint before that step, with a lower learning rate or with clipped gradients",
    "stall": "What comes later costs time and changes nothing: stop earlier, or change the learning rate there",
}
"""What to do about each kind of finding; a trend needs no advice."""


class Reported(Protocol):
    """What a report asks a `StoredRun`, which imports this module."""

    config: dict[str, Any]
    counts: dict[str, int]
    dropped: dict[str, int]
    lost: dict[int, int]
    segment_lost: bool
    id: str
    status: str
    _layout: RunLayout
    summary: Callable[[], Summary]
    findings: Callable[[], list[MetricFinding]]
    events: Callable[[str], list[dict[str, Any]]]


def report(run: Reported, previous: Reported | None) -> str:
    """Return a page of Markdown about a run, and what differs from the ``previous`` one; see `StoredRun.report`."""
    rows = {row["name"]: row for row in run.summary().rows}
    sections = [
        ("", _head(run)),
        ("Results", _results(run)),
        ("Metrics", _metrics(list(rows.values()))),
        ("Findings", _findings(run.findings())),
        ("Not in the run", _losses(run)),
        ("Since the previous run", _changes(run, previous, rows)),
    ]
    texts = [(f"## {title}\n\n" if title else "") + "\n".join(lines) for title, content in sections
             if (lines := list(content))]  # fmt: skip
    return "\n\n".join(texts) + "\n"


def _head(run: Reported) -> Iterator[str]:
    record = read_record(run._layout)
    yield f"# {_text(record.experiment)}: {_text(record.name or record.run_id)}"
    yield ""
    took = "" if record.duration_s is None else f", {duration(record.duration_s)}"
    yield f"- Status: {record.status}{took}"
    yield f"- Run: `{record.run_id}`, {_text(record.dir)}"
    if record.commit_id:
        yield f"- Commit: `{record.commit_id[:12]}`"
    counts = run.counts
    yield f"- Records: {counts['metrics']:,} metrics, {counts['events']:,} events"
    for name, value in flat_params(run.config).items():
        yield f"- {_text(name)}: {_text(value)}"


def _results(run: Reported) -> Iterator[str]:
    for event in run.events("result"):
        for name, value in flat_params(event["data"]).items():
            yield f"- {_text(name)}: {_text(value)}"


def _metrics(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    if rows:
        cells = [(row["name"], f"{row['count']:,}", row["last"], row["min"], row["max"]) for row in rows[:_METRICS_MAX]]
        yield from _table(("metric", "count", "last", "min", "max"), cells)
    if len(rows) > _METRICS_MAX:
        yield f"\n{len(rows) - _METRICS_MAX:,} more metrics: `shmlog show --all`"


def _findings(findings: Iterable[MetricFinding]) -> Iterator[str]:
    for finding in findings:
        advice = f" {_ADVICE[finding.kind]}." if finding.kind in _ADVICE else ""
        yield f"- **{_text(finding.name)}** {_text(finding.message)}.{advice}"


def _losses(run: Reported) -> Iterator[str]:
    for reason, count in run.dropped.items():
        if count:
            yield f"- {count:,} records were dropped (reason: {reason})"
    lost = sum(abs(count) for count in run.lost.values())
    if lost:
        yield f"- {lost:,} records are lost: `shmlog verify` says where"
    if run.segment_lost:
        yield "- What was not yet in a file when the run was killed, if there was anything: its shared memory is gone"


def _changes(run: Reported, previous: Reported | None, rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    if previous is None:
        return
    yield f"`{previous.id}`, {previous.status}"
    yield ""
    params, before = flat_params(run.config), flat_params(previous.config)
    names = [name for name in {**before, **params} if before.get(name) != params.get(name)]
    cells = [(name, before.get(name), params.get(name)) for name in names]
    last = {row["name"]: row["last"] for row in previous.summary().rows}
    both = [name for name in rows if name in last][:_METRICS_MAX]
    cells += [(f"{name}, last", last[name], rows[name]["last"]) for name in both]
    yield from _table(("", "previous", "this"), cells)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(_text(cell) for cell in row)} |"


def _text(value: Any) -> str:
    """Return a value for people in one line, without what Markdown or a terminal would take for more."""
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return "".join(f"\\{letter}" if letter in r"\`*[]<>|#" else letter for letter in printable)
