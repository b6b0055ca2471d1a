"""Export and load results that a user has as a list of dicts."""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shmlog.base.extras import import_extra
from shmlog.base.plain import plain
from shmlog.errors import CorruptDataError, UnsafeDataError
from shmlog.transfer import results_csv
from shmlog.transfer.exporters.output import Target, open_target
from shmlog.transfer.values import flatten, restore, take_out

if TYPE_CHECKING:
    import pandas as pd

Results = Sequence[Mapping[str, Any]]
Default = Callable[[Any], Any] | None

_WORDS = "non_finite"


def _checked(results: Results) -> list[Mapping[str, Any]]:
    if isinstance(results, (str, bytes, Mapping)) or not isinstance(results, Iterable):
        raise TypeError(f"results must be a list of dicts, not {type(results).__name__}")
    checked = list(results)
    for i, result in enumerate(checked):
        if not isinstance(result, Mapping):
            raise TypeError(f"results must be a list of dicts, but results[{i}] is {type(result).__name__}")
    return checked


def _document(results: Results, metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    checked = _checked(results)
    return {
        "timestamp": datetime.now(UTC).isoformat(),
        "num_experiments": len(checked),
        "metadata": dict(metadata or {}),
        "results": checked,
    }


# ---- export ----


def export_results_json(
    results: Results, output_path: Target, metadata: Mapping[str, Any] | None = None, pretty: bool = True,
    *, default: Default = None,
) -> None:  # fmt: skip
    """Write results as JSON: ``timestamp``, ``num_experiments``, ``metadata`` and ``results``.

    Parameters
    ----------
    results : list of dict
        Values are what JSON has, numpy scalars and arrays, times and paths. Arrays, tuples and
        sets become lists.
    output_path : path or binary stream
        Missing folders are made. An existing file is replaced at once.
    metadata : dict, optional
        About all results.
    pretty : bool
        Whether to indent the JSON for people.
    default : callable, optional
        Converts values that JSON has nothing for, as in `json.dump`; see also `shmlog.types.register_type`.

    Raises
    ------
    TypeError, ValueError
        If JSON has nothing for a value. Nothing was written.
    StorageError
        If it can't be written.

    Notes
    -----
    It is strict JSON: NaN and infinities are the words ``"NaN"``, ``"Infinity"`` and
    ``"-Infinity"``, and ``non_finite`` holds the places of those that are numbers.
    """
    document = plain(_document(results, metadata), None, default=default, words=False, name="document")
    words = take_out(document)
    if words:
        document[_WORDS] = words
    text = json.dumps(document, indent=2 if pretty else None, allow_nan=False)
    with open_target(output_path) as file:
        file.write(f"{text}\n".encode())


def export_results_csv(
    results: Results, output_path: Target, flatten_nested: bool = True, *, default: Default = None
) -> None:
    """Write results as CSV: a row for each result, and a column for each field of any result, sorted.

    Parameters
    ----------
    results : list of dict
        As for `export_results_json`.
    output_path : path or binary stream
    flatten_nested : bool
        ``{"a": {"b": 1}}`` is a column ``a.b``; otherwise a column ``a`` of JSON, as lists always are.
    default : callable, optional
        As for `export_results_json`.

    Raises
    ------
    TypeError, ValueError
        If a value can't be written, or two fields come to the same column. Nothing was written.
    StorageError
        If it can't be written.

    Notes
    -----
    A text that a spreadsheet would evaluate gets a ``'`` in front, which `load_results_csv`
    takes away. Texts are quoted, numbers never.
    """
    rows = results_csv.to_rows(_checked(results), flatten_nested=flatten_nested, default=default)
    data = "".join(results_csv.render(rows)).encode("utf-8")
    with open_target(output_path) as file:
        file.write(data)


def export_results_pickle(results: Results, output_path: Target, metadata: Mapping[str, Any] | None = None) -> None:
    """Write results as a pickle, to be loaded only by people who trust its writer.

    Parameters
    ----------
    results : list of dict
        Of anything that can be pickled.
    output_path : path or binary stream
    metadata : dict, optional
        About all results.

    Raises
    ------
    StorageError
        If it can't be written.
    """
    data = pickle.dumps(_document(results, metadata), protocol=pickle.HIGHEST_PROTOCOL)
    with open_target(output_path) as file:
        file.write(data)


def export_summary_statistics(results: Results, output_path: Target) -> None:
    """Write ``count``, ``mean``, ``std``, ``min``, ``max`` and ``median`` of every numeric field as JSON.

    Parameters
    ----------
    results : list of dict
        Fields of nested dicts are ``outer.inner``. A field is numeric where its values are
        numbers; bools, texts and lists are passed over.
    output_path : path or binary stream

    Raises
    ------
    TypeError, ValueError
        If a value can't be read. Nothing was written.
    StorageError
        If it can't be written.

    Notes
    -----
    ``std`` is that of the population (division by n). NaN and infinities are counted as
    ``non_finite`` and are in no other figure.
    """
    fields: dict[str, list[int | float]] = {}
    checked = _checked(results)
    for result in checked:
        for name, value in flatten(plain(result, None, words=False, name="result")):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                fields.setdefault(name, []).append(value)
    document = {
        "num_experiments": len(checked),
        "timestamp": datetime.now(UTC).isoformat(),
        "statistics": {name: statistics_of(fields[name]) for name in sorted(fields)},
    }
    text = json.dumps(plain(document), indent=2, allow_nan=False)
    with open_target(output_path) as file:
        file.write(f"{text}\n".encode())


def statistics_of(values: Iterable[int | float]) -> dict[str, Any]:
    """Return the figures of some numbers; all but the counts are None if no number is finite."""
    import numpy as np

    numbers = list(values)
    finite = [number for number in numbers if results_csv.is_finite(number)]
    counts = {"count": len(finite), "non_finite": len(numbers) - len(finite)}
    if not finite:
        return {**counts, **dict.fromkeys(("mean", "std", "min", "max", "median"))}
    array = np.array([_as_float(value) for value in finite])
    with np.errstate(over="ignore", invalid="ignore"):
        figures = {"mean": float(array.mean()), "std": float(array.std())}
        median = float(np.median(array))
    return {**counts, **figures, "min": min(finite), "max": max(finite), "median": median}


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def export_all_formats(
    results: Results, output_dir: str | os.PathLike[str], base_name: str = "results",
    metadata: Mapping[str, Any] | None = None, *, pickle: bool = False,
) -> dict[str, Path]:  # fmt: skip
    """Write ``base.json``, ``base.csv`` and ``base_summary.json`` into a folder.

    Parameters
    ----------
    results : list of dict
    output_dir : path
        Made if it is missing.
    base_name : str
        What the files' names begin with; no path.
    metadata : dict, optional
        About all results.
    pickle : bool
        ``base.pkl`` too.

    Returns
    -------
    dict of str to Path
        The files by format.

    Raises
    ------
    TypeError, ValueError
        If a value can't be written.
    StorageError
        If a file can't be written.
    """
    if not base_name or Path(base_name).name != base_name:
        raise ValueError(f"base_name {base_name!r} is not the name of a file")
    folder = Path(output_dir)
    paths = {
        "json": folder / f"{base_name}.json",
        "csv": folder / f"{base_name}.csv",
        "summary": folder / f"{base_name}_summary.json",
    }
    export_results_json(results, paths["json"], metadata)
    export_results_csv(results, paths["csv"])
    export_summary_statistics(results, paths["summary"])
    if pickle:
        paths["pickle"] = folder / f"{base_name}.pkl"
        export_results_pickle(results, paths["pickle"], metadata)
    return paths


# ---- load ----


def load_results_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `export_results_json` wrote: ``results``, ``metadata``, ``timestamp`` and ``num_experiments``.

    Raises
    ------
    CorruptDataError
        If it is not such a file.
    """
    try:
        document = json.loads(Path(path).read_bytes())
        if not isinstance(document, dict) or not isinstance(document.get("results"), list):
            raise ValueError("there is no list of results")
        restore(document, document.pop(_WORDS, []))
    except (ValueError, RecursionError) as error:
        raise CorruptDataError(f"{path}: not results as JSON ({error})") from error
    return document


def load_results_csv(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the results that `export_results_csv` wrote, as flat dicts; empty cells are left out.

    Raises
    ------
    CorruptDataError
        If it is not such a file.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptDataError(f"{path}: not UTF-8 ({error})") from error
    return results_csv.parse(text, os.fspath(path))


def load_results_pickle(path: str | os.PathLike[str], *, allow_pickle: bool = False) -> dict[str, Any]:
    """Return what `export_results_pickle` wrote.

    Parameters
    ----------
    path : path
    allow_pickle : bool
        Load it although loading a pickle runs whatever code its writer chose.

    Raises
    ------
    UnsafeDataError
        Without ``allow_pickle=True``. Nothing was loaded.
    CorruptDataError
        If it is not such a file.
    """
    if not allow_pickle:
        raise UnsafeDataError(f"{path}: a pickle runs code when it is loaded; pass allow_pickle=True if you trust it")
    try:
        document = pickle.loads(Path(path).read_bytes())
    except OSError:
        raise
    except Exception as error:  # a damaged pickle fails in any way
        raise CorruptDataError(f"{path}: not a pickle ({type(error).__name__}: {error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("results"), list):
        raise CorruptDataError(f"{path}: a pickle, but not of results")
    return document


def create_results_dataframe(results: Results, flatten_nested: bool = True) -> pd.DataFrame:
    """Return results as a ``pandas.DataFrame``, a row for each, the columns sorted.

    Parameters
    ----------
    results : list of dict
    flatten_nested : bool
        As for `export_results_csv`.

    Raises
    ------
    MissingExtraError
        If pandas is not installed.
    """
    pandas = import_extra("pandas", "data frames")
    rows = [dict(flatten(result)) if flatten_nested else dict(result) for result in _checked(results)]
    columns = sorted({name for row in rows for name in row})
    frame: pd.DataFrame = pandas.DataFrame(rows, columns=columns)
    return frame
