"""docs/coming_from.md: each row has a test, each test a row, and what is said not to be here is not."""

from __future__ import annotations

import ast
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog.cli.main import build_parser
from shmlog.reader.model import RunRecord
from tests.support.coming_from import NOT_HERE, codes, row, rows

# By row: what would be there if shmlog had it.
ABSENT: dict[str, list[str]] = {
    "redirect_console": ["init(redirect_console)"],
    "system_metrics_interval_secs": ["init(system_metrics_interval_secs)", "stored.system_metrics", "shmlog probes"],
    "project, set_project": ["init(project)", "RunRecord.project", "store.projects", "shmlog project"],
    "sweep_params()": ["shmlog.sweep_params", "store.sweep", "shmlog sweep"],
    "from expman import SummaryWriter": ["shmlog.SummaryWriter", "run.add_graph", "run.add_scalar"],
    "exp serve": ["shmlog serve", "shmlog.serve", "shmlog dashboard"],
    "Jupyter: --notebook-template": ["shmlog notebook", "stored.notebook"],
    "GPU query dispatch": ["store.sql(device)"],
    "InMemoryStorage": ["init(storage)", "init(backend)"],
    "Andon alerts": ["run.should_stop", "run.alert", "store.alerts", "shmlog watch"],
    "drift: KS": ["stored.drift", "store.drift"],
    "Callbacks EarlyStopping": ["shmlog.EarlyStopping", "run.should_stop"],
    "lineage of models": ["store.lineage", "store.derive"],
    "registry: stages": ["store.register", "store.stage", "RunRecord.stage", "shmlog registry"],
    "GPU monitor (NVML)": ["init(gpu)", "shmlog gpu"],
    "TUI monitor": ["shmlog tui", "shmlog monitor", "shmlog watch"],
    "REST server": ["shmlog server", "shmlog serve", "shmlog.Client"],
    "renacer: spans": ["store.compare_traces", "shmlog trace"],
    "carbon and cost metrics": ["store.pareto", "run.carbon"],
    "ml queue": ["shmlog queue", "shmlog start", "shmlog cancel", "store.queue"],
    "ml-tui": ["shmlog tui", "shmlog notebook"],
    "WebSocket server": ["shmlog serve", "store.users"],
    "single, batch and sweep configs": ["shmlog batch", "shmlog sweep", "shmlog run"],
    "S3, GCS": ["store.upload", "shmlog sync", "shmlog push"],
}
OWNERS: dict[str, Any] = {
    "shmlog": shmlog, "run": shmlog.Run, "metric": shmlog.Metric, "stored": shmlog.StoredRun, "store": shmlog.Store,
    "manager": shmlog.CheckpointManager, "RunRecord": RunRecord,
}  # fmt: skip
FILES = {"run.log", "run.yaml", "events.jsonl", "manifest.json", "config.yaml", "artifacts/", "metrics/"}


def commands() -> set[str]:
    (action,) = (a for a in build_parser()._actions if isinstance(a.choices, dict))
    return set(action.choices)


def owner_of(name: str) -> Any:
    """Return what a name in front of a dot means: an object of the examples, or a module."""
    return OWNERS[name] if name in OWNERS else import_module(name)


def is_there(name: str) -> bool:
    """Whether shmlog has a function, a method, a field, a parameter ``f(x)`` or a command ``shmlog x``."""
    if name.startswith("shmlog "):
        return name.split()[1] in commands()
    call, _, parameter = name.rstrip(")").partition("(")
    owner, _, attribute = call.rpartition(".")
    if parameter:
        from inspect import signature

        return parameter in signature(getattr(owner_of(owner or "shmlog"), attribute)).parameters
    return hasattr(owner_of(owner), attribute)


def marks() -> Counter[str]:
    """Return the words that the tests beside this one are marked with."""
    found: Counter[str] = Counter()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == row.__name__:
                found[ast.literal_eval(node.args[0])] += 1
    return found


@pytest.mark.parametrize("one", [one for one in rows() if NOT_HERE not in one.ours], ids=lambda one: one.theirs[:40])
def test_a_row_has_one_test(one: Any) -> None:
    found = {words: count for words, count in marks().items() if one.theirs.startswith(words)}
    assert list(found.values()) == [1], found


def test_a_test_has_one_row() -> None:
    for words in [*marks(), *ABSENT]:
        assert sum(one.theirs.startswith(words) for one in rows()) == 1, words


@pytest.mark.parametrize("one", [one for one in rows() if NOT_HERE in one.ours], ids=lambda one: one.theirs[:40])
def test_what_is_not_here_is_not_and_the_row_says_why(one: Any) -> None:
    (names,) = (names for words, names in ABSENT.items() if one.theirs.startswith(words))
    assert one.ours == NOT_HERE
    assert [name for name in names if is_there(name)] == []
    assert len(one.remark) > 20


def test_what_the_page_names_is_there() -> None:
    for code in codes() - FILES:
        if code.startswith("shmlog "):
            assert is_there(code), code
            continue
        name, _, arguments = code.removeprefix("with ").partition("(")
        owner, _, attribute = name.rpartition(".")
        assert hasattr(owner_of(owner), attribute), code
        for parameter in re.findall(r"(\w+)=", arguments):
            assert is_there(f"{owner}.{attribute}({parameter})") or name == "store.create_run", code
    assert is_there("shmlog.init(resume)"), "so a missing one would be noticed"
    assert not is_there("shmlog.init(nothing)")
