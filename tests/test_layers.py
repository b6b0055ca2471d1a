"""Where what lives and what may import what; that each thing is written once; and what a process that only logs loads.

Tables of what is allowed, and of today's exceptions: an exception that nothing needs any more fails, too.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

import shmlog
from shmlog.folder.description import FIELDS

PACKAGE = Path(__file__).parents[1] / "shmlog"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
STUBS = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.pyi"))
SOURCES = sorted(path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "csrc").rglob("*.[ch]"))

# ---- what may import what ----

GROUND = {"errors", "base", "folder", "records"}
WRITE_WING = {"segment", "flusher", "run"}
READ_WING = {"reader", "store"}
DOORS = {"folder/root.py": None, "flusher/recover.py": {"recover", "gc"}, "segment/gc.py": {"gc"}}
"""What of the layers below the command line uses itself, and the commands that do so.

It stands above both wings. All commands ask which run is meant; these two drive the write wing for a person.
"""

UPWARD = {("run/described.py", "__init__.py"): "Run.summary reads, by shmlog.load, when it is called"}
"""The only imports against the arrows, and why."""

ARROWS = {
    "errors": set(),
    "_bulk": set(),
    "_core": set(),
    "base": {"errors"},
    "folder": {"errors", "base", "_bulk"},
    "records": {"errors", "base", "folder", "_bulk"},
    "segment": GROUND | {"_core"},
    "flusher": GROUND | {"_core", "segment"},
    "run": GROUND | {"_core", "segment", "flusher"},
    "reader": GROUND | {"analysis"},
    "store": GROUND | {"analysis", "reader"},
    "analysis": {"errors", "base"},
    "transfer": GROUND | READ_WING,
    "checkpoint": GROUND | {"run"},
    "shmlog": GROUND | {"_core", "run", "reader", "store", "analysis", "checkpoint", "transfer"},  # the face
    "results": GROUND | {"transfer"},
    "logs": GROUND | {"reader"},
    "types": {"base"},
    "integrations": {"shmlog"},
    "demo": {"shmlog"},
    "cli": {"errors", "base", *READ_WING, "analysis", "checkpoint", "transfer", "shmlog", "demo", *DOORS},
    "__main__": {"base", "cli"},
}
"""Of each package, what it may import besides itself: packages, or files of theirs."""


# ---- what is written in one place ----

WORDS_OF_OTHERS = {
    "argv", "attempt", "attempts", "complete", "counts", "created_at", "description", "dropped", "ended_at",
    "environment", "experiment", "files", "git", "group", "host", "job_name", "kept_logs", "lost", "name", "node",
    "notes", "offered", "parent", "pid", "producers", "python", "run_id", "schema", "segment", "sinks", "source",
    "span_id", "started_at", "status", "tags", "trace_id", "turn", "user",
}  # fmt: skip
"""Keys of run.yaml that other files, events, records, columns or commands have a word in common with."""

ONCE = {
    r"\bos\.(replace|rename)\(": {
        "base/durable.py", "folder/blobs.py", "store/removal.py",
        # whole folders, and files that nobody writes to any more
        "flusher/sealer.py", "run/keep.py", "store/rebuild.py", "store/restore.py", "transfer/folder.py",
    },
    r"\bwarnings\.warn\(": {"base/warn.py"},
    r"""['"]+-?Infinity['"]""": {"base/plain.py"},
    r"(?<!class )\bMissingExtraError\(": {"base/extras.py"},
    r"\bParquetFile\(": {"records/parts.py", "transfer/importers/untrusted.py"},
    r"FROM read_parquet\(|\bmake_fragment\(": {"reader/sql/sql.py", "reader/convert.py"},
    r"\bcheck_whole\(": {"records/pages.py", "reader/sources.py"},
    r"\bfromisoformat\(": {"base/times.py", "checkpoint/codec.py"},  # the codec has types of its own to restore
    r"/proc/sys/kernel/random/boot_id": {"base/boot.py"},
    # run.yaml is read and written as a Description, which is no mapping: no key gets at what it says. What leaves it
    # as a mapping goes whole into a file, a record or JSON. Words that mean nothing but a key of it stand in no string.
    r"(read|write|parse)\w*\([^()]*\brun_yaml\b|\brun_yaml\.(read|write|open)": {
        "folder/description.py", "reader/facts.py", "reader/rebuild.py",  # which reads the remains of a damaged one
    },
    r"\.mapping\b": {
        "folder/description.py", "flusher/provenance.py", "reader/facts.py", "reader/stored.py",
        "transfer/exporters/describe.py", "transfer/importers/event_files.py", "transfer/limited.py",
    },
    r"\.mapping(\[|\.get\()": {"folder/description.py"},
    r"\b(stored|run)\.metadata\b": {"cli/commands/show.py"},  # which puts it into JSON of its own
    rf"'({'|'.join(sorted(FIELDS.keys() - WORDS_OF_OTHERS))})'": {"folder/description.py"},
}  # fmt: skip
"""By what code looks like, comments and docstrings left out, the files that may have it."""

