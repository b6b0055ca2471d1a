"""Two or more runs side by side: what they have in common, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shmlog.base.plain import plain
from shmlog.reader.model import RunRecord, flat_params


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes
    ----------
    runs : tuple of str
        Their ids, or ``"experiment/id"`` where two runs have the same.
    params : dict
        By dotted name, each parameter in which they differ: its value in each run that has it.
    same_params : dict
        The parameters that have the same value in all runs.
    metrics : dict
        By name, each metric: ``last``, ``min``, ``max`` and ``count`` in each run that has it.
    """

    runs: tuple[str, ...]
    params: dict[str, dict[str, Any]]
    same_params: dict[str, Any]
    metrics: dict[str, dict[str, Mapping[str, Any]]]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        document: dict[str, Any] = plain(
            {"runs": self.runs, "params": self.params, "same_params": self.same_params, "metrics": self.metrics}
        )
        return document


def compare(records: Sequence[RunRecord], summaries: Sequence[Mapping[str, Mapping[str, Any]]]) -> Comparison:
    """Return runs side by side.

    Parameters
    ----------
    records : sequence of RunRecord
        At least two.
    summaries : sequence of dict
        The metrics of each, as ``Store.summary`` returns them.

    Raises
    ------
    ValueError
        If there are fewer than two, or one of them twice.
    """
    names = names_of(records)
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"compare takes two or more runs, each once; not {', '.join(names) or 'none'}")
    params = _by_name(names, [flat_params(record.params) for record in records])
    same = {name: next(iter(by_run.values())) for name, by_run in params.items() if _is_same(by_run, len(names))}
    differing = {name: by_run for name, by_run in params.items() if name not in same}
    return Comparison(names, differing, same, _by_name(names, summaries))


def names_of(records: Sequence[RunRecord]) -> tuple[str, ...]:
    """Return the names by which to tell runs apart: their ids where these differ."""
    ids = [record.run_id for record in records]
    if len(set(ids)) == len(ids):
        return tuple(ids)
    return tuple(f"{record.experiment}/{record.run_id}" for record in records)


def _by_name(names: Sequence[str], by_run: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    keys = sorted({key for values in by_run for key in values})
    return {key: {run: values[key] for run, values in zip(names, by_run, strict=True) if key in values} for key in keys}


def _is_same(by_run: Mapping[str, Any], runs: int) -> bool:
    """Whether all runs have one value; true is not 1, but 1.0 is."""
    values = list(by_run.values())
    return len(values) == runs and all(_key(value) == _key(values[0]) for value in values)


def _key(value: Any) -> Any:
    """Return a key that is equal for values that mean the same, inside lists too."""
    if isinstance(value, list):
        return [_key(item) for item in value]
    if isinstance(value, dict):
        return {name: _key(item) for name, item in value.items()}
    return (isinstance(value, bool), value)
