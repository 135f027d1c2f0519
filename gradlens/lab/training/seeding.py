"""One seed fans out to the weights, the data order and dropout, which then do not disturb each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Seeds:
    """The independent seeds of one run.

    Attributes:
        model: for the weights. Variants whose norms draw no numbers start from the same matrices.
        data: for the order of the batches; it knows nothing of the model, so comparisons are paired.
        noise: root of the seeds for dropout.
    """

    model: int
    data: int
    noise: int

    def dropout(self, step: int) -> int:
        """Return the seed for the dropout of one step.

        Each step has its own, so a resumed run needs no generator's state, neither the CPU's nor a GPU's,
        and drawing more numbers in one step (an evaluation, a probe) leaves the next as it was.
        """
        return _draw(np.random.SeedSequence((self.noise, step)))


def fan_out(seed: int) -> Seeds:
    """Return the seeds of a run, a pure function of its one seed (>= 0)."""
    model, data, noise = (_draw(child) for child in np.random.SeedSequence(seed).spawn(3))
    return Seeds(model, data, noise)


@contextmanager
def isolated_rng(device: torch.device) -> Iterator[None]:
    """Put torch's generators (the CPU's and, on CUDA, the device's) back as they were on leaving."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def _draw(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))  # torch takes 63 bits
