"""The command line: what it takes, prints, and returns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pyarrow as pa
import pytest

import shmlog
from shmlog.base.times import duration, moment
from shmlog.cli import details, find, lines, output, progress, text
from shmlog.cli import main as main_module
from shmlog.cli.commands import show as show_module
from shmlog.cli.main import build_parser, main
from shmlog.cli.parser import FAILED
from shmlog.errors import CorruptDataError, RunNotFoundError
from shmlog.flusher import recover as flusher_recover
from shmlog.reader import queries, summary
from shmlog.reader.event_lines import metric_lines
from shmlog.reader.follow import Follower
from tests.support.cli import commands_of
from tests.support.records import make_run as make_stored

COMMANDS = tuple(commands_of(build_parser()))
HOSTILE = "a\x1b[31mb\nc\u202ed\x9be\u2028f\ud800g"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_run(root: Path, run_id: str, experiment: str = "digits", **fields: object) -> Path:
    run_dir = root / experiment / run_id
    run_dir.mkdir(parents=True)
    (run_dir / "run.yaml").write_text(json.dumps({"schema": 1, "run_id": run_id, **fields}))
    return run_dir


# --- parser ---------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_every_help_has_an_example(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert "\nexample:\n  shmlog " in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        ["nonsense"],
        ["show", "--nonsense"],
        ["show", "a", "b"],
        ["show", ""],
        ["tail", "-n", "-1"],
        ["tail", "-n", "x"],
        ["tail", "-n", "9" * 5000],
        ["demo", "--workers", "0"],
        ["demo", "--steps", "٣"],
        ["demo", "--start-method", "vfork"],
        ["show", "--\x1b[31m"],
    ],
)
def test_wrong_usage_is_one_harmless_line_and_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    printed = capsys.readouterr()
    assert ended.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("shmlog: error: ")
    assert printed.err.count("\n") == 1
    assert "\x1b" not in printed.err


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("digits o.csv", "export digits -o o.csv"),
        ("digits csv o.csv", "export digits -f csv -o o.csv"),
        ("csv o.csv", "export -f csv -o o.csv"),
        ("digits -f csv o.csv", "export digits -f csv -o o.csv"),
    ],
)
def test_a_file_behind_the_run_to_export_is_wrong_usage_that_says_what_to_type(
    words: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", *words.split()])
    assert ended.value.code == 2
    assert f"a file is named with -o: {output.command(*advice.split())} (help: " in capsys.readouterr().err


def test_killing_the_only_worker_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--workers", "1", "--kill-a-worker"]) == 2
    assert capsys.readouterr().err.startswith("shmlog: error: --kill-a-worker needs")


def test_no_command_is_wrong_usage_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "commands:" in printed.err


@pytest.mark.parametrize("argv", [["--debug", "show"], ["show", "--debug"], ["--debug", "show", "--debug"]])
def test_debug_is_taken_before_and_behind_the_command(argv: list[str]) -> None:
    assert build_parser().parse_args(argv).debug is True
    assert build_parser().parse_args(["show"]).debug is False


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_machine_output(command: str) -> None:
    wanted = {"metrics": "RUN", "completion": "bash", "sql": "select 1", "import": "SOURCE"}
    wanted |= dict.fromkeys(("tag", "annotate", "pin", "unpin", "rm", "restore", "compare"), "RUN")
    words = [wanted[command]] if command in wanted else []
    assert build_parser().parse_args([command, *words, "--json"]).json is True


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from shmlog.cli.main import build_parser; build_parser().format_help()\n"
        "print(*{'numpy', 'pyarrow', 'yaml', 'multiprocessing'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- errors and exit codes --------------------------------------------------


def failing(error: BaseException) -> Callable[[Namespace], int]:
    def run(args: Namespace) -> int:
        raise error

    return run


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs the command line with a command that raises."""

    def run(error: BaseException, *argv: str) -> int:
        parser = build_parser()
        monkeypatch.setattr(main_module, "build_parser", lambda only: parser)
        args = Namespace(command="show", debug="--debug" in argv, run=failing(error))
        monkeypatch.setattr(parser, "parse_known_args", lambda _: (args, []))
        return main(list(argv))

    return run


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RunNotFoundError("runs: no run here"), "runs: no run here"),
        (CorruptDataError(f"x: {HOSTILE}"), r"x: a\x1b[31mb\nc\u202ed\x9be\u2028f\ud800g"),
        (FileNotFoundError(2, "No such file or directory", "a\nb"), r"a\nb: No such file or directory"),
        (KeyError("x"), "KeyError: 'x' (--debug shows the traceback)"),
        (RuntimeError(), "RuntimeError: RuntimeError (--debug shows the traceback)"),
    ],
)
def test_an_error_is_one_harmless_line_and_exit_code_3(
    outcome: Callable[..., int], error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(error) == 3
    assert capsys.readouterr().err == f"shmlog: error: {line}\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["compare", "A"], 2), (["compare", "A", "A"], 2), (["compare", "A", "nowhere"], 3),
        (["runs", "--status", "bogus"], 2), (["runs", "--sort", "nosuch"], 3), (["runs", "--where", "nosuch > 1"], 3),
        (["runs", "--columns", "lr,nosuch"], 3), (["sql", "select nosuch from runs"], 3), (["sql", "from nosuch"], 3),
        (["runs", "--where", "lr >"], 2),
        (["runs", "--since", "soon"], 2), (["runs", "nowhere"], 3), (["runs", "--root", "nowhere"], 3),
        (["prune", "--keep", "1", "--root", "nowhere"], 3), (["prune", "--older-than", "soon"], 2),
        (["sql", "select 1", "--root", "nowhere"], 3), (["sql", "selec 1"], 2), (["show", "nowhere"], 3),
        (["tail", "nowhere"], 3), (["verify", "nowhere"], 3), (["export", "nowhere"], 3), (["artifacts", "nowhere"], 3),
        (["checkpoints", "nowhere"], 3), (["recover", "nowhere"], 3), (["import", "nowhere"], 3),
        (["rm", "nowhere"], 3), (["pin", "nowhere"], 3), (["restore", "nowhere"], 3), (["tag", "nowhere", "x"], 3),
        (["tag", "A", ""], 2),
        (["annotate", "nowhere", "--name", "x"], 3), (["annotate", "A"], 2), (["export", "A", "-o", "out.nosuch"], 2),
        (["export", "A", "-o", "/proc/out.csv"], 3), (["artifacts", "A", "--get", "nosuch"], 3),
    ],
)  # fmt: skip
def test_exit_codes_are_alike_in_all_commands(
    here: Path, words: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = make_run(here / "runs", "A", complete=True)
    (run_dir / "config.yaml").write_text('{"lr": 0.1}')
    assert main(words) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("shmlog: error: ")]
    assert not re.search(r"[a-z]Error: ", line), "no class: a typed error that says what to do"