# ---- the one way to the files of a run ----

DISK = re.compile(
    r"open|LOCAL\.\w+|(os(\.path)?|shutil|glob)\.\w+|(pa|pq|ds)\.(OSFile|memory_map|ParquetFile|read_\w+|dataset)"
    r"|(?!.*\bfiles\.\w+$).+\.(open|stat|lstat|exists|is_file|is_dir|is_symlink|is_mount|samefile|owner|iterdir|walk"
    r"|glob|rglob|read_bytes|read_text|write_bytes|write_text|resolve|readlink|touch|mkdir|unlink|rmdir|rename)",
    re.DOTALL,
)
"""Calls that ask the disk about a path. Readers ask `RunFiles`, as ``layout.files.exists(path)``."""

DISK_TODAY = {
    # Artifact.copy_to writes a file where its caller wants one; it reads through a method of its own called open
    "reader/artifacts.py": {"os.open", "os.close", "os.unlink", "self.open"},
}

# ---- sizes and manners ----

FUNCTION_LINES = 40
FILE_LINES = 450
FILES_TODAY: dict[str, int] = {}
"""Longer ones, and how long they may be."""

ARGUMENTS = 5  # by position, in a call
ARGUMENTS_TODAY = {
    "analysis/findings.py": 4, "checkpoint/files.py": 1, "checkpoint/manager.py": 1, "checkpoint/encoded.py": 1,
    "demo/books.py": 1, "demo/main.py": 1, "demo/workers.py": 1, "flusher/__main__.py": 1, "flusher/closing.py":
    1, "flusher/git.py": 1, "reader/verify/verify.py": 1,
    "segment/beacon.py": 1, "segment/gc.py": 6, "segment/shm.py": 1,
    "records/columns.py": 1, "records/lines.py": 1,
    "transfer/importers/fetch_ml.py": 1,
}  # fmt: skip
"""By file, how many calls have more."""


def layer_of(module: str) -> str:
    """Return the package that a file of ours belongs to."""
    name = module.split("/")[0].partition(".")[0]
    return "shmlog" if name == "__init__" else name


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text())


def file_of(name: str) -> str | None:
    """Return the file of a module by its full name, or None if it is none of ours."""
    path = name.removeprefix("shmlog").removeprefix(".").replace(".", "/")
    files = (f"{path}.py", f"{path}.pyi", f"{path}/__init__.py") if path else ("__init__.py",)
    return next((file for file in files if file in MODULES or file in STUBS), None)


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Yield line and file of each import of ours, those inside functions and those for types alone too."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                file = file_of(alias.name) if alias.name.split(".")[0] == "shmlog" else None
                if file:
                    yield node.lineno, file
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            if node.module and node.module.split(".")[0] == "shmlog":
                for alias in node.names:
                    file = file_of(f"{node.module}.{alias.name}") or file_of(node.module)
                    assert file, f"{module}:{node.lineno}: no module {node.module}"
                    yield node.lineno, file


