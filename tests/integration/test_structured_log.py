"""The structured log: levels, the console, and Python's own logging, from every process."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import shmlog
from shmlog.integrations.logging import LoggingHandler
from shmlog.logs import load_structured_logs
from tests.support.books import assert_books_balance
from tests.support.processes import only_run, run_script, wait_for_end

METHODS = ["fork", "spawn"]


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Return a logger that takes all levels and hands nothing on, and take its handlers off again."""
    logger = logging.getLogger("tests.structured")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)


def logged(run: shmlog.Run) -> list[dict[str, Any]]:
    """Return the data of the run's log events."""
    assert run.flush()
    return [event["data"] for event in shmlog.load(run.dir).events("log")]


# ---- events ----


def test_metrics_of_the_structured_log_are_records(tmp_path: Path) -> None:
    with shmlog.init("digits", root=tmp_path, sinks=("parquet", "jsonl")) as run:
        run.log_metrics({"loss": np.float32(0.5), "n": 3}, step=7)
        run.log_metrics({"loss": 0.25})
        with pytest.raises(TypeError):
            run.log_metrics({"loss": object()}, step=8)
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=3)
    assert stored.metrics("loss")["value"].to_pylist() == [0.25, 0.5]
    assert [event["data"] for event in stored.events("metrics")] == [
        {"step": 7, "metrics": {"loss": 0.5, "n": 3}}, {"step": 0, "metrics": {"loss": 0.25}},
    ]  # fmt: skip


def test_by_default_metrics_are_in_parquet_alone(tmp_path: Path) -> None:
    with shmlog.init("digits", root=tmp_path) as run:
        run.log_metrics({"loss": 0.5, "n": 3}, step=7)
        run.event("mine", {"loss": 0.5})
    wait_for_end(run.dir)
    stored = assert_books_balance(run.dir, offered=2)
    assert stored.metadata["sinks"] == ["parquet"]
    assert pq.read_table(run.dir / "metrics").num_rows == 2
    types = [event["event_type"] for event in load_structured_logs(run.dir / "events.jsonl")]
    assert types == ["experiment_start", "log", "mine", "experiment_end"]


def test_a_checkpoint_is_told_by_its_place_in_the_run(tmp_path: Path) -> None:
    with shmlog.init("digits", root=tmp_path) as run:
        run.log_checkpoint(run.dir / "checkpoints" / "a.pt", step=3, metrics={"loss": np.float64(0.5)})
        run.log_checkpoint("/elsewhere/b.pt")
        assert run.finalize("completed")
    assert run.status == "success"
    assert [event["data"] for event in shmlog.load(run.dir).events("checkpoint")] == [
        {"path": "checkpoints/a.pt", "step": 3, "metrics": {"loss": 0.5}},
        {"path": "/elsewhere/b.pt", "step": None, "metrics": {}},
    ]


@pytest.mark.parametrize("level", ["info", "ERROR", logging.WARNING])
def test_messages_below_the_level_are_left_out(tmp_path: Path, level: str | int, logger: logging.Logger) -> None:
    logger.addHandler(LoggingHandler())
    names = ["debug", "info", "warning", "error"]
    with shmlog.init("digits", root=tmp_path, level=level) as run:
        for name in names:
            getattr(run, name)(f"of the run: {name}")
            getattr(logger, name)("of logging: %s", name)
        run.log_result({"accuracy": 1.0})
        kept = names[names.index(logging.getLevelName(level).lower() if isinstance(level, int) else level.lower()) :]
        due = [(name, f"{who}: {name}") for name in kept for who in ("of the run", "of logging")]
        assert [(data["level"], data["message"]) for data in logged(run)] == due
        assert len(shmlog.load(run.dir).events("result")) == 1, "only messages have a level"


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"level must be one of debug \(10\), info"):
        shmlog.init(root=tmp_path, level="loud")
    with pytest.raises(ValueError, match=r"level must be one of debug .*, not 15"):
        shmlog.init(root=tmp_path, level=15)
    with pytest.raises(TypeError, match="level must be a str or a number"):
        shmlog.init(root=tmp_path, level=[])  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


# ---- console ----


