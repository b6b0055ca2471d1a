"""What `help` and editors show of the functions in C, and of those that hand their arguments on."""

from __future__ import annotations

import ast
import inspect
import pydoc
from pathlib import Path
from typing import Any

import pytest

import shmlog
from shmlog import _core
from shmlog.records.reasons import REASONS
from shmlog.run import drops

STUB = ast.parse(Path(shmlog.__file__).with_name("_core.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}


def stub_of(owner: str, name: str) -> ast.arguments:
    """Return the arguments of a method in the stub; of overloads, the first."""
    found = [node for node in CLASSES[owner].body if isinstance(node, ast.FunctionDef) and node.name == name]
    return found[0].args


def names_of(signature: inspect.Signature) -> list[str]:
    return [name for name in signature.parameters if name != "self"]


@pytest.mark.parametrize(
    ("method", "owner", "name"),
    [
        (_core.RunBase.log, "RunBase", "log"),
        (_core.RunBase.metric, "RunBase", "metric"),
        (_core.Metric.log, "Metric", "log"),
        (_core.Metric.extend, "Metric", "extend"),
    ],
)
def test_a_method_in_c_has_the_signature_of_its_stub(method: Any, owner: str, name: str) -> None:
    signature, stub = inspect.signature(method), stub_of(owner, name)
    assert names_of(signature) == [arg.arg for arg in (*stub.posonlyargs, *stub.args, *stub.kwonlyargs)][1:]
    by_keyword = [p.name for p in signature.parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert by_keyword == [arg.arg for arg in stub.kwonlyargs]
    assert "Parameters\n----------" in (inspect.getdoc(method) or "")


def test_help_shows_how_log_is_called() -> None:
    of_run = inspect.signature(shmlog.Run.log)
    assert str(of_run) == "(self, /, name, value=Ellipsis, step=None, *, timestamp=None)"
    assert names_of(inspect.signature(shmlog.log)) == names_of(of_run)
    text = pydoc.plain(pydoc.render_doc(shmlog.log))
    assert "log(name: 'str', value: 'Any' = Ellipsis, step: 'int | None' = None, *, timestamp" in text
    assert "log(metrics, step=None, *, timestamp=None)" in text


def test_the_text_of_init_names_each_parameter_in_a_group() -> None:
    groups = (inspect.getdoc(shmlog.init) or "").partition("What the run is")[2].partition("Parameters\n")[0]
    assert [name for name in inspect.signature(shmlog.init).parameters if f"``{name}``" not in groups] == []


@pytest.mark.parametrize("reason", REASONS)
def test_a_drop_is_told_with_run_reason_and_remedy(
    tmp_path: Path, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with shmlog.init("drops", root=tmp_path) as run:
        run._first_drop(reason)
    (told,) = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
    assert told.startswith(f"shmlog: run drops/{run.id} dropped a record of process ")
    assert f"(reason: {reason}). What helps: " in told
    assert drops._WHY[reason].cause in told
