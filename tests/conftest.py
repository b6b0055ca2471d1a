"""What all tests share: which shmlog is tested, and that none of it is left behind."""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import secrets
import signal
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]
PATIENCE_S = 15.0
END_WITH_US = ("multiprocessing.resource_tracker", "multiprocessing.forkserver", "shmlog.transfer.importers")
WORKERS_OF_CPU = 3  # the tests wait twice as long as they work


def _prefer_what_is_installed() -> None:
    """Put the tree last on the path: `python -m pytest` has put it first.

    What users get is tested, the installed package. Who has the tree in
    PYTHONPATH, or has not installed it, tests the tree.
    """
    others = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    wanted = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(ROOT) not in wanted and importlib.machinery.PathFinder.find_spec("shmlog", others):
        sys.path[:] = [*others, str(ROOT)]


_prefer_what_is_installed()

import shmlog  # noqa: E402
from shmlog.run import registry  # noqa: E402
from shmlog.segment import shm  # noqa: E402
from tests.support.processes import SHARED_MEMORY, segments_below  # noqa: E402

# A shell ignores these in what it runs in the background, and then so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

settings.register_profile("shmlog", print_blob=True, deadline=None)
settings.load_profile("shmlog")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("shmlog")
    group.addoption("--faults", choices=["ci", "full"], default="ci", help="size of the fault tests (default: ci)")
    group.addoption("--no-skips", action="store_true", help="a test that skips itself fails")
    group.addoption("--seed", type=int, default=None, help="seed of the fault tests: repeats a failure (default: new)")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many workers share the tests: none where one file or test is named."""
    is_small = len(config.args) == 1 and not Path(config.invocation_params.dir, config.args[0]).is_dir()
    return 0 if is_small else WORKERS_OF_CPU * len(os.sched_getaffinity(0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Have what was skipped fail where everything is there that a test may want."""
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome = "failed"
    return report


def pytest_report_header() -> str:
    return f"shmlog: {Path(shmlog.__file__).parent}"


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Return whether fault tests run at their full size."""
    return bool(request.config.getoption("--faults") == "full")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return the seed of the test, which a failure prints."""
    given = request.config.getoption("--seed")
    seed = secrets.randbits(32) if given is None else int(given)
    print(f"repeat with: --seed={seed}")
    return seed


@pytest.fixture
def unkept_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[shmlog.Run]:
    """Return a run that no flusher keeps yet."""
    monkeypatch.setattr("shmlog.run.start.start_flusher", lambda layout, segment: None)
    run = shmlog.init("unkept", root=tmp_path)
    yield run
    run._dismiss_followers()
    run._leave()
    registry.forget(run)
    assert run._ref is not None
    shm.unlink(run._ref)


@pytest.fixture(autouse=True)
def _fresh_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test in no run, and in an empty folder: a child must not find the tree there."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SHMLOG_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail a worker's last test if a process or a segment of its runs outlives them all."""
    yield
    left = _end_what_is_left(tmp_path_factory.getbasetemp())
    assert not left, f"left behind by the tests: {left}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the whole if something of any worker outlives it."""
    if hasattr(session.config, "workerinput"):
        return
    left = _end_what_is_left(session.config._tmp_path_factory.getbasetemp())  # type: ignore[attr-defined]
    if left:
        print(f"\nleft behind by the tests: {left}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _end_what_is_left(base: Path) -> list[tuple[int | str, str]]:
    """Return the processes and segments of runs below ``base`` that do not end by themselves, once they are gone."""
    deadline = time.monotonic() + PATIENCE_S
    while (left := [*_processes(base), *segments_below(base)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid, _ in _processes(base):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path, _ in segments_below(base):
        (SHARED_MEMORY / path).unlink(missing_ok=True)
        (SHARED_MEMORY / f"sem.{path}").unlink(missing_ok=True)
    return left


def _processes(base: Path) -> Iterator[tuple[int, str]]:
    """Yield our children, and the flushers of runs below ``base``."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has ended
        if state == "Z" or any(name in command for name in END_WITH_US):
            continue  # it has ended, or ends with us
        if int(parent) == os.getpid() or ("shmlog.flusher" in command and str(base) in command):
            yield int(entry.name), command
