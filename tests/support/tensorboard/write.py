"""Write the event files beside this script anew: ``python write.py torch|tensorboardX FOLDER``.

Run it where the package is installed, with numpy, pillow and, for sounds of tensorboardX, soundfile. The files here are
of torch 2.13.0 and tensorboardX 2.6.5; only the host in their names was replaced.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

MODULES = {"torch": "torch.utils.tensorboard", "tensorboardX": "tensorboardX"}


def write_run(writer_type: Any, folder: Path) -> None:
    """Write a run of three attempts: the second has a ``purge_step``, the third none."""
    with writer_type(str(folder)) as writer:
        for step in range(10):
            writer.add_scalar("loss", 1 / (1 + step), step)
            writer.add_scalars("acc/both", {"train": step, "val": step / 2}, step)
        writer.add_text("note", "hello", 1)
        writer.add_image("a/picture", np.zeros((3, 8, 8), "uint8"), 1)
        writer.add_histogram("weights", np.arange(100.0), 2, bins=4)
        writer.add_audio("sound", np.zeros((100, 1), "float32"), 2, sample_rate=8000)
        writer.add_pr_curve("pr", np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.8, 0.3]), 4, num_thresholds=5)
        writer.add_hparams({"lr": 0.1, "size": 32, "opt": "adam"}, {"hparam/accuracy": 0.9, "loss": 0.5})
    time.sleep(1.1)  # the names of their files have the second
    with writer_type(str(folder), purge_step=6) as writer:
        for step in range(6, 12):
            writer.add_scalar("loss", 10 + step, step)
    time.sleep(1.1)
    with writer_type(str(folder)) as writer:
        for step in range(11, 14):
            writer.add_scalar("loss", 20 + step, step)


def write_sets(writer_type: Any, folder: Path) -> None:
    """Write several sets of hyperparameters, as the documentation of both does."""
    with writer_type(str(folder)) as writer:
        for number in range(3):
            writer.add_hparams({"lr": 0.1 * number, "size": number}, {"hparam/loss": 10 * number})


if __name__ == "__main__":
    module, target = sys.argv[1:]
    writer_type = import_module(MODULES[module]).SummaryWriter
    write_run(writer_type, Path(target, module, "run"))
    write_sets(writer_type, Path(target, module, "sets"))
    if module == "torch":
        with writer_type(str(Path(target, module, "exact"))) as writer:
            writer.add_scalar("single", 0.1, 3, new_style=True)
            writer.add_scalar("double", 0.1, 3, new_style=True, double_precision=True)