def test_the_console_has_the_forms_that_people_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with shmlog.init("digits", root=tmp_path, config={"lr": 0.1, "model": "cnn"}, console=True, level="info") as run:
        run.log_progress(100, 1000, {"loss": np.float32(0.5), "n": 3})
        run.log_progress(0, 0)
        run.log_metrics({"loss": 0.25, "acc": 1.0}, step=100)
        run.log_metrics({"loss": 0.25})
        run.log_result({"accuracy": 0.5, "name": "best"})
        run.log_error(ValueError("too small"), {"step": 3})
        run.log_error("no data")
        run.log_checkpoint("/a.pt")
        run.debug("not this")
        run.warning("a warning")
        run.log({"loss": 1.0}, step=101)
        run.event("of_mine", {})
    *lines, end = capsys.readouterr().out.splitlines()
    assert lines == [
        "INFO: Experiment started: digits",
        "INFO: Experiment configuration:",
        "INFO:   lr: 0.1",
        "INFO:   model: cnn",
        "INFO: Progress: 100/1000 (10.0%) | loss=0.5000, n=3",
        "INFO: Progress: 0/0 (0.0%)",
        "INFO: Step 100 - Metrics: loss=0.2500, acc=1.0000",
        "INFO: Metrics: loss=0.2500",
        "INFO: Experiment result:",
        "INFO:   accuracy: 0.500000",
        "INFO:   name: best",
        "ERROR: Error occurred: ValueError: too small",
        "ERROR:   Context:",
        "ERROR:     step: 3",
        "ERROR:     ValueError: too small",
        "ERROR: Error occurred: no data",
        "INFO: Checkpoint saved: /a.pt",
        "WARNING: a warning",
        "INFO: of_mine",
    ]
    assert end.startswith("INFO: Experiment completed: digits after ")


@pytest.mark.parametrize("way", ["default", "disabled", "level"])
def test_the_console_is_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "default": {}, "disabled": {"console": True, "mode": "disabled"}, "level": {"console": True, "level": "error"},
    }  # fmt: skip
    with shmlog.init("digits", root=tmp_path, **options[way]) as run:
        run.info("text")
        run.log_result({"x": 1})
    assert capsys.readouterr().out == ""


def test_a_console_that_is_closed_or_narrow_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        shmlog.init("digits", root=tmp_path, console=True) as run,
        open(tmp_path / "out", "w", encoding="ascii") as out,
    ):
        monkeypatch.setattr(sys, "stdout", out)
        run.info("größer")
        out.close()
        run.info("closed")
        monkeypatch.setattr(sys, "stdout", None)
        run.info("none")
        assert [data["message"] for data in logged(run)] == ["größer", "closed", "none"]
        monkeypatch.undo()
    assert (tmp_path / "out").read_text() == "INFO: gr\\xf6\\xdfer\n"


# ---- logging ----


def test_a_record_of_logging_is_told_with_its_place(tmp_path: Path, logger: logging.Logger) -> None:
    logger.addHandler(LoggingHandler())
    with shmlog.init("digits", root=tmp_path) as run:
        try:
            raise ValueError("too small")
        except ValueError:
            logger.exception("at step %d", 3, stack_info=True)
        logger.log(25, {"a": 1})
        first, second = logged(run)
        run.finish()
    text = (run.dir / "run.log").read_text()
    assert " - digits - ERROR - at step 3\n    Traceback (most recent call last):\n" in text
    assert "\n    ValueError: too small\n    Stack (most recent call last):\n" in text
    assert first["exception"].endswith("ValueError: too small")
    assert first["stack"].startswith("Stack")
    assert {name: first[name] for name in ("level", "message", "logger", "file")} == {
        "level": "error", "message": "at step 3", "logger": "tests.structured", "file": __file__,
    }  # fmt: skip
    assert isinstance(first["line"], int)
    assert (second["level"], second["message"]) == ("level 25", "{'a': 1}")
    assert "exception" not in second


def log_in_child(handler_is_there: bool) -> None:
    logger = logging.getLogger("tests.structured")
    if not handler_is_there:
        logger.addHandler(LoggingHandler())
    logger.warning("from a child")