@pytest.mark.parametrize("module", [*MODULES, *STUBS])
def test_imports_follow_the_arrows(module: str) -> None:
    layer = layer_of(module)
    for line, file in imports(module):
        is_allowed = {layer_of(file), file} & {layer, *ARROWS[layer]} or (module, file) in UPWARD
        assert is_allowed, f"shmlog/{module}:{line}: {layer} imports {file}"


@pytest.mark.parametrize("door", [door for door, commands in DOORS.items() if commands])
def test_only_commands_that_drive_the_write_wing_go_through_its_doors(door: str) -> None:
    users = {
        module for module in MODULES if layer_of(module) == "cli" and any(file == door for _, file in imports(module))
    }
    assert users == {f"cli/commands/{command}.py" for command in DOORS[door] or ()}


def test_the_wings_do_not_meet() -> None:
    assert all(not ARROWS[layer] & READ_WING for layer in WRITE_WING)
    assert all(not ARROWS[layer] & (WRITE_WING | {"_core"}) for layer in READ_WING)


def test_every_exception_is_of_a_file_that_is_there() -> None:
    named = {*DOORS, *DISK_TODAY, *FILES_TODAY, *ARGUMENTS_TODAY}
    named |= {file for files in ONCE.values() for file in files}
    assert named <= {*MODULES, *STUBS, *SOURCES}


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = {module: {file for _, file in imports(module)} - {module} for module in (*MODULES, *STUBS)}
    circles = [(module, file) for module, files in graph.items() for file in files if reaches(graph, file, module)]
    assert circles == []


