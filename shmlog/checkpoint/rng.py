"""The state of the random number generators of this process: random, numpy, torch."""

from __future__ import annotations

import random
import sys
from typing import Any


def capture() -> dict[str, Any]:
    """Return the states of the global generators of the modules that are imported."""
    states: dict[str, Any] = {"random": random.getstate()}
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        states["numpy"] = numpy.random.get_state(legacy=False)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        # As arrays: a process without torch can read the rest.
        states["torch"] = torch.get_rng_state().numpy()
        if torch.cuda.is_initialized():
            states["torch.cuda"] = [state.numpy() for state in torch.cuda.get_rng_state_all()]
    return states


def restore(states: dict[str, Any]) -> None:
    """Set the generators to the states that `capture` returned.

    Those of torch are left alone where torch is not installed, and those of
    devices that are not there.
    """
    random.setstate(states["random"])
    if "numpy" in states:
        import numpy as np

        np.random.set_state(states["numpy"])
    if "torch" in states:
        try:
            import torch
        except ImportError:
            return
        torch.set_rng_state(torch.from_numpy(states["torch"]))
        for device, state in enumerate(states.get("torch.cuda", [])[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(torch.from_numpy(state), device)