@pytest.mark.parametrize("method", METHODS)
def test_children_log_into_the_run(tmp_path: Path, method: str, logger: logging.Logger) -> None:
    logger.addHandler(LoggingHandler())
    with shmlog.init("digits", root=tmp_path) as run:
        child = multiprocessing.get_context(method).Process(target=log_in_child, args=(method == "fork",))
        child.start()
        child.join()
    wait_for_end(run.dir)
    (event,) = assert_books_balance(run.dir, offered=0).events("log")
    assert event["data"]["message"] == "from a child"
    assert event["pid"] == child.pid


def test_before_and_after_the_run_nothing_is_told_and_nothing_fails(
    tmp_path: Path, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(LoggingHandler())
    logger.warning("before")
    with shmlog.init("digits", root=tmp_path, strict=True) as run:
        logger.addHandler(LoggingHandler(logging.ERROR, run=run))
        logger.warning("while")
    logger.error("after")
    with shmlog.init("digits", mode="disabled"):
        logger.error("disabled")
    assert [event["data"]["message"] for event in shmlog.load(run.dir).events("log")] == ["while"]
    assert capsys.readouterr().err == ""


LOOPS = """
import logging, sys
import shmlog
from shmlog.integrations.logging import LoggingHandler

logger = logging.getLogger("loops")
logger.setLevel(logging.DEBUG)
logger.propagate = False
logger.addHandler(LoggingHandler())

class Chatty:
    def __str__(self):
        logger.info("inner")
        return "chatty"

class Endless:
    def __str__(self):
        logger.info("%s", self)
        return "endless"

with shmlog.init("digits", root=sys.argv[1]) as run:
    logger.info("%d", "no number")
    logger.info("%s", Chatty())
    logging.getLogger("shmlog").addHandler(LoggingHandler())
    logging.getLogger("shmlog.of_ours").error("about this very handler, perhaps")
    logger.info("%s", Endless())
    logger.info("last")
"""


def test_mistakes_and_loops_in_what_is_logged_do_not_end_the_program(tmp_path: Path) -> None:
    done = run_script(LOOPS, tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("TypeError") == 1, "a mistake is told on standard error, as by any handler"
    run_dir = only_run(tmp_path / "runs")
    wait_for_end(run_dir)
    messages = [event["data"]["message"] for event in shmlog.load(run_dir).events("log")]
    assert [message for message in messages if message != "endless"] == ["inner", "chatty", "last"]


def test_a_signal_handler_may_log_while_logging(tmp_path: Path, logger: logging.Logger) -> None:
    logger.addHandler(LoggingHandler())
    before = signal.signal(signal.SIGALRM, lambda number, frame: logger.info("from the signal"))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        with shmlog.init("digits", root=tmp_path) as run:
            threads = [threading.Thread(target=lambda: [logger.info("x") for _ in range(300)]) for _ in range(3)]
            for thread in threads:
                thread.start()
            for _ in range(300):
                logger.info("x")
            for thread in threads:
                thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    wait_for_end(run.dir)
    messages = [event["data"]["message"] for event in assert_books_balance(run.dir).events("log")]
    assert messages.count("x") == 1200
    assert set(messages) <= {"x", "from the signal"}


BAD_PLACE = """
import logging, os, sys
import shmlog
from shmlog.integrations.logging import LoggingHandler
logging.getLogger().addHandler(LoggingHandler())
logging.warning("to nowhere")
print("alive", shmlog.__name__, "numpy" in sys.modules, "pyarrow" in sys.modules)
"""


def test_a_run_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    run = shmlog.init("digits", root=tmp_path)
    variable = f"{run._ref.name}:{run.dir}"  # type: ignore[union-attr]
    run.finish()
    wait_for_end(run.dir)
    for value in (variable, "nonsense"):
        done = run_script(BAD_PLACE, cwd=tmp_path, env={"SHMLOG_RUN": value})
        assert (done.stdout, done.stderr) == ("alive shmlog False False\n", "")


def test_nested_metrics_are_said_as_they_are_logged(tmp_path: Path) -> None:
    told = pytest.warns(shmlog.ShmlogWarning, match="metric 'none': the value is None")
    with shmlog.init("digits", root=tmp_path) as run, told:
        run.log_metrics({"loss": 0.5, "val": {"acc": 1}, "none": None}, step=3)
    (message,) = shmlog.load(run.dir).events("log")
    assert message["data"]["metrics"] == {"loss": 0.5, "val/acc": 1}
    assert message["data"]["message"] == "Step 3 - Metrics: loss=0.5000, val/acc=1"
