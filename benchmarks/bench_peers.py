"""What a log call costs elsewhere: each peer with the same work, in a process and an environment of its own.

`python benchmarks/bench_peers.py [NAME…]`; without names, all. A peer that can't be installed, or fails, is
told and left out. None of them writes from a worker process what shmlog writes; only the call is compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench_call import compile_noop
from harness import HERE, Bench, machine, machine_name, write

PROCESS = HERE / "peer.py"
TIMEOUT_S = 300


@dataclass(frozen=True)
class Peer:
    """A way to log: what to install, what to do once, what to do for each step."""

    name: str
    install: str
    setup: str
    call: str
    calls: int  # in a burst

    @property
    def is_here(self) -> bool:
        """Whether it is measured in this environment: it is shmlog, or Python's own."""
        return not self.install


SHMLOG = """
import shmlog
run = shmlog.init("peers", root=folder, lane_records=65536)
loss = run.metric("loss")
ten = {f"metric{i}": 0.5 for i in range(10)}
def settle():
    assert run.flush() and not any(run.stats["dropped"].values())
"""
EXPMAN = """
import expman
experiment = expman.Experiment("peers", base_dir=folder)
ten = {f"metric{i}": 0.5 for i in range(10)}
"""
QUEUE = """
import multiprocessing
def take(queue):
    while queue.get() is not None: pass
queue = multiprocessing.get_context("fork").Queue()
multiprocessing.get_context("fork").Process(target=take, args=(queue,), daemon=True).start()
"""
HANDLER = """
import logging, logging.handlers, queue
logger = logging.getLogger("peers"); logger.setLevel(logging.INFO); logger.propagate = False
records = queue.SimpleQueue()
logger.addHandler(logging.handlers.QueueHandler(records))
listener = logging.handlers.QueueListener(records, logging.FileHandler("peers.log"))
listener.start()
"""
LOGURU = """
from loguru import logger
logger.remove(); logger.add("peers.log", enqueue=True, format="{message}")
"""
FASTER_FIFO = """
import multiprocessing, queue as queues
from faster_fifo import Queue
def take(queue):
    while True:
        try: queue.get_many()
        except queues.Empty: pass
queue = Queue(100_000_000)
multiprocessing.get_context("fork").Process(target=take, args=(queue,), daemon=True).start()
"""

PEERS = [
    Peer("shmlog metric(value, step)", "", SHMLOG, "loss(value, step)", 20_000),
    Peer("shmlog run.log(name, value, step)", "", SHMLOG, "run.log('loss', value, step)", 20_000),
    Peer("shmlog run.log(dict of 10, step=step)", "", SHMLOG, "run.log(ten, step=step)", 2_500),
    Peer("expman-rs log_vector(dict of 1, step)", "expman-rs", EXPMAN,
         "experiment.log_vector({'loss': value}, step=step)", 5_000),
    Peer("expman-rs log_vector(dict of 10, step)", "expman-rs", EXPMAN,
         "experiment.log_vector(ten, step=step)", 2_500),
    Peer("multiprocessing.Queue put", "", QUEUE, "queue.put(('loss', value, step))", 5_000),
    Peer("logging with QueueHandler", "", HANDLER, "logger.info('loss %s %s', value, step)", 2_000),
    Peer("loguru, enqueued", "loguru", LOGURU, "logger.info('loss {} {}', value, step)", 1_000),
    Peer("faster-fifo put", "faster-fifo", FASTER_FIFO, "queue.put(('loss', value, step))", 2_000),
    Peer("tensorboardX add_scalar", "tensorboardX", "from tensorboardX import SummaryWriter\n"
         "writer = SummaryWriter(folder)", "writer.add_scalar('loss', value, step)", 500),
    Peer("trackio log", "trackio", "import trackio\nrun = trackio.init(project='peers', embed=False)",
         "run.log({'loss': value}, step=step)", 200),
    Peer("wandb log, offline", "wandb", "import wandb\nrun = wandb.init(project='peers', mode='offline', dir=folder)",
         "run.log({'loss': value}, step=step)", 200),
    Peer("aim track", "aim", "import aim\nrun = aim.Run(repo=folder, system_tracking_interval=None)",
         "run.track(value, name='loss', step=step)", 200),
    Peer("mlflow log_metric, sqlite", "mlflow", "import mlflow\nmlflow.set_tracking_uri(f'sqlite:///{folder}/ml.db')\n"
         "mlflow.start_run()", "mlflow.log_metric('loss', value, step)", 20),
]  # fmt: skip


def python_for(peer: Peer, folder: Path) -> Path:
    """Return a Python that has the peer installed; raises CalledProcessError if it can't be."""
    if peer.is_here:
        return Path(sys.executable)
    venv = folder / f"venv-{peer.install}"
    if not venv.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True, capture_output=True)
        install = [venv / "bin" / "pip", "install", "-q", peer.install]
        subprocess.run(install, check=True, capture_output=True, timeout=TIMEOUT_S)
    return venv / "bin" / "python"


def version_of(peer: Peer, python: Path) -> str:
    program = f"from importlib.metadata import version; print(version({peer.install!r}))"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def measure(bench: Bench, peer: Peer, python: Path) -> None:
    """Record the cost of a peer's call, and its ratio to an empty C call beside it."""
    with tempfile.TemporaryDirectory(dir=bench.folder, ignore_cleanup_errors=True) as work:
        (Path(work) / "home").mkdir()
        for file in bench.folder.glob("noop*"):
            (Path(work) / file.name).symlink_to(file)
        arguments = [peer.setup, peer.call, work, str(peer.calls), str(bench.size(60, 5))]
        environment = {**os.environ, "HOME": f"{work}/home", "WANDB_SILENT": "true"}
        done = subprocess.run(
            [python, PROCESS, *arguments], env=environment, capture_output=True, text=True, check=True,
            timeout=TIMEOUT_S,
        )  # fmt: skip
    pairs = json.loads(done.stdout.splitlines()[-1])
    bench.record(f"{peer.name} / empty C call", "x", [mine / base for mine, base in pairs])
    bench.record(peer.name, "ns", [mine * 1e9 for mine, _ in pairs])


def main(wanted: list[str]) -> None:
    described = machine()
    with tempfile.TemporaryDirectory(prefix="shmlog-peers-", ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), quick="--quick" in wanted)
        names = [name for name in wanted if not name.startswith("-")]
        compile_noop(bench.folder)
        for peer in PEERS:
            if names and not any(name in peer.name for name in names):
                continue
            try:
                python = python_for(peer, bench.folder)
                measure(bench, peer, python)
            except (subprocess.SubprocessError, json.JSONDecodeError) as error:
                lines = (getattr(error, "stderr", None) or str(error)).strip()
                print(f"{peer.name}: not measured: {str(lines).splitlines()[-1][:200]}", flush=True)
                continue
            if peer.install:
                described["versions"][peer.install] = version_of(peer, python)
        if not names and not bench.quick:
            write(HERE / "results" / "peers" / f"{machine_name()}.json", described, bench)


if __name__ == "__main__":
    main(sys.argv[1:])