@pytest.mark.parametrize("make_root", [True, False])
def test_an_empty_root_is_told_in_the_same_words(
    here: Path, make_root: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    if make_root:
        (here / "runs").mkdir()
    why = "" if make_root else ", which is not there"
    for words in (["show"], ["tail"], ["runs"]):
        main(words)
        assert f"no runs in runs{why}; create one with 'shmlog demo', or name another" in capsys.readouterr().err


def test_debug_shows_the_traceback(outcome: Callable[..., int]) -> None:
    with pytest.raises(RunNotFoundError):
        outcome(RunNotFoundError("gone"), "--debug")


def test_an_interrupt_is_exit_code_130(outcome: Callable[..., int]) -> None:
    assert outcome(KeyboardInterrupt()) == 130


def test_a_closed_pipe_is_quiet() -> None:
    code = "import sys; from shmlog.cli.main import main; sys.exit(main(['gc', '--json']))"
    stub = "import sys, types; m = types.ModuleType('g'); m.find_stale = lambda: []\n"
    stub += "m.remove = None; sys.modules['shmlog.segment.gc'] = m\n"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", stub + code], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


# --- which run --------------------------------------------------------------


def test_without_a_name_the_newest_run_below_runs_is_taken_and_told(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = make_run(here / "runs", "20261121-031523-ffffff", "b")
    make_run(here / "runs", "20261121-031522-aaaaaa", "c")
    assert find.resolve_run(None, "runs").resolve() == newest
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "shmlog: newest of 2 in runs: runs/b/20261121-031523-ffffff\n"


def test_a_run_is_found_by_folder_experiment_root_and_id(here: Path) -> None:
    older = make_run(here / "runs", "20261121-031522-aaaaaa")
    newer = make_run(here / "runs", "20261121-031523-aaaaaa")
    for name, run_dir in [
        (str(older), older),
        ("runs/digits", newer),
        ("runs", newer),
        ("20261121-031522-aaaaaa", older),
    ]:
        assert find.resolve_run(name, "runs").resolve() == run_dir


def test_a_run_of_another_name_is_as_old_as_its_file(here: Path) -> None:
    named, newer = make_run(here / "runs", "my-run"), make_run(here / "runs", "20261121-031523-aaaaaa")
    os.utime(named / "run.yaml", (0, 0))
    assert find.resolve_run("runs", "runs").resolve() == newer
    os.utime(named / "run.yaml", (2e9, 2e9))
    assert find.resolve_run("runs", "runs").resolve() == named


def test_an_experiment_is_its_newest_run_and_which_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = make_run(here / "runs", "20261121-031522-aaaaaa")
    newer = make_run(here / "runs", "20261121-031523-aaaaaa")
    make_run(here / "runs", "20261121-031524-aaaaaa", "letters")
    (here / "digits").mkdir()  # a folder of that name in which there is no run
    assert find.resolve_run("digits", "runs").resolve() == newer
    assert capsys.readouterr().err == f"shmlog: newest of 2 in runs/digits: runs/digits/{newer.name}\n"
    assert find.resolve_run(f"digits/{older.name}", "runs").resolve() == older
    assert capsys.readouterr().err == ""
    assert find.resolve_run("letters", here / "runs").name == "20261121-031524-aaaaaa"
    assert find.resolve_run("letters/", "runs").name == "20261121-031524-aaaaaa", "as a shell completes it"


def test_where_there_is_no_run_yet_it_says_how_to_make_one(here: Path) -> None:
    with pytest.raises(RunNotFoundError, match=r"^no runs in runs, which is not there; create one with 'shmlog demo'"):
        find.resolve_run(None, "runs")


@pytest.mark.parametrize(
    "words",
    [
        ["show"], ["tail", "--no-follow"], ["verify"], ["export"], ["artifacts"], ["checkpoints"], ["recover"],
        ["sql", "select 1"], ["compare", "letters"],
    ],
)  # fmt: skip
def test_every_command_that_reads_a_run_takes_an_experiment(here: Path, words: list[str]) -> None:
    for experiment in ("digits", "letters"):
        with shmlog.init(experiment, root=here / "runs") as run:
            run.log("loss", 0.5, step=1)
    assert main([*words, "digits"]) == 0


@pytest.mark.parametrize("words", [["pin"], ["unpin"], ["tag", "--remove=x"], ["annotate", "--name=x"]])
def test_every_command_that_changes_a_run_takes_an_experiment(
    here: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = make_run(here / "runs", "20261121-031522-aaaaaa")
    for name in ("digits", "runs/digits", "runs", "latest"):
        assert main([*words, name]) == 0
        assert f"newest of 1 in {'runs/digits' if 'digits' in name else 'runs'}: runs/digits/{run_dir.name}" in (
            capsys.readouterr().err
        )


@pytest.mark.parametrize("name", ["nowhere", ".", "../../etc", "digits/nowhere", "a/b/c", "digits"])
def test_no_run_is_an_error_that_says_what_there_is(here: Path, name: str) -> None:
    with pytest.raises(
        RunNotFoundError, match=r"(no such folder, and no such run|no runs? (here|in)).* create one with 'shmlog demo'"
    ):
        find.resolve_run(name, "runs")
    make_run(here / "runs", "1", "letters")
    (here / "runs" / "digits").mkdir()
    with pytest.raises(RunNotFoundError, match=r"experiments in runs: digits, letters$"):
        find.resolve_run(name, "runs")


def test_an_id_of_two_runs_is_no_name_of_one(here: Path) -> None:
    for experiment in ("digits", "letters"):
        make_run(here / "runs", "1", experiment)
    (here / "runs" / "words").mkdir()
    (here / "runs" / "words" / "1").symlink_to(here / "runs" / "digits" / "1")
    with pytest.raises(ValueError, match="2 runs have the id '1'; write digits/1 or letters/1"):
        find.resolve_run("1", "runs")
    assert find.resolve_run("letters/1", "runs").resolve() == here / "runs" / "letters" / "1"


# --- text ---------------------------------------------------------------------


def test_nothing_that_acts_on_a_terminal_is_left() -> None:
    assert text.clean(HOSTILE) == r"a\x1b[31mb\nc\u202ed\x9be\u2028f\ud800g"
    harmful = [chr(c) for c in (*range(32), *range(0x7F, 0xA0), 0x2028, 0x202E, 0x2066, 0xFEFF, 0xDFFF)]
    assert all(text.clean(character).startswith("\\") for character in harmful)
    assert text.clean("naïve 数 🙂 ~") == "naïve 数 🙂 ~"


def test_a_table_is_aligned_whatever_the_names() -> None:
    rows = [("数数", 1), ("a\nb", 1234567), (None, None)]
    printed = list(text.table(("name", "count"), rows, left=("name",)))
    assert printed == ["name      count", "数数          1", r"a\nb  1,234,567", ""]


LONG = [
    ("20261121-031522-7f3a9c", "an-experiment-of-a-long-name", "2026-11-21 03:15", 1234567890, "x" * 60, "tag," * 9),
    ("20261121-031523-7f3a9c", "数" * 20, "2026-11-21 03:16", 1, "short", None),
]
TITLES = ("run", "experiment", "started", "records", "name", "tags")


def table_at(monkeypatch: pytest.MonkeyPatch, columns: int | None) -> list[str]:
    monkeypatch.setattr(text, "window_columns", lambda: columns)
    return list(text.table(TITLES, LONG, left=("run", "experiment", "name", "tags")))


@pytest.mark.parametrize("columns", [10, 20, 60, 80, 120, 200])
def test_a_table_is_no_wider_than_the_window_and_cuts_no_figure(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    printed = table_at(monkeypatch, columns)
    assert max(map(text.width, printed)) <= columns
    shown = printed[0].split()
    if columns >= 60:
        assert all(line.startswith(row[0]) for line, row in zip(printed[1:], LONG, strict=False)), "ids are whole"
    if "records" in shown:
        assert "1,234,567,890" in printed[1]
    if "started" in shown:
        assert "2026-11-21 03:15" in printed[1]
    missing = TITLES[len(shown) :]
    assert printed[-1].startswith("…") == bool(missing)
    if columns >= 60 and missing:
        assert printed[-1] == f"… {text.plural(len(missing), 'more column')}: {', '.join(missing)}"


def test_names_that_are_cut_can_be_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"train/layer{i}/attention/head{i}/norm_of_gradient" for i in range(20)]
    monkeypatch.setattr(text, "window_columns", lambda: 60)
    printed = list(text.table(("name", "text", "last"), [(name, "y" * 50, 1) for name in names], left=("name", "text")))
    assert len(set(printed)) == 1 + len(names)
    assert max(map(len, printed)) <= 60


def test_a_table_that_no_terminal_shows_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = table_at(monkeypatch, None)
    assert all(cell in printed[1] for cell in LONG[0] if isinstance(cell, str))
    monkeypatch.setattr(text, "window_columns", lambda: None)
    huge, small = list(text.table(("a", "b"), [("x" * 5000, 1), ("y", 2)]))[1:]
    assert "x" * 5000 in huge
    assert len(small) < 300, "a huge cell widens no other row"


def test_titles_are_harmless_too() -> None:
    assert "\x1b" not in "".join(text.table(("a\x1b[31m",), [(1,)]))


@pytest.mark.parametrize("columns", range(3, 12))
def test_shortened_text_fits(columns: int) -> None:
    for full in ("abcdefghijklmnop", "数数数数数数数数", "short"):
        assert text.width(text.shorten(full, columns)) <= columns


@pytest.mark.parametrize(
    ("logged", "shown"),
    [
        (0.1 + 0.2, "0.3"),
        (1e300, "1e+300"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (2**63 - 1, "9223372036854775807"),
        (True, "true"),
        (None, ""),
        ("x" * 100, "x" * 100),
    ],
)
def test_values_are_written_for_people(logged: object, shown: str) -> None:
    assert text.value(logged) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345, "12.3 kB"), (10**15, "1e+03 TB")],
)
def test_sizes(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (61, "1 min 01 s"), (3723, "1 h 02 min"), (200_000, "2 d 7 h")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_json_is_strict_and_ascii() -> None:
    printed = output.to_json({"x": [float("nan"), float("inf"), -float("inf")], "p": Path("a"), "t": HOSTILE})
    assert json.loads(printed)["x"] == ["NaN", "Infinity", "-Infinity"]
    assert printed.isascii()
    assert printed.isprintable()


# --- records ----------------------------------------------------------------------


def metrics(*rows: tuple[str, object, int, int]) -> pa.Table:
    """Return records (name, value, step, microsecond), all from lane 0."""
    kinds = {float: "float", int: "int", bool: "bool", str: "text"}
    return pa.table(
        {
            "step": pa.array([row[2] for row in rows], pa.int64()),
            "name": pa.array([row[0] for row in rows]).dictionary_encode(),
            "value": pa.array([None if isinstance(row[1], str) else float(row[1]) for row in rows]),
            "int_value": pa.array([int(v) if isinstance(v := row[1], int) else None for row in rows], pa.int64()),
            "text": pa.array([row[1] if isinstance(row[1], str) else None for row in rows], pa.string()),
            "kind": pa.array([kinds[type(row[1])] for row in rows]).dictionary_encode(),
            "ts": pa.array([row[3] for row in rows], pa.timestamp("us", "UTC")),
            **{key: pa.nulls(len(rows), pa.int32()) for key in ("rank", "local_rank", "worker")},
            "pid": pa.array([7] * len(rows), pa.int32()),
            "lane": pa.array([0] * len(rows), pa.int32()),
            "seq": pa.array(range(len(rows)), pa.int64()),
            "node": pa.array([0] * len(rows), pa.int32()),
        }
    )


def test_one_call_is_one_line_and_values_keep_their_type() -> None:
    table = metrics(("loss", 0.5, 3, 10), ("n", 2**60 + 1, 3, 10), ("ok", True, 3, 10), ("t", "x", 4, 11))
    found = metric_lines(table)
    assert [line["data"] for line in found] == [
        {"step": 3, "metrics": {"loss": 0.5, "n": 2**60 + 1, "ok": True}},
        {"step": 4, "metrics": {"t": "x"}},
    ]
    assert found[0]["timestamp"] == "1970-01-01T00:00:00.000010Z"
    assert (found[1]["lane"], found[1]["seq"], found[1]["pid"], found[1]["rank"]) == (0, 3, 7, None)


def test_a_name_that_repeats_within_a_microsecond_is_another_call() -> None:
    found = metric_lines(metrics(("loss", 1.0, 0, 5), ("loss", 2.0, 0, 5), ("loss", 3.0, 0, 5)))
    assert [line["data"]["metrics"]["loss"] for line in found] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("last", [0, 1, 2, 3, 99])
def test_the_last_lines_are_the_newest_calls(last: int) -> None:
    table = metrics(("a", 1.0, 0, 1), ("b", 2.0, 0, 1), ("a", 3.0, 1, 2), ("b", 4.0, 1, 2), ("a", 5.0, 0, 3))
    newest = metric_lines(table.take([3, 0, 4, 2, 1]), last)
    assert newest == metric_lines(table)[max(0, 3 - last) :]


def test_a_line_for_people_is_one_harmless_line() -> None:
    metric = metric_lines(metrics((f"m{HOSTILE[:4]}", 0.5, 3, 10)))[0]
    assert list(lines.text(metric)) == [r"00:00:00.000  pid 7  Step 3 - Metrics: ma\x1b[3=0.5000"]
    event = {
        "timestamp": "2026-11-21T03:15:22.123456Z",
        "event_type": "x\n",
        "data": {"a": "\x1b"},
        "worker": 1,
    }
    assert list(lines.text(event)) == [r"03:15:22.123  worker 1  x\n: a=\x1b"]
    assert list(lines.text({})) == ["  pid None  None: null"]


def test_a_line_for_people_goes_on_below_in_a_narrow_window(monkeypatch: pytest.MonkeyPatch) -> None:
    event = {"timestamp": "2026-11-21T03:15:22.123456Z", "event_type": "x", "data": "word " * 40, "worker": 1}
    monkeypatch.setattr(text, "window_columns", lambda: 60)
    first, *others = lines.text(event)
    assert first.startswith("03:15:22.123  worker 1  x: ")
    assert all(line.startswith(" " * 20) and len(line) <= 60 for line in others)
    assert " ".join([first, *others]).count("word") == 40


def marked(table: pa.Table) -> pa.Table:
    return table.append_column("superseded", pa.array([False] * table.num_rows))


def stored_run(table: pa.Table, **fields: object) -> SimpleNamespace:
    table = marked(table)

    standard = {
        "dir": Path("runs/digits/1"),
        "id": "1",
        "experiment": "digits",
        "status": "success",
        "lost": {},
        "segment_lost": False,
        "live": False,
        "unrecovered": False,
        "annotations": {},
        "config": {"lr": 0.1},
        "attempts": [{"attempt": 1, "status": "success"}],
        "paused_s": 0.0,
        "counts": {"metrics": table.num_rows, "events": 1},
        "dropped": {"full": 0},
        "producers": [],
        "metadata": {"started_at": "2026-11-21T03:15:22Z", "ended_at": "2026-11-21T03:16:23Z", "tags": ["t"]},
        "events": lambda event_type: [],
        "artifacts": [],
        "portions": lambda *, superseded: iter([table]),
    }
    return SimpleNamespace(**standard | fields)


def test_the_summary_has_last_by_step_and_exact_integers() -> None:
    nan = float("nan")
    table = metrics(("loss", nan, 0, 1), ("loss", 2.0, 1, 2), ("n", 2**62 + 1, 0, 1), ("n", -5, 1, 1), ("t", "x", 0, 1))
    rows = summary.summarise([marked(table)]).rows
    assert rows == [
        {"name": "loss", "kind": "float", "count": 2, "last_step": 1, "last": 2.0, "min": 2.0, "max": 2.0},
        {"name": "n", "kind": "int", "count": 2, "last_step": 1, "last": -5, "min": -5, "max": 2**62 + 1},
        {"name": "t", "kind": "text", "count": 1, "last_step": 0, "last": "x", "min": None, "max": None},
    ]


def test_the_summary_of_a_huge_run_is_made_in_portions(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with shmlog.init("digits") as run:
        for i in range(70):
            run.log(f"m{i % 7}", float(i), step=i)
    stored = shmlog.load(run.dir)
    whole = summary.summarise(stored.portions(superseded=True))
    monkeypatch.setattr(queries, "_ROWS_AT_ONCE", 20)
    assert len(list(stored.portions())) > 1
    assert summary.summarise(stored.portions(superseded=True)) == whole
    assert stored.statistics().num_rows == 7


def test_a_name_of_two_kinds_has_two_rows() -> None:
    rows = summary.summarise([marked(metrics(("x", 1, 0, 1), ("x", 1.5, 1, 2), ("x", True, 2, 3)))]).rows
    assert [(row["kind"], row["last"]) for row in rows] == [("bool", True), ("float", 1.5), ("int", 1)]


def names_in(found: list[lines.Line]) -> list[str]:
    """Return names and event types, in the order of the lines."""
    return [
        "+".join(line["data"]["metrics"]) if line["event_type"] == "metrics" else line["event_type"] for line in found
    ]


def test_a_follower_shows_each_record_once(here: Path) -> None:
    with shmlog.init("follow", root=here / "runs") as run:
        for step in range(5):
            run.log({"a": 0.5, "b": step}, step=step)
        assert run.flush()
        follower = Follower(run.dir)
        assert not follower.ended()
        assert names_in(follower.history(2)) == ["a+b", "a+b"]
        assert follower.poll() == []
        run.log("c", 1.0)
        run.event("mine", {"x": 1})
        assert run.flush()
        assert names_in(follower.poll()) == ["c", "mine"]
        assert follower.poll() == []
        run.log({"d": True, "e": "text"}, step=7)
    rest = follower.rest()
    assert names_in(rest) == ["d+e", "experiment_end"]
    assert rest[0]["data"] == {"step": 7, "metrics": {"d": True, "e": "text"}}
    assert follower.rest() == []
    assert follower.stored.status == "success"


def test_tail_prints_the_lines_of_events_jsonl(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with shmlog.init("tail", root=here / "runs", config={"lr": 0.1}, sinks=("parquet", "jsonl")) as run:
        run.log({"loss": float("nan"), "n": 3, "t": HOSTILE[:12]}, step=1)
    assert main(["tail", "--json", "-n", "100", str(run.dir)]) == 0
    printed = capsys.readouterr()
    in_file = (run.dir / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in printed.out.splitlines()] == [json.loads(line) for line in in_file]
    assert printed.err == "shmlog: the run has ended: success\n"


def shown(**fields: object) -> list[str]:
    table = metrics(("loss", 0.5, 0, 1), (f"x{HOSTILE[:10]}", 1, 0, 1))
    return list(details.lines(show_module.describe(stored_run(table, **fields)), everything=False, pattern=None))


def test_show_tells_the_run_its_producers_metrics_and_drops() -> None:
    producer = {"lane": 0, "pid": 4321, "rank": 0, "worker": None, "process": "MainProcess"}
    producer |= {"metrics": 1000, "events": 1, "dropped": {"full": 2}}
    printed = "\n".join(shown(producers=[producer], dropped={"full": 2, "names": 0}))
    assert "run      digits / 1" in printed
    assert f"time     {text.local_time(moment('2026-11-21T03:15:22Z'), seconds=True)}, took 1 min 01 s" in printed
    assert "records  2 metrics, 1 event, 2 dropped" in printed
    assert "   0  4321     0          MainProcess    1,000       1        2" in printed
    assert "full                   2" in printed
    assert "names" not in printed
    assert "\x1b" not in printed


def test_what_a_resumed_run_took_is_without_its_pauses() -> None:
    printed = "\n".join(shown(paused_s=31.0))
    assert ", took 30.0 s without the pauses of 31.0 s" in printed


def test_a_metric_of_nan_alone_has_no_least_and_no_largest_value(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nan = float("nan")
    for number in ("a", "b"):
        with shmlog.init("digits", root=here / "runs", config={"run": number}) as run:
            for step in range(3):
                run.log({"nan": nan, "loss": nan if step else 0.5}, step=step)
    store = shmlog.Store(here / "runs")
    assert store.summary(run.id)["nan"] | {"last": 0} == {"last": 0, "min": None, "max": None, "count": 3}
    assert store.summary(run.id)["loss"]["max"] == 0.5
    assert store.runs(where="metrics.nan.min < 1") == []
    assert len(store.runs(where="metrics.nan.max = null")) == 2
    assert shmlog.load(run.dir).statistics("nan").to_pylist()[0]["max"] is None
    assert main(["show", run.id]) == 0
    (row,) = (line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("nan"))
    assert row == ["nan", "float", "3", "nan", "-", "-"]
    assert main(["show", run.id, "--json"]) == 0
    found = {metric["name"]: metric for metric in json.loads(capsys.readouterr().out)["metrics"]}
    assert (found["nan"]["last"], found["nan"]["min"], found["nan"]["max"]) == ("NaN", None, None)
    assert main(["compare", *(record.run_id for record in store.runs())]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["nan", "min", "-", "-"] in rows
    assert ["loss", "max", "0.5", "0.5"] in rows


def test_show_counts_the_curve_of_a_resumed_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for resume, value, steps in ((None, 1, range(5)), ("runs", 2.5, range(3, 7))):
        with shmlog.init("digits", resume=resume and find.resolve_run(resume, "runs")) as run:
            for step in steps:
                run.log("loss", value, step=step)
    capsys.readouterr()
    assert main(["show", str(run.dir)]) == 0
    printed = capsys.readouterr().out
    (told,) = (line for line in printed.splitlines() if line.startswith("records"))
    assert told.startswith("records  7 metrics, ")
    assert told.endswith(", 0 dropped; 2 metrics superseded by a later attempt")
    assert main(["show", str(run.dir), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["counts"]["metrics"], found["counts"]["superseded"]) == (7, 2)
    assert [row["count"] for row in found["metrics"]] == [4, 3]
    assert shmlog.load(run.dir).metrics().num_rows == 7


def test_show_gives_the_command_for_an_unrecovered_run() -> None:
    status = next(line for line in shown(status="crashed", unrecovered=True) if line.startswith("status"))
    assert "crashed, unrecovered; finish it: " in status
    assert status.endswith(" recover runs/digits/1")


def test_show_does_not_claim_to_know_a_run_of_another_machine() -> None:
    printed = shown(status="running", live=None, metadata={"started_at": "nonsense", "created_at": None})
    assert "status   running, as far as can be seen from this machine" in printed


def test_show_tells_what_it_can_of_a_damaged_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_stored(tmp_path, [("loss", step, float(step), step + 1, None) for step in range(3)])
    (part,) = run.dir.glob("metrics/*/*.parquet")
    part.write_bytes(part.read_bytes().replace(b"PAR1", b"XXXX"))
    assert main(["show", str(run.dir)]) == 1
    printed = capsys.readouterr()
    assert "status   success" in printed.out
    assert printed.err.startswith("shmlog: error: ")
    assert part.name in printed.err


def test_show_as_json_is_strict(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = make_run(here / "runs", "1")
    stored = stored_run(metrics(("loss", float("inf"), 0, 1)), dir=run_dir)
    monkeypatch.setattr(shmlog, "load", lambda path: stored)
    assert main(["show", "--json", str(run_dir)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metrics"][0]["last"] == "Infinity"
    assert found["run_dir"] == str(run_dir)


# --- verify ------------------------------------------------------------------------


def test_verify_names_each_damaged_file_and_fails(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with shmlog.init("verify", root=here / "runs") as run:
        run.log("loss", 0.5)
    assert main(["verify", str(run.dir)]) == 0
    assert ": ok (" in capsys.readouterr().out
    part = next(run.dir.glob("metrics/*/*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    assert main(["verify", str(run.dir)]) == 1
    printed = capsys.readouterr().out
    assert f"error: runs/verify/{run.id}/metrics/node=0/{part.name}: " in printed
    assert ": damaged (" in printed
    assert main(["verify", "--json", str(run.dir)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert str(part) in [finding["file"] for finding in report["findings"]]


# --- recover and gc ------------------------------------------------------------------


def stub(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


def recovered(run_dir: Path, *, force: bool = False) -> SimpleNamespace:
    if run_dir.name == "3":
        raise CorruptDataError("3/run.yaml: neither JSON nor YAML")
    return SimpleNamespace(run_dir=run_dir, status="crashed", records=7, changed=True, message="recovered")


def test_recover_looks_at_all_runs_that_are_not_complete(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(here / "runs", "1", complete=True)
    make_run(here / "runs", "2", complete=False)
    (make_run(here / "runs", "3") / "run.yaml").write_text("}{")
    monkeypatch.setattr(flusher_recover, "recover", recovered)
    assert main(["recover", "--json"]) == 3
    found = {Path(outcome["run_dir"]).name: outcome for outcome in json.loads(capsys.readouterr().out)}
    assert sorted(found) == ["2", "3"]
    assert found["2"]["changed"] is True
    assert found["3"]["error"] == "3/run.yaml: neither JSON nor YAML"
    assert main(["recover", "runs/digits/2"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "runs/digits/2  crashed  7 metrics  recovered\n"
    assert printed.err == "shmlog: 1 run recovered\n"


def test_recover_of_an_experiment_looks_at_all_its_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run_id, experiment in (("1", "digits"), ("2", "digits"), ("4", "letters")):
        make_run(here / "runs", run_id, experiment, complete=False)
    monkeypatch.setattr(flusher_recover, "recover", recovered)
    assert main(["recover", "digits", "--json"]) == 0
    found = [Path(outcome["run_dir"]).name for outcome in json.loads(capsys.readouterr().out)]
    assert sorted(found) == ["1", "2"]


def test_recover_of_a_root_without_crashed_runs_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(here / "runs", "1", complete=True)
    assert main(["recover"]) == 0
    assert capsys.readouterr().err == "shmlog: nothing to recover\n"


class Segments:
    """Stale segments, and what happened to them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, run_dir: Path | None) -> None:
        from typing import NamedTuple

        class Stale(NamedTuple):
            name: str
            path: Path
            run_dir: Path | None
            run_id: str
            bytes: int
            reason: str

        self.done: list[str] = []
        stale = Stale("/shmlog-1", Path("/dev/shm/shmlog-1"), run_dir, "1", 2_000_000, "dead")
        members = {"find_stale": lambda: [stale], "remove": lambda segment: self.done.append("remove")}
        stub(monkeypatch, "shmlog.segment.gc", **members)
        monkeypatch.setattr(flusher_recover, "recover", self.recover)

    def recover(self, run_dir: Path) -> None:
        self.done.append("recover")
        recovered(run_dir)


def test_gc_changes_nothing_without_force(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    segments = Segments(monkeypatch, Path("/runs/digits/1"))
    assert main(["gc"]) == 0
    assert segments.done == []
    printed = capsys.readouterr()
    assert "/shmlog-1  2 MB  dead    /runs/digits/1" in printed.out
    assert "nothing is changed" in printed.err


def test_gc_recovers_before_it_removes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    segments = Segments(monkeypatch, Path("/runs/digits/1"))
    assert main(["gc", "--force", "--json"]) == 0
    assert segments.done == ["recover", "remove"]
    assert json.loads(capsys.readouterr().out)[0]["removed"] is True


def test_gc_keeps_a_segment_whose_run_cannot_be_recovered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segments = Segments(monkeypatch, Path("/runs/digits/3"))
    assert main(["gc", "--force"]) == 3
    assert segments.done == ["recover"]
    assert "shmlog: error: /shmlog-1: kept" in capsys.readouterr().err


def test_gc_removes_a_segment_without_a_run_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = Segments(monkeypatch, None)
    assert main(["gc", "--force"]) == 0
    assert segments.done == ["remove"]


def test_a_name_in_a_progress_bar_acts_on_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_WAIT_S", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.ProgressBar("export \x1b[2Jx") as bar:
        bar.update(1, 2)
    assert "export \\x1b[2Jx [" in capsys.readouterr().err


def test_names_that_no_run_has_are_named_with_similar_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [shmlog.Store(tmp_path).create_run("e", params={"optimizer": {"lr": 0.1}}).run_id for _ in range(2)]
    there = "there are optimizer.lr; beside them metrics.NAME.min (max, last, count) and run.FIELD"
    conditions = {
        "optimiser.lr > 0": f"where: no run has 'optimiser.lr'; perhaps optimizer.lr is meant; {there}",
        "optimizer.lr > 0 and metrics.loss > 0": "where: no run has 'metrics.loss'; there are none; ",
        "optimizer.lr > 1": "",
        "run.notes = 'x'": "",
    }
    for condition, words in conditions.items():
        assert main(["runs", "--root", str(tmp_path), "--where", condition]) == (FAILED if words else 0)
        error = capsys.readouterr().err
        assert words in error
        assert ("no run has" in error) == bool(words)
    assert main(["compare", "--root", str(tmp_path), *runs, "--metric", "nope"]) == FAILED
    assert "none of the runs has a metric 'nope'" in capsys.readouterr().err


def test_the_hint_for_wrong_options_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["runs", "--nothing-of-the-kind"])
    assert "(help: shmlog runs --help)" in capsys.readouterr().err