def reaches(graph: dict[str, set[str]], start: str, end: str) -> bool:
    """Whether ``start`` imports ``end``, or what does."""
    seen, ahead = set(), [start]
    while ahead:
        file = ahead.pop()
        if file == end:
            return True
        if file not in seen:
            seen.add(file)
            ahead.extend(graph[file])
    return False


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
C_FUNCTION = re.compile(r"^\w[^;{}#]*\)\s*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)


@cache
def code_of(module: str) -> str:
    """Return the code of a file, without comments and docstrings, as Python would write it."""
    tree = ast.parse((PACKAGE / module).read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node
        ):
            node.body[0] = ast.Pass()
    return ast.unparse(tree)


@pytest.mark.parametrize("pattern", ONCE)
def test_what_is_written_once_is_in_the_one_place(pattern: str) -> None:
    assert {module for module in MODULES if re.search(pattern, code_of(module))} == ONCE[pattern]


@pytest.mark.parametrize("module", [module for module in MODULES if layer_of(module) == "reader"])
def test_readers_touch_no_path_of_a_run(module: str) -> None:
    assert set(disk_calls(parsed(module))) == DISK_TODAY.get(module, set())


def disk_calls(tree: ast.AST) -> Iterator[str]:
    """Yield the calls by which a file asks the disk itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and DISK.fullmatch(called := ast.unparse(node.func)):
            yield called


@pytest.mark.parametrize(
    "code",
    ["open(path)", "os.stat(path)", "os.path.lexists(path)", "layout.run_yaml.is_file()", "(folder / name).open()",
     "path.parent.glob('*')", "pa.OSFile(str(path))", "pq.ParquetFile(path)"],
)  # fmt: skip
def test_calls_that_ask_the_disk_are_found(code: str) -> None:
    assert list(disk_calls(ast.parse(code)))
    assert not list(disk_calls(ast.parse("layout.files.exists(path), self._layout.files.open(path), os.PathLike")))


def takers_of_files() -> Iterator[str]:
    """Yield module and name of the functions and classes that read the files of a run where a parameter says."""
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            methods = [one for one in node.body if isinstance(one, FUNCTIONS)] if isinstance(node, ast.ClassDef) else []
            makes = [method for method in methods if method.name == "__init__"]
            for taker in makes or ([node] if isinstance(node, FUNCTIONS) else []):
                if any(arg.arg == "files" for arg in (*taker.args.args, *taker.args.kwonlyargs)):
                    yield f"{Path(module).stem}.{node.name}"


TAKERS = set(takers_of_files())


@pytest.mark.parametrize("module", [module for module in MODULES if layer_of(module) == "reader"])
def test_readers_say_where_the_files_of_a_run_are(module: str) -> None:
    assert {"decode.Decoder", "runfile.read", "parts.read_part"} <= TAKERS
    nodes = list(ast.walk(parsed(module)))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    full = {one.name: f"{(node.module or '').rpartition('.')[2]}.{one.name}" for node in froms for one in node.names}
    for node in nodes:
        if isinstance(node, ast.Call) and full.get(called := ast.unparse(node.func), called) in TAKERS:
            arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
            assert any(ast.unparse(argument).endswith("files") for argument in arguments), ast.unparse(node)


def functions() -> Iterator[tuple[str, int]]:
    """Yield place and length of all functions, those of Python without their signature and docstring."""
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            if isinstance(node, FUNCTIONS):
                body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
                yield f"{module}: {node.name}", (node.end_lineno or 0) - body[0].lineno + 1
    for source in SOURCES:
        for match in re.finditer(
            r"^\w[^;{}#]*\)\s*\{\n(.*?)^\}", (PACKAGE / source).read_text(), re.MULTILINE | re.DOTALL
        ):
            yield f"{source}: {match[0].partition('(')[0]}", match[1].count("\n")


def test_no_function_is_long() -> None:
    lengths = dict(functions())
    assert len(lengths) > 1000, "C functions were found, too"
    assert {place: lines for place, lines in lengths.items() if lines > FUNCTION_LINES} == {}


def test_no_file_is_long() -> None:
    lengths = {file: (PACKAGE / file).read_text().count("\n") for file in (*MODULES, *STUBS, *SOURCES)}
    long = {file: lines for file, lines in lengths.items() if lines > FILE_LINES}
    assert long.keys() == FILES_TODAY.keys(), "it has become long; or an exception can be struck"
    assert all(lines <= FILES_TODAY[file] for file, lines in long.items())


def test_no_call_has_many_arguments_by_position() -> None:
    many = {module: count for module in MODULES if (count := sum(map(has_many_arguments, ast.walk(parsed(module)))))}
    assert many == ARGUMENTS_TODAY


def has_many_arguments(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and len(node.args) > ARGUMENTS


def test_no_name_with_an_underscore_is_imported() -> None:
    for module in MODULES:
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "shmlog":
                private = {alias.name for alias in node.names if alias.name.startswith("_")} - {"_core", "_bulk"}
                assert not private, f"{module}:{node.lineno}: {private}"


OF_OTHERS = {"_asdict", "_replace", "_fields", "_exit", "_getframe", "_actions", "_SubParsersAction", "_Hash"}
"""Names of the standard library that are public, or that nothing public stands for."""


@pytest.mark.parametrize("package", sorted({layer_of(module) for module in MODULES}))
def test_no_package_touches_what_is_private_to_another(package: str) -> None:
    own = [module for module in MODULES if layer_of(module) == package]
    trees = [parsed(file) for file in [*own, *(["_core.pyi"] if package in WRITE_WING else [])]]
    ours = OF_OTHERS.union(*({*private_names(tree)} for tree in trees))
    touched = {(module, name) for module in own for name in touched_names(parsed(module)) if name not in ours}
    assert touched == set()


def private_names(tree: ast.Module) -> Iterator[str]:
    """Yield the names that a file gives to attributes, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            yield node.name


def touched_names(tree: ast.Module) -> Iterator[str]:
    """Yield the private names of others that a file uses."""
    for node in ast.walk(tree):
        is_private = isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__")
        if is_private and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
            yield node.attr


WORDS = re.compile(
    r"(?<!there )\b(is|are|can be) none\b|\b(for|to) who\b|\bwhich (is|was) told\b|\b(is|are) nothing for\b"
    r"|(?<!there )\b(is|are) no (time|name|number|text|string|str|list|object|mapping|folder|file|status|regular|gap"
    r"|JSON|CSV|Parquet|sandbox|frame|known)s?\b"
)
"""Turns of phrase that a reader takes twice to understand; write "unknown status", "is not a time", "callers that"."""


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_and_messages_are_read_once(module: str) -> None:
    odd = [f"{line}: {match[0]}" for line, text in texts_of(module) for match in WORDS.finditer(" ".join(text.split()))]
    assert odd == []


@pytest.mark.parametrize("text", ["status 'x' is none", "for who only reads", "'soon' is no time; write 30d"])
def test_the_word_list_finds_what_it_is_for(text: str) -> None:
    assert WORDS.search(text)
    assert not WORDS.search("None if there is none, or it is None; there is no file; it is no longer there")


def texts_of(module: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of all strings, those with values put in too; docstrings are strings."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.JoinedStr):
            yield (
                node.lineno,
                "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values),
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_a_name_means_one_class() -> None:
    assert set(twice(classes())) == set()


def classes() -> Iterator[str]:
    for module in MODULES:
        for node in parsed(module).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name


def twice(names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)


def test_packages_on_the_way_to_logging_are_empty() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        assert path.parent == PACKAGE or path.read_text().strip() == "", path


def test_the_face_is_small_and_typed() -> None:
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text())
    typed = [alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    typed += [ast.unparse(node.target) for node in stub.body if isinstance(node, ast.AnnAssign)]
    assert sorted(filter(None, typed)) == sorted(shmlog.__all__)
    assert len(shmlog.__all__) <= 20
    assert all(hasattr(shmlog, name) for name in shmlog.__all__)


def loaded_by(code: str, folder: Path) -> set[str]:
    """Return the packages in ``sys.modules`` after ``code``."""
    script = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


LOG = """
import shmlog
run = shmlog.init("imports", root=".")
run.metric("loss")(0.5, 1)
shmlog.log({"loss": 0.25, "text": "x"}, step=2)
run.event("checked", {"all": True})
run.flush()
"""


def test_reading_needs_no_shared_memory(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", LOG + "run.finish()"], cwd=tmp_path, timeout=60, check=True)
    read = """
import sys
sys.modules["posix_ipc"] = sys.modules["shmlog._core"] = None  # as if they were not installed
import pathlib, shmlog
(path,) = [file.parent for file in pathlib.Path("imports").glob("*/run.yaml")]
assert shmlog.load(path).metrics("loss").num_rows == 2
"""
    subprocess.run([sys.executable, "-c", read], cwd=tmp_path, timeout=60, check=True)


LOOK_FOR_PANDAS = """
from importlib.util import find_spec
from shmlog.base.extras import do_without_pandas
do_without_pandas()
assert find_spec("pandas") and find_spec("pandas_of_nobody") is None, "others may ask whether it is there"
"""


def test_our_own_programs_do_without_pandas(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("open('imported', 'w').close()\nraise ImportError")
    folders = filter(None, (os.environ.get("PYTHONPATH"), str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}

    def run(*command: str) -> None:
        subprocess.run([sys.executable, *command], cwd=tmp_path, env=environment, timeout=60, check=True)

    run("-c", LOG + "run.finish()")
    for command in (
        "export imports -f json -o run.json",
        "import run.json --root runs",
        "runs --root runs",
    ):
        run("-m", "shmlog", *command.split())
    run("-c", LOOK_FOR_PANDAS)
    assert not (tmp_path / "imported").exists()


RESUME = """
run.finish()
import logging
from shmlog.integrations.logging import LoggingHandler
logging.getLogger().addHandler(LoggingHandler())
run = shmlog.init(root=".", resume=run, config={"lr": 0.5}, console=True)
logging.warning("again")
run.finish()
"""


@pytest.mark.parametrize("code", ["import shmlog", LOG, LOG + RESUME], ids=["import", "log", "resume"])
def test_logging_needs_no_numpy_no_pyarrow_no_yaml(code: str, tmp_path: Path) -> None:
    loaded = loaded_by(code, tmp_path) - loaded_by("", tmp_path)
    assert "shmlog" in loaded
    assert loaded - sys.stdlib_module_names <= {"shmlog", "posix_ipc"}
